"""Class probabilities from features: out of sample, robust to noise, for any number of images."""

import numpy as np
import pytest
import torch

from corruptions import corrupt
from robustdiff.labels.features import probe


def clusters(count, classes=4, dims=20, distance=3.0, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    centres = distance * rng.normal(size=(classes, dims)) / np.sqrt(dims)
    return (centres[labels] + rng.normal(size=(count, dims)) / 2).astype(np.float32), labels


def test_classes_are_found_under_noise_and_rows_are_distributions():
    features, clean = clusters(2000)
    given = corrupt(clean, num_classes=4, rate=0.4, seed=1).given
    found = probe(features, given, 4, seed=0)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found.argmax(axis=1) == clean).mean() > 0.97
    # The labels as given are forecast as often as they are right.
    own = found[np.arange(2000), given]
    assert own.mean() == pytest.approx((0.6**2 + 3 * (0.4 / 3) ** 2), abs=0.03)


def test_a_label_has_no_part_in_its_own_forecast():
    """Random labels are forecast no better than by chance, though 200 features fit 300 of them."""
    rng = np.random.default_rng(0)
    features, given = rng.normal(size=(300, 200)), rng.integers(0, 3, 300)
    found = probe(features, given, 3, seed=0)
    assert (found.argmax(axis=1) == given).mean() < 0.42


def test_scale_and_shift_of_a_feature_and_dead_features_do_not_matter():
    features, clean = clusters(500)
    given = corrupt(clean, num_classes=4, rate=0.3, seed=1).given
    first = probe(features, given, 4, seed=0)
    moved = np.hstack([features * 2.0 ** np.arange(-10, 10) + 1, np.full((500, 3), 0.3)])
    np.testing.assert_allclose(probe(moved, given, 4, seed=0), first, atol=1e-2)


def test_equal_arguments_give_equal_results_and_the_global_generator_stays():
    features, clean = clusters(300, dims=1500)  # projected
    state = torch.random.get_rng_state()
    first, second = (probe(features, clean, 4, seed=3) for _ in range(2))
    assert (first == second).all()
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (first.argmax(axis=1) == clean).mean() > 0.9


@pytest.mark.parametrize("count", [5, 12])
def test_few_images_and_classes_without_any(count):
    features, clean = clusters(count)
    found = probe(features, clean, 6, seed=0)
    assert found.shape == (count, 6)
    assert np.isfinite(found).all()
    with pytest.raises(ValueError, match="at least 5 images, got 4"):
        probe(features[:4], clean[:4], 6, seed=0)


def test_progress_reaches_its_end():
    features, clean = clusters(2500)
    said = []
    probe(features, clean, 4, seed=0, progress=lambda *numbers: said.append(numbers))
    assert said[-1] == (5000, 5000)
    assert said == sorted(said)


@pytest.mark.parametrize("dims", [1, 512])
def test_votes_that_lack_the_own_label_do_not_tell_it(dims):
    """Of so few images all others may vote, so that the missing vote is the label itself."""
    found = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        features, given = rng.normal(size=(60, dims)), rng.integers(0, 2, 60)
        found.append((probe(features, given, 2, seed=seed).argmax(axis=1) == given).mean())
    assert np.mean(found) < 0.65
