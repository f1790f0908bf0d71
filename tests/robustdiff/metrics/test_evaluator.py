import copy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from robustdiff.classifiers.image import embed
from robustdiff.data.arrays import Images
from robustdiff.files.atomic import sha256
from robustdiff.metrics import evaluator as module
from robustdiff.metrics.catalogue import evaluator_in_words
from robustdiff.metrics.classification import label_accuracy, nll
from robustdiff.metrics.evaluator import calibrate, load_or_train, train_evaluator


@pytest.fixture
def short(monkeypatch):
    """A recipe of a few steps, for tests of what happens around the training."""
    monkeypatch.setattr(module, "_SEEN", {False: 400, True: 400})


@pytest.fixture
def small(digits):
    return replace(digits, train=digits.train[:200], train_labels=digits.train_labels[:200])


def test_an_evaluator_of_digits_is_accurate_and_calibrated_on_held_out_images(digits, evaluator):
    _, logits = embed(evaluator, digits.test)
    assert label_accuracy(logits, digits.test_labels) >= 0.97
    assert nll(logits, digits.test_labels) < 0.06


@pytest.mark.usefixtures("short")
def test_a_cache_hit_equals_training_again_bit_for_bit(tmp_path, small):
    trained, digest = load_or_train(tmp_path / "a", small, small.train_labels, seed=0)
    cached, same = load_or_train(
        tmp_path / "a",
        small,
        small.train_labels,
        seed=0,
        progress=lambda *_: pytest.fail("trained again"),
    )
    _, retrained = load_or_train(tmp_path / "b", small, small.train_labels, seed=0)
    assert digest == same == retrained
    for one, two in zip(embed(trained, small.train), embed(cached, small.train), strict=True):
        assert torch.equal(one, two)
    (path,) = (tmp_path / "a").iterdir()
    assert path.name.startswith("digits-")
    assert path.suffix == ".safetensors"
    assert digest == sha256(path)


@pytest.mark.parametrize(("count", "steps"), [(33, 400), (199, 400), (1347, 60 * 10)])
def test_few_images_are_repeated_400_times(count, steps, digits):
    def stop(done, total):
        raise InterruptedError(total)

    with pytest.raises(InterruptedError) as stopped:
        train_evaluator(
            digits.train[:count], digits.train_labels[:count], 10, seed=0, progress=stop
        )
    assert stopped.value.args == (steps,)


def test_the_limit_of_passes_names_only_evaluators_of_few_images(digits, monkeypatch):
    def names():
        return [
            module._training_hash(
                replace(digits, train=digits.train[:count]), digits.train_labels[:count], 0
            )
            for count in (33, 1347)
        ]

    few, all_of_them = names()
    monkeypatch.setattr(module, "_MAX_PASSES", 100)
    assert names()[0] != few
    assert names()[1] == all_of_them


