import copy

import pytest
import torch

from robustdiff.classifiers import image as evaluator
from robustdiff.data.arrays import to_float
from robustdiff.files.atomic import sha256
from robustdiff.metrics import Evaluator, embed, load_or_train, train_evaluator
from robustdiff.metrics.classification import label_accuracy, nll


@pytest.fixture
def short(monkeypatch):
    """A recipe of a few steps, for tests of what happens around the training."""
    monkeypatch.setattr(evaluator, "_MIN_IMAGES_SEEN", 400)


@pytest.fixture
def small(digits):
    return digits.train[:200], digits.train_labels[:200], 10


def test_an_evaluator_of_digits_is_accurate_and_calibrated_on_held_out_images(digits, judge):
    _, logits = embed(judge, digits.test)
    assert label_accuracy(logits, digits.test_labels) >= 0.97
    assert nll(logits, digits.test_labels) < 0.06


def test_features_are_standardised_over_the_training_images_and_seldom_further_on(digits, judge):
    for images in (digits.train, digits.test):
        features, _ = embed(judge, images)
        assert features.shape == (len(images), 32)
        assert features.mean(dim=0).abs().max() < 0.2
        assert ((features.std(dim=0) > 0.8) & (features.std(dim=0) < 1.2)).all()


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 3, 32, 32), (1, 1, 28, 28), (1, 3, 9, 17)])
def test_images_of_any_size_from_eight_pixels_on_are_embedded(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    features, logits = embed(Evaluator(shape[1], 7), images)
    assert features.shape == (shape[0], 32)
    assert logits.shape == (shape[0], 7)
    assert features.dtype == logits.dtype == torch.float64


def test_embedding_does_not_depend_on_the_batch_split_or_on_the_mode(digits, judge):
    features, logits = embed(judge, digits.test)
    judge.train()
    split_features, split_logits = embed(judge, digits.test, batch_size=7)
    assert judge.training
    judge.eval()
    torch.testing.assert_close(split_features, features, rtol=0, atol=1e-4)
    torch.testing.assert_close(split_logits, logits, rtol=0, atol=1e-4)


def test_embedding_is_computed_in_float32_even_under_autocast(digits, judge):
    exact, _ = copy.deepcopy(judge).double()(to_float(digits.test).double())
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = embed(judge, digits.test)
    torch.testing.assert_close(features, exact, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("short")
def test_training_is_a_function_of_its_arguments_and_leaves_the_global_generator(small):
    calls = []
    before = torch.get_rng_state()
    first = train_evaluator(*small, seed=3, progress=lambda *call: calls.append(call))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again, other = (train_evaluator(*small, seed=seed) for seed in (3, 4))
    assert not first.training
    assert calls == [(step, 3) for step in (1, 2, 3)]
    names = first.state_dict()
    assert all(torch.equal(names[name], again.state_dict()[name]) for name in names)
    assert not torch.equal(first.project.weight, other.project.weight)


def test_shifted_images_are_copies_moved_by_up_to_an_eighth_with_the_border_repeated():
    images = torch.rand(40, 1, 16, 24)
    shifted = evaluator._shifted(images, torch.Generator().manual_seed(0))
    rows, columns = torch.arange(16), torch.arange(24)
    moves = [
        image[:, (rows + down).clamp(0, 15)][:, :, (columns + right).clamp(0, 23)]
        for image in images
        for down in range(-2, 3)
        for right in range(-2, 3)
    ]
    candidates = torch.stack(moves).reshape(40, 25, 1, 16, 24)
    hits = (candidates == shifted[:, None]).flatten(2).all(dim=2)
    assert hits.any(dim=1).all()
    assert len(hits.long().argmax(dim=1).unique()) > 10


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


@pytest.mark.parametrize(
    ("count", "images_seen", "steps"),
    [(33, None, 400), (199, None, 400), (1347, None, 60 * 10), (33, 1000 * 33, 1000)],
)
def test_few_images_are_repeated_400_times_unless_more_is_asked_for(
    count, images_seen, steps, digits
):
    def stop(done, total):
        raise InterruptedError(total)

    images, labels = digits.train[:count], digits.train_labels[:count]
    with pytest.raises(InterruptedError) as stopped:
        train_evaluator(images, labels, 10, seed=0, images_seen=images_seen, progress=stop)
    assert stopped.value.args == (steps,)


def test_the_limit_of_passes_names_only_evaluators_of_few_images(digits, monkeypatch):
    def names():
        return [
            evaluator._training_hash(digits.train[:count], digits.train_labels[:count], 10, 0)
            for count in (33, 1347)
        ]

    few, all_of_them = names()
    monkeypatch.setattr(evaluator, "_MAX_PASSES", 100)
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
    monkeypatch.setattr(evaluator, "RECIPE", "another")
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
        (torch.zeros(2, 1, 7, 8).byte(), torch.zeros(2).long(), r"at least 8 x 8 pixels"),
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
