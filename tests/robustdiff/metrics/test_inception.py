import os
import sys
from collections import OrderedDict

import pytest
import torch

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.metrics.inception import OFFICIAL_NAMES, inception_features


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file with the layout of the published one and random numbers in it."""
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        # The constructor would download its weights.
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        network = module.FeatureExtractorInceptionV3
        patch.setattr(network, "load_state_dict", lambda *_: None)
        state = network("inception-v3-compat", ["2048"]).state_dict()
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, 1, 12, 10), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def features(weights, images):
    return inception_features(images, weights, sha256=sha256(weights))


def test_features_are_the_2048_pooled_ones_in_float64_and_differ_between_images(features):
    assert features.shape == (2, 2048)
    assert features.dtype == torch.float64
    assert (features[0] != features[1]).any()


def test_features_equal_torchmetrics_without_antialiasing_on_repeated_channels(
    weights, images, features
):
    from torchmetrics.image.fid import NoTrainInceptionV3

    network = NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights), antialias=False)
    expected = network(images.repeat(1, 3, 1, 1)).double()
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-9)


def test_features_of_one_image_are_the_same_in_any_batch(weights, images, features):
    alone = inception_features(images[1:], weights, sha256=sha256(weights))
    torch.testing.assert_close(alone, features[1:], rtol=1e-4, atol=1e-9)


def test_a_file_with_another_digest_is_refused_before_it_is_loaded(weights, images, monkeypatch):
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("the file was loaded"))
    with pytest.raises(DamagedError, match=r"must have sha256 6726825d.*, got [0-9a-f]{64}$"):
        inception_features(images, weights)


class Malicious:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def test_a_file_with_code_in_it_is_refused_and_its_code_does_not_run(tmp_path, images):
    marker, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save(OrderedDict(weight=Malicious(str(marker))), path)
    with pytest.raises(DamagedError, match=r"must hold tensors and nothing else"):
        inception_features(images, path, sha256=sha256(path))
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weight": torch.zeros(1)}, r"do not fit the network of 2015-12-05"),
        (torch.zeros(1), r"must hold a dict of tensors, got Tensor"),
    ],
)
def test_other_weights_are_refused_in_one_line(tmp_path, images, content, message):
    path = tmp_path / "other.pth"
    torch.save(content, path)
    with pytest.raises(DamagedError, match=message) as caught:
        inception_features(images, path, sha256=sha256(path))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_of_torch_is_refused(tmp_path, images):
    path = tmp_path / "text.pth"
    path.write_text("not weights")
    with pytest.raises(DamagedError, match=r"must hold tensors and nothing else"):
        inception_features(images, path, sha256=sha256(path))


def test_without_a_file_the_hub_cache_is_searched(weights, images, features, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(ValueError, match=r"no Inception weights: .*pth.*--inception-weights FILE"):
        inception_features(images, None)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / OFFICIAL_NAMES[1]).symlink_to(weights)
    assert torch.equal(inception_features(images, None, sha256=sha256(weights)), features)


def test_a_file_that_is_not_there_is_named(tmp_path, images):
    with pytest.raises(ValueError, match=r"cannot read --inception-weights .*none\.pth: No such"):
        inception_features(images, tmp_path / "none.pth")


def test_without_the_package_the_remedy_is_named_in_one_line(weights, images, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[inception\]'") as caught:
        inception_features(images, weights, sha256=sha256(weights))
    assert "\n" not in str(caught.value)