@pytest.mark.usefixtures("short")
def test_everything_that_determines_the_weights_changes_the_name(tmp_path, small, monkeypatch):
    labels = small.train_labels
    changed = small.train.clone()
    changed[0, 0, 0, 0] ^= 1
    for images, learnt, seed in (
        (small, labels, 0),
        (replace(small, train=changed), labels, 0),
        (small, labels.roll(1), 0),
        (SimpleNamespace(**(vars(small) | {"num_classes": 11})), labels, 0),
        (small, labels, 1),
    ):
        load_or_train(tmp_path, images, learnt, seed=seed)
    monkeypatch.setattr(module, "RECIPE", {False: "another"})
    load_or_train(tmp_path, small, labels, seed=0)
    assert len(list(tmp_path.iterdir())) == 6
    # Held-out images decide nothing of the small network.
    load_or_train(tmp_path, replace(small, test=small.test[:9]), labels, seed=0)
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: b"",
        lambda content: b"not safetensors at all",
    ],
    ids=["cut", "flipped bit", "empty", "foreign"],
)
def test_a_damaged_cache_file_is_trained_again_and_replaced(tmp_path, small, damage):
    _, digest = load_or_train(tmp_path, small, small.train_labels, seed=0)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    calls = []
    _, again = load_or_train(
        tmp_path,
        small,
        small.train_labels,
        seed=0,
        progress=lambda *call: calls.append(call),
    )
    assert calls
    assert again == digest == sha256(path)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 8, 8), torch.zeros(2).long(), r"must be uint8 .* got torch.float32"),
        (torch.zeros(2, 1, 0, 8).byte(), torch.zeros(2).long(), r"got shape \(2, 1, 0, 8\)"),
        (torch.zeros(2, 2, 8, 8).byte(), torch.zeros(2).long(), r"1 or 3 channels"),
        (torch.zeros(0, 1, 8, 8).byte(), torch.zeros(0).long(), r"at least one image"),
        (torch.zeros(1, 1, 8, 8).byte(), torch.zeros(1).long(), r"at least 2 images, got 1"),
        (torch.zeros(2, 1, 8, 8).byte(), torch.zeros(3).long(), r"int64 of shape \(2,\)"),
        (torch.zeros(2, 1, 8, 8).byte(), torch.tensor([0, 10]), r"got values from 0 to 10"),
    ],
)
def test_unusable_training_data_are_refused_in_one_line(images, labels, message, tmp_path):
    data = SimpleNamespace(name="x", train=images, num_classes=10)
    with pytest.raises(ValueError, match=message) as caught:
        load_or_train(tmp_path / "cache", data, labels, seed=0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()


def surer(evaluator, factor):
    """A copy whose logits are multiplied."""
    changed = copy.deepcopy(evaluator)
    for part in (changed.classify.weight, changed.classify.bias):
        part.data *= factor
    return changed


def test_calibration_undoes_a_temperature_and_leaves_features_and_accuracy(digits, evaluator):
    found = []
    for changed in (surer(evaluator, 4), surer(evaluator, 8)):
        calibrate(changed, digits.test, digits.test_labels)
        found.append(embed(changed, digits.test))
    features, logits = embed(evaluator, digits.test)
    for same, calibrated in found:
        assert torch.equal(same, features)
        assert torch.equal(calibrated.argmax(1), logits.argmax(1))
        assert nll(calibrated, digits.test_labels) <= nll(logits, digits.test_labels)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=0.02, atol=1e-6)


def test_calibration_makes_nobody_surer(digits, evaluator):
    """A few images, all of them right, would ask for certainty."""
    changed = copy.deepcopy(evaluator)
    _, logits = embed(changed, digits.test)
    some = (logits.argmax(1) == digits.test_labels).nonzero()[:5, 0]
    calibrate(changed, digits.test[some], digits.test_labels[some])
    assert torch.equal(embed(changed, digits.test)[1], logits)


def test_an_evaluator_of_larger_images_is_calibrated_on_those_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SEEN", {True: 400})
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 24, 24), dtype=torch.uint8, generator=generator)
    labels = torch.arange(20) % 2
    data = Images(
        name="x", class_names=("a", "b"), train=images, train_labels=labels, test=images.flip(3),
        test_labels=1 - labels,
    )  # fmt: skip
    plain = train_evaluator(images, labels, 2, seed=0)
    evaluator, _ = load_or_train(tmp_path, data, labels, seed=0)
    # All held-out labels are wrong, so it is as unsure as it can be.
    torch.testing.assert_close(evaluator.classify.weight, plain.classify.weight / 10)
    features, logits = embed(evaluator, images)
    assert torch.equal(features, embed(plain, images)[0])
    assert nll(logits, 1 - labels) < nll(embed(plain, images)[1], 1 - labels)
    load_or_train(tmp_path, replace(data, test_labels=labels), labels, seed=0)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("accuracy", "corrected", "words"),
    [
        (0.9, None, "evaluator: right on 0.900 of held-out real images"),
        (
            0.713,
            None,
            "evaluator: right on 0.713 of held-out real images, under 0.9: too few to rank "
            "generators by label accuracy or NLL",
        ),
        (
            0.95,
            0.0,
            "evaluator: trained on labels as given, 0.0% corrected, right on 0.950 of held-out "
            "real images",
        ),
    ],
)
def test_a_line_says_how_far_an_evaluator_is_to_be_trusted(accuracy, corrected, words):
    assert evaluator_in_words(accuracy, corrected) == words
