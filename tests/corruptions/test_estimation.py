import numpy as np
import pytest
from scipy.stats import norm

from corruptions import confident_joint, corrupt, mixture_posterior, score_mixture

CLEAN = np.arange(20_000) % 5


def sure(labels, k):
    return np.eye(k)[labels] * 0.9 + 0.1 / k


@pytest.mark.parametrize("noise_type", ["symmetric", "pairflip"])
@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_confident_joint_counts_the_truth_from_perfect_predictions(noise_type, rate):
    labels = corrupt(CLEAN, num_classes=5, noise_type=noise_type, rate=rate)
    estimate = confident_joint(labels.given, sure(CLEAN, 5))
    assert estimate.rate == pytest.approx(labels.realised_rate)
    np.testing.assert_allclose(estimate.transition, labels.realised)
    if rate:
        assert estimate.wrong[labels.flipped].min() > estimate.wrong[~labels.flipped].max()


def test_confident_joint_takes_uncertain_predictions():
    labels = corrupt(CLEAN, num_classes=5, rate=0.3)
    rng = np.random.default_rng(0)
    logits = 4 * np.eye(5)[CLEAN] + rng.gumbel(size=(len(CLEAN), 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    estimate = confident_joint(labels.given, probabilities)
    assert estimate.rate == pytest.approx(0.3, abs=0.03)
    assert np.abs(estimate.transition - labels.realised).max() < 0.04


@pytest.mark.parametrize("count", [70, 100, 1000])
@pytest.mark.parametrize("sure", [0.6, 0.7, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_confident_joint_takes_predictions_that_are_equal_within_a_class(count, sure, dtype):
    clean = np.repeat([0, 1, 0], [count, count, count // 2])
    given = np.repeat([0, 1], [count, count + count // 2])
    probabilities = np.full((len(given), 2), 1 - sure, dtype=dtype)
    probabilities[np.arange(len(given)), clean] = sure
    estimate = confident_joint(given, probabilities)
    np.testing.assert_allclose(estimate.transition, [[2 / 3, 1 / 3], [0, 1]])


@pytest.mark.parametrize("count", [3, 10, 1000])
@pytest.mark.parametrize("value", [0.1, 0.3, -7.7])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_scores_show_no_wrong_label(count, value, dtype):
    assert (mixture_posterior(np.full(count, value, dtype=dtype)) == 0).all()


def test_mixture_posterior_is_that_of_known_gaussians():
    rng = np.random.default_rng(0)
    wrong = rng.random(20_000) < 0.3
    scores = np.where(wrong, rng.normal(-1, 0.5, 20_000), rng.normal(1, 1, 20_000))
    low, high = 0.3 * norm.pdf(scores, -1, 0.5), 0.7 * norm.pdf(scores, 1, 1)
    posterior = mixture_posterior(scores)
    assert np.abs(posterior - low / (low + high)).mean() < 0.02
    assert posterior.mean() == pytest.approx(0.3, abs=0.02)
    assert (mixture_posterior(np.ones(10)) == 0).all()


def test_score_mixture_estimates_rate_and_matrix():
    labels = corrupt(CLEAN, num_classes=5, noise_type="pairflip", rate=0.25)
    rng = np.random.default_rng(0)
    scores = rng.normal(np.where(labels.flipped, -2, 2), 0.7)
    estimate = score_mixture(labels.given, scores, CLEAN, 5)
    assert estimate.rate == pytest.approx(0.25, abs=0.01)
    np.testing.assert_allclose(estimate.transition, labels.realised, atol=0.02)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="class 2 is never given"):
        confident_joint(np.array([0, 1]), np.full((2, 3), 1 / 3))
    with pytest.raises(ValueError, match=r"shape \(3, K\), got \(2, 3\)"):
        confident_joint(np.array([0, 1, 2]), np.full((2, 3), 1 / 3))
    for bad in (np.nan, np.inf):
        probabilities = np.array([[0.9, 0.1], [bad, 0.1]])
        with pytest.raises(
            ValueError, match=f"probabilities must be finite, got {bad} for sample 1"
        ):
            confident_joint(np.array([0, 1]), probabilities)
        with pytest.raises(ValueError, match=f"scores must be finite, got {bad} for sample 2"):
            mixture_posterior(np.array([0.0, 1.0, bad]))
