import sys

import numpy as np
import pytest
import scipy.linalg
import torch

from robustdiff.metrics.distribution import (
    classwise_frechet,
    frechet_distance,
    inception_score,
    kid,
)


def normal(count, width, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=dtype)


def whitened(count, width, seed):
    """Samples whose sample mean is 0 and whose sample covariance is the identity, exactly."""
    x = normal(count, width, seed)
    x = x - x.mean(dim=0)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T


def by_scipy(real, generated):
    mean = real.mean(dim=0) - generated.mean(dim=0)
    first, second = (x.T.cov().numpy() for x in (real, generated))
    root = scipy.linalg.sqrtm(first @ second).real
    return float(mean @ mean) + np.trace(first + second - 2 * root)


def by_singular_values(real, generated):
    """tr (S S_w)^(1/2) is the nuclear norm of the product of the scaled centred samples."""
    mean = real.mean(dim=0) - generated.mean(dim=0)
    first, second = ((x - x.mean(dim=0)) / (len(x) - 1) ** 0.5 for x in (real, generated))
    cross = torch.linalg.svdvals(first @ second.T).sum()
    return float(mean @ mean + first.square().sum() + second.square().sum() - 2 * cross)


@pytest.mark.parametrize(("count", "width"), [(200, 8), (20, 64)])
def test_frechet_distance_of_equal_samples_is_zero_even_with_fewer_samples_than_features(
    count, width
):
    x = normal(count, width, 0)
    assert 0 <= frechet_distance(x, x.clone()) < 1e-4


def test_frechet_distance_of_known_gaussians_is_the_closed_form():
    scale = torch.linspace(0.5, 3, 6, dtype=torch.float64)
    other_scale = torch.linspace(2, 1, 6, dtype=torch.float64)
    shift = torch.arange(6, dtype=torch.float64)
    real = whitened(300, 6, 0) * scale
    generated = whitened(500, 6, 1) * other_scale + shift
    expected = shift.square().sum() + (scale - other_scale).square().sum()
    assert frechet_distance(real, generated) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_distance_equals_scipy_on_correlated_samples():
    mixing = normal(8, 8, 2)
    real, generated = normal(150, 8, 3), normal(90, 8, 4) @ mixing + 0.3
    expected = by_scipy(real, generated)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_with_fewer_samples_than_features_equals_the_singular_value_form():
    real, generated = normal(30, 50, 5), normal(20, 50, 6) * 1.5 + 0.1
    expected = by_singular_values(real, generated)
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_keeps_its_digits_far_from_the_origin():
    real, generated = normal(100, 4, 7), normal(100, 4, 8) * 2
    near = frechet_distance(real, generated)
    assert frechet_distance(real + 1e6, generated + 1e6) == pytest.approx(near, rel=1e-6)


def test_classwise_frechet_is_the_mean_over_classes_and_sees_swapped_labels():
    labels = torch.arange(120) % 3
    x = normal(120, 4, 9) + 5 * labels[:, None]
    y = normal(120, 4, 10) + 5 * labels[:, None]
    mean, per_class = classwise_frechet(x, labels, y, labels, 3)
    expected = [by_scipy(x[labels == c], y[labels == c]) for c in range(3)]
    assert per_class == pytest.approx(expected, rel=1e-8)
    assert mean == pytest.approx(sum(expected) / 3, rel=1e-8)
    swapped, _ = classwise_frechet(x, labels, y, (labels + 1) % 3, 3)
    assert swapped > mean + 4 * 5**2


def test_classwise_frechet_names_the_class_without_samples():
    labels = torch.zeros(10, dtype=torch.int64)
    x = normal(10, 2, 0)
    with pytest.raises(ValueError, match=r"2 real samples of every class, got 0 of class 1"):
        classwise_frechet(x, labels, x, labels, 2)


def test_kid_is_the_unbiased_mmd_with_the_cubic_kernel():
    real, generated = normal(60, 5, 11), normal(60, 5, 12) + 0.5

    def kernel(a, b):
        return (a @ b.T / 5 + 1) ** 3

    same = sum(
        (kernel(x, x).sum() - kernel(x, x).diagonal().sum()) / (60 * 59) for x in (real, generated)
    )
    expected = same - 2 * kernel(real, generated).mean()
    assert kid(real, generated, seed=0) == pytest.approx(float(expected), rel=1e-9)


def test_kid_of_equal_distributions_is_near_zero_and_depends_on_the_seed_only():
    real, generated = normal(300, 4, 13), normal(100, 4, 14)
    value = kid(real, generated, seed=1)
    assert abs(value) < 0.1 < kid(real, generated + 1, seed=1)
    assert kid(real, generated, seed=1) == value
    assert kid(real, generated, seed=2) != value


def test_inception_score_of_uniform_predictions_is_one():
    assert inception_score(torch.zeros(50, 10), seed=0) == pytest.approx(1)


def test_inception_score_of_certain_balanced_predictions_is_the_number_of_classes():
    logits = 1000 * torch.nn.functional.one_hot(torch.arange(70) % 7, 7).float()
    assert inception_score(logits, seed=0) == pytest.approx(7)


def test_inception_score_is_the_exponential_of_the_mean_divergence():
    logits = normal(300, 4, 15) * 3
    p = logits.softmax(dim=1)
    expected = (p * (p / p.mean(dim=0)).log()).sum(dim=1).mean().exp()
    assert inception_score(logits, seed=0) == pytest.approx(float(expected), rel=1e-12)


def test_inception_score_stays_finite_for_certain_float32_predictions_and_a_missing_class():
    logits = 5000 * torch.nn.functional.one_hot(torch.arange(99) % 9, 10).float()
    assert inception_score(logits, seed=0) == pytest.approx(9)


def test_inception_score_splits_only_when_each_split_keeps_100_samples_per_class():
    logits = normal(799, 2, 16) * 3
    p = logits.softmax(dim=1)
    whole = float((p * (p / p.mean(dim=0)).log()).sum(dim=1).mean().exp())
    # 399 samples of 2 classes make one split, whatever the seed; 799 make three.
    assert inception_score(logits[:399], 0) == pytest.approx(inception_score(logits[:399], 1))
    assert inception_score(logits, 0) != pytest.approx(inception_score(logits, 1), rel=1e-9)
    assert inception_score(logits, 0) == pytest.approx(whole, rel=0.02)


def test_the_global_random_generator_is_left_as_it_was():
    before = torch.get_rng_state()
    x = normal(40, 3, 17)
    kid(x, x, seed=0)
    inception_score(x, seed=0)
    frechet_distance(x, x)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("metric", [frechet_distance, lambda a, b: kid(a, b, 0)])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.masked_fill(x == x[3, 1], float("nan")), r"finite, got 1 of 20 rows"),
        (lambda x: x[:1], r"at least 2 rows, got 1"),
        (lambda x: x[:, :2], r"same width, got 3 and 2"),
        (lambda x: x.long(), r"floating point of shape \(N, D\), got torch.int64"),
        (lambda x: x[0], r"of shape \(3,\)"),
    ],
)
def test_unusable_features_are_refused_in_one_line(metric, spoil, message):
    x = normal(20, 3, 18)
    with pytest.raises(ValueError, match=message) as caught:
        metric(x, spoil(x))
    assert "\n" not in str(caught.value)


def test_a_torchmetrics_that_cannot_be_imported_is_one_line_with_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    x = normal(10, 2, 0)
    with pytest.raises(ImportError, match=r"pip install 'torchmetrics") as caught:
        frechet_distance(x, x)
    assert "\n" not in str(caught.value)
