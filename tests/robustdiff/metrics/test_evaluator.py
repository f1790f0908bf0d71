import pytest
import torch

from robustdiff.classifiers.image import embed
from robustdiff.files.atomic import sha256
from robustdiff.metrics import evaluator as module
from robustdiff.metrics.classification import label_accuracy, nll
from robustdiff.metrics.evaluator import load_or_train, train_evaluator


@pytest.fixture
def short(monkeypatch):
    """A recipe of a few steps, for tests of what happens around the training."""
    monkeypatch.setattr(module, "_SEEN", {False: 400, True: 400})


@pytest.fixture
def small(digits):
    return digits.train[:200], digits.train_labels[:200], 10


def test_an_evaluator_of_digits_is_accurate_and_calibrated_on_held_out_images(digits, evaluator):
    _, logits = embed(evaluator, digits.test)
    assert label_accuracy(logits, digits.test_labels) >= 0.97
    assert nll(logits, digits.test_labels) < 0.06


@pytest.mark.usefixtures("short")
def test_a_cache_hit_equals_training_again_bit_for_bit(tmp_path, small):
    trained, digest = load_or_train(tmp_path / "a", "digits", *small, seed=0)
    cached, same = load_or_train(
        tmp_path / "a", "digits", *small, seed=0, progress=lambda *_: pytest.fail("trained again")
    )
    _, retrained = load_or_train(tmp_path / "b", "digits", *small, seed=0)
    assert digest == same == retrained
    for one, two in zip(embed(trained, small[0]), embed(cached, small[0]), strict=True):
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
            module._training_hash(digits.train[:count], digits.train_labels[:count], 10, 0)
            for count in (33, 1347)
        ]

    few, all_of_them = names()
    monkeypatch.setattr(module, "_MAX_PASSES", 100)
    assert names()[0] != few
    assert names()[1] == all_of_them


@pytest.mark.usefixtures("short")
def test_everything_that_determines_the_weights_changes_the_name(tmp_path, small, monkeypatch):
    images, labels, _ = small
    changed = images.clone()
    changed[0, 0, 0, 0] ^= 1
    for arguments, seed in (
        ((images, labels, 10), 0),
        ((changed, labels, 10), 0),
        ((images, labels.roll(1), 10), 0),
        ((images, labels, 11), 0),
        ((images, labels, 10), 1),
    ):
        load_or_train(tmp_path, "digits", *arguments, seed=seed)
    monkeypatch.setattr(module, "RECIPE", "another")
    load_or_train(tmp_path, "digits", *small, seed=0)
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
    _, digest = load_or_train(tmp_path, "digits", *small, seed=0)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    calls = []
    _, again = load_or_train(
        tmp_path, "digits", *small, seed=0, progress=lambda *call: calls.append(call)
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
    with pytest.raises(ValueError, match=message) as caught:
        load_or_train(tmp_path / "cache", "x", images, labels, 10, seed=0)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "cache").exists()
