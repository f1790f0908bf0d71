"""From evidence to trust: closed forms, and data where the truth is known."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from corruptions import corrupt
from curricula import CURRICULA
from robustdiff.config import DataConfig
from robustdiff.crossfit import crossfit
from robustdiff.data import load_images
from robustdiff.judge import by_classes, class_probabilities, deconvolve, judge, posterior
from robustdiff.progress import Silent

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
        found = class_probabilities(logits * scale, given)[0]
        assert np.abs(found - chances).mean() < 0.01


def test_evidence_without_information_suspects_nobody_under_little_noise():
    given = noisy(np.eye(3) * 0.7 + 0.1)
    evidence = np.random.default_rng(0).normal(size=(6000, 3))
    probabilities = class_probabilities(evidence, given)[0]
    np.testing.assert_allclose(probabilities, 1 / 3, atol=0.05)


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


def test_scores_are_log_odds():
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


def test_scores_with_a_zero_are_split_there():
    scores = np.array([-3.0, -1e-9, 0.0, 1e-9, 20.0])
    trust = judge(CURRICULA["pmi"], scores, np.zeros(5, int))[1]
    assert (trust.right >= 0.5).tolist() == [False, False, True, True, True]


@pytest.fixture(scope="module")
def fitted():
    images = load_images(DataConfig(), Silent())
    clean = images.train_labels.numpy()
    labels = corrupt(clean, num_classes=10, noise_type="pairflip", rate=0.3)
    seen = []
    found = crossfit(
        images.train,
        torch.from_numpy(labels.given),
        10,
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    return labels, found, seen


def test_classifiers_find_wrong_labels_of_images_they_never_saw(fitted):
    labels, found, seen = fitted
    np.testing.assert_allclose(found.classes.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.transition, labels.realised, atol=0.12)
    scores, trust = by_classes(found.classes, found.transition, labels.given)
    assert roc_auc_score(~labels.flipped, scores) > 0.98
    assert trust.noise == pytest.approx(labels.realised_rate, abs=0.03)
    assert (trust.classes.argmax(axis=1) == labels.clean).mean() > 0.96
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
