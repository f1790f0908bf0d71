import copy
from dataclasses import replace

import pytest
import torch

from robustdiff.classifiers.image import (
    Lessons,
    embed,
    passes_for,
    predict,
    train_image_classifier,
)
from robustdiff.classifiers.networks import make_classifier
from robustdiff.data.arrays import to_float
from robustdiff.files.unfinished import Unfinished

SHORT = Lessons(seed=3, passes=3)


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
    features, logits = embed(make_classifier(shape[1:], 7), images)
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
    first = train_image_classifier(
        *small, lessons=SHORT, progress=lambda *call: calls.append(call)
    ).classifier
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    again, other = (
        train_image_classifier(*small, lessons=replace(SHORT, seed=seed)).classifier
        for seed in (3, 4)
    )
    assert not first.training
    assert calls == [(step, 3) for step in (1, 2, 3)]
    names = first.state_dict()
    assert all(torch.equal(names[name], again.state_dict()[name]) for name in names)
    assert not torch.equal(first.project.weight, other.project.weight)


def test_rows_are_learnt_as_if_they_were_all_images_and_labels_as_certain_probabilities(small):
    images, labels, _ = small
    rows = torch.arange(150, 20, -1)
    onehot = torch.nn.functional.one_hot(labels[rows], 10).float()
    found = train_image_classifier(images, onehot, 10, lessons=SHORT, rows=rows)
    alone = train_image_classifier(images[rows], labels[rows], 10, lessons=SHORT)
    assert torch.equal(found.margins, alone.margins)


@pytest.mark.parametrize("side", [8, 32])
def test_a_training_killed_after_any_step_goes_on_from_its_last_pass_to_equal_weights(
    side, small, tmp_path
):
    images = small[0].repeat_interleave(side // 8, 2).repeat_interleave(side // 8, 3)
    if side == 32:  # a colour image of this size gets the deeper network
        images = images.repeat(1, 3, 1, 1)
    lessons = replace(SHORT, passes=4, early=2.0, smoothing=0.1, flip=True)

    def trained(kept, kill_at=0):
        def progress(done, total):
            seen.append(done)
            if done == kill_at:
                raise KeyboardInterrupt

        seen = []
        found = None
        try:
            found = train_image_classifier(
                images, *small[1:], lessons=lessons, unfinished=kept, progress=progress
            )
        except KeyboardInterrupt:
            assert kill_at
        return found, seen

    whole, steps = trained(None)
    a_pass = len(steps) // 4
    kept = Unfinished(tmp_path / "judge" / "one.pt", "this")
    trained(kept, kill_at=2 * a_pass + 1)
    resumed, steps = trained(kept)
    assert steps[0] == 2 * a_pass + 1
    for name, value in whole.classifier.state_dict().items():
        assert torch.equal(value, resumed.classifier.state_dict()[name])
    assert torch.equal(whole.margins, resumed.margins)
    _, steps = trained(replace(kept, work="that"))
    assert steps[0] == 1


def test_margins_tell_wrong_labels_while_the_classifier_learns(digits):
    labels = digits.train_labels.clone()
    wrong = torch.arange(len(labels)) % 5 == 0
    labels[wrong] = (labels[wrong] + 3) % 10
    found = train_image_classifier(
        digits.train, labels, 10, lessons=Lessons(seed=0, passes=8, early=2.0)
    )
    assert ((found.margins < 0) == wrong).double().mean() > 0.95


@pytest.mark.parametrize(
    ("count", "images_seen", "passes"),
    [(33, 1000 * 33, 1000), (33, 1000 * 33 + 1, 1001), (33, 1, 3), (1347, 80_000, 60)],
)
def test_images_are_repeated_until_so_many_are_seen_and_three_times_at_least(
    count, images_seen, passes
):
    assert passes_for(count, images_seen) == passes


def test_prediction_averages_an_image_and_its_mirror_image(digits, evaluator):
    images, rows = digits.test, torch.tensor([5, 3, 200])
    _, straight = embed(evaluator, images[rows])
    _, mirrored = embed(evaluator, images[rows].flip(3))
    for flip, logits in ((False, straight), (True, (straight + mirrored) / 2)):
        found = predict(evaluator, images, rows, flip=flip, batch_size=2)
        torch.testing.assert_close(found.double(), logits.softmax(1), rtol=0, atol=1e-5)


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
        train_image_classifier(images, labels, 10, lessons=SHORT)
    assert "\n" not in str(caught.value)
