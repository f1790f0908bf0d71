"""Bayes' rule on rows that keep a few classes, against the dense arrays that they stand for."""

import numpy as np
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from scipy.special import softmax

from curricula import CURRICULA, Labels
from curricula.sparse import holding, keep_few
from robustdiff.labels import noise_model
from robustdiff.labels.decision import _transition, decide
from robustdiff.labels.judge import judge, margins, posterior
from robustdiff.labels.label_fit import LabelModel, _sums, deconvolve, sparse_deconvolve
from robustdiff.labels.sparse_bayes import (
    sparse_image_classes,
    sparse_margins,
    sparse_posterior,
    sparse_sums,
)
from robustdiff.training.used_labels import TrainingLabels

TINY = 1e-12


@st.composite
def cases(draw):
    """Evidence that keeps some classes, labels, a bias and a transition matrix."""
    seed, n, k = draw(st.integers(0, 10_000)), draw(st.integers(1, 30)), draw(st.integers(2, 8))
    rng, kept = np.random.default_rng(seed), draw(st.integers(1, k))
    given = rng.integers(k, size=n)
    evidence = keep_few(rng.normal(size=(n, k)), given, kept)
    return evidence, given, rng.normal(size=k), rng.dirichlet(np.ones(k), size=k)


def flattened(dense, like):
    """Return what is kept of a dense array by rows that keep the classes of others."""
    found = keep_few(dense, np.zeros(len(dense), dtype=np.int64), like.values.shape[1])
    found.classes[:] = like.classes
    found[:] = dense
    return found


def assert_alike(one, two):
    np.testing.assert_allclose(one.values, two.values, atol=2e-6)
    np.testing.assert_allclose(one.rest, two.rest, atol=2e-6)


@drawn(cases())
@settings(max_examples=60, deadline=None)
def test_probabilities_are_those_of_the_dense_rows(case):
    evidence, given, bias, transition = case
    dense = softmax(1.7 * evidence[:].astype(np.float64) + bias, axis=1)
    found = sparse_image_classes(evidence, 1.7, bias)
    assert_alike(found, flattened(dense, evidence))
    by_both = posterior(found[:].astype(np.float64), transition, given)
    assert_alike(sparse_posterior(found, transition, given, TINY), flattened(by_both, evidence))
    np.testing.assert_allclose(
        sparse_margins(found, given, TINY), margins(found[:], given), atol=1e-5
    )


@drawn(cases())
@settings(max_examples=60, deadline=None)
def test_sums_of_the_fit_are_those_of_the_dense_rows(case):
    evidence, given, bias, transition = case
    k = evidence.count
    parameters = np.r_[0.3, bias]
    dense = noise_model._sums(
        evidence[:].astype(np.float64), given, np.eye(k)[given], parameters, transition
    )
    found = sparse_sums(evidence, given, float(np.exp(0.3)), bias, transition)
    for one, two in zip(found, dense, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)


