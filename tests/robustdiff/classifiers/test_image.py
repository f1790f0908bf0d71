import copy
from functools import partial

import pytest
import torch

from corruptions import corrupt
from robustdiff.classifiers import image
from robustdiff.classifiers.image import ImageClassifier, embed, train_image_classifier
from robustdiff.data.arrays import to_float

train = partial(train_image_classifier, images_seen=400)


@pytest.fixture
def small(digits):
    return digits.train[:200], digits.train_labels[:200], 10


def test_features_are_standardised_over_the_training_images_and_seldom_further_on(
    digits, evaluator
):
    for images in (digits.train, digits.test):
        features, _ = embed(evaluator, images)
        assert features.shape == (len(images), 32)
        assert features.mean(dim=0).abs().max() < 0.2
        assert ((features.std(dim=0) > 0.8) & (features.std(dim=0) < 1.2)).all()


@pytest.mark.parametrize("shape", [(3, 1, 8, 8), (2, 3, 32, 32), (1, 1, 28, 28), (1, 3, 9, 17)])
def test_images_of_any_size_from_eight_pixels_on_are_embedded(shape):
    images = torch.zeros(shape, dtype=torch.uint8)
    features, logits = embed(ImageClassifier(shape[1], 7), images)
    assert features.shape == (shape[0], 32)
    assert logits.shape == (shape[0], 7)
    assert features.dtype == logits.dtype == torch.float64


def test_embedding_does_not_depend_on_the_batch_split_or_on_the_mode(digits, evaluator):
    features, logits = embed(evaluator, digits.test)
    evaluator.train()
    split_features, split_logits = embed(evaluator, digits.test, batch_size=7)
    assert evaluator.training
    evaluator.eval()
    torch.testing.assert_close(split_features, features, rtol=0, atol=1e-4)
    torch.testing.assert_close(split_logits, logits, rtol=0, atol=1e-4)


def test_embedding_is_computed_in_float32_even_under_autocast(digits, evaluator):
    exact = copy.deepcopy(evaluator).double().features(to_float(digits.test).double())
    with torch.autocast("cpu", torch.bfloat16):
        features, _ = embed(evaluator, digits.test)
    torch.testing.assert_close(features, exact, rtol=0, atol=1e-4)


def test_training_is_a_function_of_its_arguments_and_leaves_the_global_generator(small):
    calls = []
    before = torch.get_rng_state()
    first = train(*small, seed=3, progress=lambda *call: calls.append(call))
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again, other = (train(*small, seed=seed) for seed in (3, 4))
    assert not first.training
    assert calls == [(step, 3) for step in (1, 2, 3)]
    names = first.state_dict()
    assert all(torch.equal(names[name], again.state_dict()[name]) for name in names)
    assert not torch.equal(first.project.weight, other.project.weight)


def test_shifted_images_are_copies_moved_by_up_to_an_eighth_with_the_border_repeated():
    images = torch.rand(40, 1, 16, 24)
    shifted = image._shifted(images, torch.Generator().manual_seed(0))
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


@pytest.mark.parametrize(
    ("count", "images_seen", "steps"),
    [(33, 1000 * 33, 1000), (33, 1000 * 33 + 1, 1001), (33, 1, 3), (1347, 80_000, 60 * 10)],
)
def test_images_are_repeated_until_so_many_are_seen_and_three_times_at_least(
    count, images_seen, steps, digits
):
    def stop(done, total):
        raise InterruptedError(total)

    images, labels = digits.train[:count], digits.train_labels[:count]
    with pytest.raises(InterruptedError) as stopped:
        train(images, labels, 10, seed=0, images_seen=images_seen, progress=stop)
    assert stopped.value.args == (steps,)


def test_labels_noisy_under_a_known_matrix_train_a_classifier_of_the_clean_classes(digits):
    labels = corrupt(digits.train_labels.numpy(), num_classes=10, noise_type="pairflip", rate=0.45)
    given = torch.from_numpy(labels.given)
    found = {}
    for name, transition in (("ignored", None), ("known", labels.nominal)):
        classifier = train(
            digits.train, given, 10, seed=0, images_seen=20_000, transition=transition
        )
        predicted = embed(classifier, digits.test)[1].argmax(dim=1)
        found[name] = float((predicted == digits.test_labels).double().mean())
    assert found["known"] > 0.95
    assert found["known"] > found["ignored"] + 0.02


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
def test_unusable_training_data_are_refused_in_one_line(images, labels, message):
    with pytest.raises(ValueError, match=message) as caught:
        train(images, labels, 10, seed=0)
    assert "\n" not in str(caught.value)
