"""From evidence to trust: closed forms, and data where the truth is known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from corruptions import corrupt
from curricula import CURRICULA, trusted
from robustdiff.labels.judge import by_classes, judge, posterior
from robustdiff.labels.label_fit import deconvolve
from robustdiff.labels.noise_model import fit_noise

CLEAN = np.arange(6000) % 3
T = np.array([[0.6, 0.4, 0.0], [0.0, 0.9, 0.1], [0.2, 0.2, 0.6]])


def noisy(matrix=T):
    return corrupt(CLEAN, num_classes=3, noise_type="matrix", matrix=matrix).given


def test_posterior_is_bayes_rule():
    clean = np.array([[0.5, 0.25, 0.25]])
    expected = clean[0] * T[:, 1] / (clean[0] * T[:, 1]).sum()
    np.testing.assert_allclose(posterior(clean, T, np.array([1]))[0], expected)
    # A label that T rules out says nothing.
    ruled_out = posterior(np.array([[1.0, 0.0, 0.0]]), T, np.array([2]))
    np.testing.assert_allclose(ruled_out, [[1, 0, 0]])


@pytest.mark.parametrize("matrix", [np.eye(3), T, np.full((3, 3), 1 / 3)])
def test_deconvolution_inverts_where_it_can_and_survives_where_not(matrix):
    rng = np.random.default_rng(0)
    clean = rng.dirichlet(np.full(3, 0.5), 100)
    found = deconvolve(clean @ matrix, matrix)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (found >= 0).all()
    assert np.abs(found @ matrix - clean @ matrix).max() < 0.02


def test_the_scale_of_likelihoods_is_found_from_the_given_labels():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20_000, 3)) * 2
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    given = (rng.random((20_000, 1)) > chances.cumsum(axis=1)).sum(axis=1)
    for scale in (1e-4, 1.0, 50.0):
        model = fit_noise(logits * scale, given)
        np.testing.assert_array_equal(model.transition, np.eye(3))
        assert np.abs(model.image_classes(logits * scale) - chances).mean() < 0.01


@pytest.mark.parametrize("signal", [0.0, 0.3])
@pytest.mark.parametrize("rate", [0.0, 0.4, 0.7])
def test_evidence_without_information_suspects_nobody(signal, rate):
    given, evidence = made_up(signal, "symmetric", rate)[:2]
    _, trust = judge(CURRICULA["margin"], evidence, given)
    assert trusted(trust.right, given).all()
    assert trust.noise == 0
    np.testing.assert_array_equal(trust.classes.argmax(axis=1), given)


def made_up(signal, noise_type, rate):
    """Given labels and evidence of 12,000 samples: a signal at the clean class, in unit noise."""
    clean = np.arange(12_000) % 10
    labels = corrupt(clean, num_classes=10, noise_type=noise_type, rate=rate, dataset="mnist")
    evidence = np.random.default_rng(0).normal(size=(12_000, 10))
    evidence[np.arange(12_000), clean] += signal
    rows = np.arange(12_000)
    return labels.given, evidence - evidence[rows, labels.given][:, None], labels.flipped


@pytest.mark.parametrize("signal", [1.0, 2.0, 3.0])
def test_weak_evidence_is_not_taken_for_noise(signal):
    given, evidence, _ = made_up(signal, "symmetric", 0.0)
    _, trust = judge(CURRICULA["margin"], evidence, given)
    assert trust.noise < 0.01
    assert trusted(trust.right, given).mean() > 0.99


@pytest.mark.parametrize(
    ("noise_type", "rate", "signal", "auroc", "off"),
    [
        ("symmetric", 0.4, 1.0, 0.75, 0.04),
        ("symmetric", 0.4, 2.0, 0.93, 0.02),
        ("symmetric", 0.7, 1.0, 0.75, 0.04),
        ("symmetric", 0.7, 2.0, 0.93, 0.02),
        ("asymmetric", 0.4, 2.0, 0.97, 0.03),
        ("asymmetric", 0.4, 3.0, 0.99, 0.02),
    ],
)
def test_the_noise_behind_weak_evidence_is_found(noise_type, rate, signal, auroc, off):
    given, evidence, flipped = made_up(signal, noise_type, rate)
    scores, trust = judge(CURRICULA["margin"], evidence, given)
    assert trust.noise == pytest.approx(flipped.mean(), abs=off)
    assert roc_auc_score(~flipped, scores) > auroc


def test_few_labels_are_enough_to_see_asymmetric_noise():
    given, evidence, flipped = (part[:3000] for part in made_up(3.0, "asymmetric", 0.4))
    trust = judge(CURRICULA["margin"], evidence, given)[1]
    assert trust.noise == pytest.approx(flipped.mean(), abs=0.03)


def test_of_many_labels_some_of_every_class_are_fitted(monkeypatch):
    monkeypatch.setattr("robustdiff.labels.noise_model._MOST_FITTED", 3000)
    given = np.append(np.zeros(5000, dtype=np.int64), [1, 2])
    evidence = np.random.default_rng(0).normal(size=(len(given), 4))
    with pytest.raises(ValueError, match="class 3 is never given"):
        fit_noise(evidence, given)
    assert fit_noise(evidence[:, :3], given).transition.shape == (3, 3)


def test_margin_finds_labels_that_a_third_of_another_class_carries():
    """Asymmetric noise: the given label is likely under the image, another still likelier."""
    given = noisy()
    rng = np.random.default_rng(0)
    likelihood = np.log(np.eye(3)[CLEAN] @ T + 0.01) + 0.05 * rng.normal(size=(6000, 3))
    scores, trust = judge(CURRICULA["margin"], likelihood * 1e-3, given)
    wrong = given != CLEAN
    assert roc_auc_score(~wrong, scores) > 0.99
    assert trust.noise == pytest.approx(wrong.mean(), abs=0.03)
    assert (trust.classes.argmax(axis=1) == CLEAN).mean() > 0.97


def test_scores_are_log_odds(monkeypatch):
    monkeypatch.setattr("robustdiff.labels.judge._predicts", lambda *_: True)
    classes = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1]])
    scores, trust = by_classes(classes, np.full((3, 3), 1 / 3), np.array([0, 0]))
    np.testing.assert_allclose(scores, np.log([0.7 / 0.2, 0.1 / 0.8]))
    np.testing.assert_allclose(trust.right, [0.7, 0.1])
    assert trust.noise == 0.5


@pytest.mark.parametrize("name", ["small-loss", "dynamics-uncond"])
def test_scores_without_a_zero_are_split_by_their_own_distribution(name):
    rng = np.random.default_rng(0)
    wrong = rng.random(5000) < 0.3
    _, trust = judge(
        CURRICULA[name], rng.normal(np.where(wrong, 5.0, 9.0), 0.8), np.zeros(5000, int)
    )
    assert trust.noise == pytest.approx(0.3, abs=0.03)
    assert ((trust.right < 0.5) == wrong).mean() > 0.97


def test_easy_and_hard_classes_are_no_noise():
    rng = np.random.default_rng(0)
    given, wrong = np.arange(5000) % 5, rng.random(5000) < 0.3
    offset = np.array([-9.0, 0.0, 2.0, 5.0, 9.0])[given]
    for flipped in (np.zeros(5000, dtype=bool), wrong):
        scores = offset + rng.normal(np.where(flipped, -4.0, 0.0))
        _, trust = judge(CURRICULA["small-loss"], scores, given)
        if flipped.any():
            assert trust.noise == pytest.approx(flipped.mean(), abs=0.03)
        else:
            assert np.isnan(trust.noise)
        assert ((trust.right < 0.5) == flipped).mean() > 0.95


@pytest.mark.parametrize("name", ["small-loss", "dynamics-uncond", "forgetting", "pmi", "sieve"])
@pytest.mark.parametrize("law", ["normal", "laplace", "standard_t", "gumbel"])
def test_one_heap_of_scores_is_no_evidence(name, law):
    rng = np.random.default_rng(0)
    scores = rng.standard_t(3, 4000) if law == "standard_t" else getattr(rng, law)(size=4000)
    trust = judge(CURRICULA[name], scores - np.median(scores), np.zeros(4000, int))[1]
    assert np.isnan(trust.noise)
    assert (trust.right == 1).all()
    assert "no evidence" in trust.doubts[0]


@pytest.mark.parametrize("name", ["dynamics-label", "dynamics-guidance"])
def test_scores_of_motion_are_cut_at_zero_but_tell_no_share_where_both_heaps_have_sunk(name):
    rng = np.random.default_rng(0)
    wrong = rng.random(4000) < 0.4
    scores = np.where(wrong, -1.0, 0.3) + 0.7 * rng.normal(size=4000)
    trust = judge(CURRICULA[name], scores, np.zeros(4000, int))[1]
    assert np.isnan(trust.noise)
    assert "how many are wrong cannot be told" in trust.doubts[0]
    np.testing.assert_array_equal(trust.right < 0.5, scores < 0)
    surer = judge(CURRICULA[name], scores + 0.5, np.zeros(4000, int))[1]
    assert surer.noise == pytest.approx((scores < -0.5).mean(), abs=1e-3)
    assert not surer.doubts


def test_random_scores_say_nothing_of_the_noise():
    scores = np.random.default_rng(0).normal(size=4000)
    trust = judge(CURRICULA["random"], scores, np.zeros(4000, int))[1]
    assert np.isnan(trust.noise)
    assert (trust.right == 1).all()
    assert trust.doubts


def test_scores_with_a_zero_are_split_there():
    scores = np.append([-3.0, -1e-9, 0.0, 1e-9, 20.0], np.full(20, 0.5))
    trust = judge(CURRICULA["pmi"], scores, np.zeros(25, int))[1]
    assert (trust.right >= 0.5).tolist() == [False, False] + [True] * 23
    assert trust.noise == 0.08