@drawn(cases())
@settings(max_examples=60, deadline=None)
def test_guessed_labels_are_explained_as_by_the_dense_rows(case):
    evidence, given, bias, transition = case
    dense, k = evidence[:].astype(np.float64), evidence.count
    forecast = np.random.default_rng(0).random(len(given))
    model = LabelModel(0.4, bias, transition, 0.3, 0.0)
    assert_alike(
        model.posterior(evidence, given, forecast),
        flattened(model.posterior(dense, given, forecast), evidence),
    )
    for guesses in (None, forecast):
        one = model if guesses is not None else model._replace(guessed=0.0)
        few = _sums(one, evidence, given, None, guesses)
        for found, expected in zip(
            few, _sums(one, dense, given, np.eye(k)[given], guesses), strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@drawn(cases())
@settings(max_examples=60, deadline=None)
def test_learnt_noise_is_undone_as_in_dense_rows(case):
    evidence, given, _, transition = case
    noisy_rows = softmax(evidence[:], axis=1)
    few = keep_few(noisy_rows, given, evidence.count)
    found = sparse_deconvolve(few, transition)
    np.testing.assert_allclose(found[:], deconvolve(few[:], transition), atol=1e-5)
    some = sparse_deconvolve(keep_few(noisy_rows, given, evidence.values.shape[1]), transition)
    np.testing.assert_allclose(some[:].sum(axis=1), 1, atol=1e-5)


@drawn(cases())
@settings(max_examples=40, deadline=None)
def test_the_matrix_of_a_decision_is_that_of_the_dense_rows(case):
    evidence, given, bias, _ = case
    classes = sparse_image_classes(evidence, 1.0, bias)
    np.testing.assert_allclose(
        _transition(classes, given), _transition(classes[:].astype(np.float64), given), atol=1e-4
    )


@pytest.mark.parametrize("target", [1, 40], ids=["a class that is kept", "one that is left out"])
def test_undoing_learnt_noise_does_not_favour_the_given_label(target):
    """A label that is kept although it is as unlikely as those left out stays as unlikely."""
    k = 60
    transition = np.full((k, k), 0.1 / (k - 1))
    np.fill_diagonal(transition, 0.9)
    transition[0, 0], transition[0, target] = 0.6, 0.3 + 0.1 / (k - 1)
    noisy_row = np.full((1, k), 0.1 / (k - 2))
    noisy_row[0, 0], noisy_row[0, 1] = 0.6, 0.3
    found = sparse_deconvolve(keep_few(noisy_row, np.array([7]), 5), transition)
    dense = deconvolve(noisy_row, transition)
    assert 7 in found.classes
    np.testing.assert_allclose(found[:][0, 7], found.rest[0], rtol=1e-5)
    np.testing.assert_allclose(found[:][0, :2], dense[0, :2], atol=0.02)


def noisy(rng, n, k):
    """Evidence of classes that a third of the labels contradict."""
    clean = np.arange(n) % k
    evidence = rng.normal(size=(n, k))
    evidence[np.arange(n), clean] += 4
    wrong = rng.random(n) < 0.3
    return evidence, np.where(wrong, (clean + rng.integers(1, k, size=n)) % k, clean), clean


def test_a_label_that_is_not_kept_has_the_score_of_its_class():
    """As where a person saw a class of little weight, which takes the place of the given one."""
    dense = np.array([[0.02, 0.5, 0.3, 0.15, 0.02, 0.01]], dtype=np.float32)
    given = np.array([0])
    found = holding(keep_few(dense, given, 3), given, np.array([5]))
    assert 0 not in found.classes
    scores = sparse_margins(found, given, TINY)
    np.testing.assert_allclose(scores, margins(found[:], given), rtol=1e-5)
    assert scores[0] < 0


def test_a_judge_of_all_classes_kept_finds_what_the_dense_one_finds():
    evidence, given, _ = noisy(np.random.default_rng(0), 600, 4)
    margin = CURRICULA["margin"]
    scores, trust = judge(margin, evidence.astype(np.float32), given)
    same, few = judge(margin, keep_few(evidence, given, 4), given)
    np.testing.assert_allclose(same, scores, atol=2e-3)
    np.testing.assert_allclose(few.right, trust.right, atol=1e-4)
    np.testing.assert_allclose(few.transition, trust.transition, atol=1e-4)
    np.testing.assert_allclose(few.classes[:], trust.classes, atol=1e-4)


def test_a_judge_of_a_few_classes_kept_finds_the_same_labels():
    evidence, given, clean = noisy(np.random.default_rng(1), 1500, 10)
    _, dense = judge(CURRICULA["margin"], evidence.astype(np.float32), given)
    _, few = judge(CURRICULA["margin"], keep_few(evidence, given, 4), given)
    right = given == clean
    assert few.noise == pytest.approx(dense.noise, abs=0.03)
    assert ((few.right > 0.5) == right).mean() > ((dense.right > 0.5) == right).mean() - 0.01


def test_noise_among_many_classes_is_found_to_be_symmetric():
    evidence, given, clean = noisy(np.random.default_rng(3), 3000, 150)
    scores, trust = judge(CURRICULA["margin"], keep_few(evidence, given), given)
    assert trust.noise == pytest.approx((given != clean).mean(), abs=0.05)
    apart = trust.transition[~np.eye(150, dtype=bool)]
    np.testing.assert_allclose(apart, apart[0])
    assert ((scores < 0) == (given != clean)).mean() > 0.9


def test_a_decision_by_all_classes_kept_is_the_dense_one():
    rng = np.random.default_rng(2)
    evidence, given, _ = noisy(rng, 200, 3)
    probabilities = softmax(evidence, axis=1).astype(np.float32)
    dense, few = decide(probabilities, given), decide(keep_few(probabilities, given, 3), given)
    assert few.kind == dense.kind
    np.testing.assert_array_equal(few.corrected, dense.corrected)
    for name in ("classes", "image_classes", "mean_classes", "mean_image_classes"):
        np.testing.assert_array_equal(getattr(few, name)[:], getattr(dense, name))


def test_labels_are_drawn_as_likely_as_they_are_and_left_out_ones_alike():
    shares = np.tile(np.array([0.05, 0.5, 0.05, 0.3, 0.05, 0.05], dtype=np.float32), (6000, 1))
    given = np.full(len(shares), 3)
    device, index = torch.device("cpu"), torch.arange(len(shares))
    drawn_labels = []
    for kept in (6, 2):
        soft = keep_few(shares, given, kept)
        used = TrainingLabels.of(Labels(given, soft=soft), device)
        drawn_labels.append(used.draw(index, 5, 1))
    dense = TrainingLabels.of(Labels(given, soft=shares), device).draw(index, 5, 1)
    assert torch.equal(drawn_labels[0], dense)
    counts = torch.bincount(drawn_labels[1], minlength=6) / len(shares)
    np.testing.assert_allclose(counts, shares[0], atol=0.02)


@pytest.mark.parametrize("wrong", [True, False])
def test_a_decision_about_many_classes_is_that_of_the_dense_rows(wrong):
    rng, k = np.random.default_rng(4), 60
    evidence, given, clean = noisy(rng, 1000, k)
    given = given if wrong else clean
    probabilities = softmax(1.5 * evidence, axis=1).astype(np.float32)
    dense = decide(probabilities, given)
    same, few = (decide(keep_few(probabilities, given, kept), given) for kept in (k, 5))
    assert dense.kind == same.kind == few.kind == ("by class" if wrong else "no noise")
    np.testing.assert_array_equal(same.corrected, dense.corrected)
    np.testing.assert_allclose(same.right, dense.right, atol=1e-3)
    np.testing.assert_allclose(same.transition, dense.transition, atol=1e-3)
    for name in ("classes", "image_classes", "mean_classes", "mean_image_classes"):
        np.testing.assert_allclose(getattr(same, name)[:], getattr(dense, name), atol=1e-3)
    assert (few.corrected == dense.corrected).mean() > 0.98
    assert few.share == pytest.approx(dense.share, abs=0.01)
