"""Rows that keep a few classes say what dense ones say; with all classes kept, the same."""

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from curricula import TREATMENTS, CurriculumSampler, Selection, Trust, spared
from curricula.sparse import (
    KEPT,
    MOST_DENSE,
    SparseClasses,
    add_share,
    certain,
    compact,
    empty_like,
    holding,
    joined,
    keep_few,
    largest_other,
    likeliest,
    of_class,
    picked,
    put_rows,
    second_likeliest,
    two_largest,
    unknown,
)


@st.composite
def rows(draw):
    """(N, K) distributions, labels, and how many classes are kept."""
    seed, n, k = draw(st.integers(0, 10_000)), draw(st.integers(1, 40)), draw(st.integers(2, 9))
    rng = np.random.default_rng(seed)
    dense = rng.dirichlet(np.full(k, 0.4), size=n).astype(np.float32)
    return dense, rng.integers(k, size=n), draw(st.integers(1, k))


@drawn(rows())
@settings(max_examples=60, deadline=None)
def test_a_row_keeps_its_label_and_the_largest_values_and_the_sum_of_the_others(case):
    dense, given, kept = case
    sparse = keep_few(dense, given, kept)
    assert (np.diff(sparse.classes, axis=1) > 0).all()
    np.testing.assert_array_equal(of_class(sparse, given), dense[np.arange(len(given)), given])
    np.testing.assert_allclose(sparse[:].sum(axis=1), dense.sum(axis=1), atol=1e-5)
    np.testing.assert_array_equal(sparse[:].max(axis=1), np.where(
        kept > 1, dense.max(axis=1), sparse[:].max(axis=1)))  # fmt: skip
    left = dense.shape[1] - kept
    assert (sparse.rest * left <= 1 - of_class(sparse, given) + 1e-5).all()


@drawn(rows())
@settings(max_examples=60, deadline=None)
def test_with_all_classes_kept_every_reading_equals_the_dense_one(case):
    dense, given, _ = case
    sparse = keep_few(dense, given, dense.shape[1])
    np.testing.assert_array_equal(sparse[:], dense)
    np.testing.assert_array_equal(sparse[given % 2 == 0], dense[given % 2 == 0])
    np.testing.assert_array_equal(likeliest(sparse), dense.argmax(axis=1))
    np.testing.assert_array_equal(second_likeliest(sparse), second_likeliest(dense))
    np.testing.assert_array_equal(two_largest(sparse), two_largest(dense))
    np.testing.assert_array_equal(largest_other(sparse, given), largest_other(dense, given))
    np.testing.assert_array_equal(certain(given, sparse)[:], certain(given, dense))
    right = of_class(dense, given)
    np.testing.assert_array_equal(of_class(sparse, given), right)
    image = np.roll(dense, 1, axis=1)
    one = spared(Trust(right, 0.2, dense, image), given)
    two = spared(Trust(right, 0.2, sparse, keep_few(image, given, dense.shape[1])), given)
    np.testing.assert_array_equal(two.right, one.right)
    np.testing.assert_array_equal(two.classes[:], one.classes)
    for name in ("null", "reweight", "relabel", "soft"):
        some, same = (TREATMENTS[name](trust, given, dense.shape[1]) for trust in (one, two))
        np.testing.assert_array_equal(same.labels, some.labels)
        if some.soft is not None:
            np.testing.assert_array_equal(same.soft[:], some.soft)


@drawn(rows())
@settings(max_examples=40, deadline=None)
def test_rows_are_put_together_as_dense_ones_are(case):
    dense, given, kept = case
    sparse, other = (keep_few(values, given, kept) for values in (dense, np.roll(dense, 1, axis=1)))
    which, first = given % 2 == 0, slice(0, 1)
    expected = np.where(which[:, None], sparse[:], other[:])
    np.testing.assert_array_equal(picked(which, sparse, other)[:], expected)
    np.testing.assert_array_equal(picked(which, sparse[:], other[:]), expected)
    parts = [sparse.at(which), other.at(~which)]
    whole = np.concatenate([sparse[which], other[~which]])
    np.testing.assert_array_equal(joined(parts)[:], whole)
    np.testing.assert_array_equal(joined([part[:] for part in parts]), whole)
    found = unknown(len(given), dense.shape[1], kept)
    put_rows(found, which, sparse.at(which))
    put_rows(found, ~which, other.at(~which))
    np.testing.assert_array_equal(found[:], expected)
    mean = empty_like(sparse)
    for _ in range(3):
        add_share(mean, first, sparse.at(first), 3)
    np.testing.assert_allclose(mean[first], sparse[first], rtol=1e-5)
    assert not mean[1:].any()


@drawn(rows())
@settings(max_examples=40, deadline=None)
def test_the_mean_of_the_left_out_is_linear(case):
    """Smoothing sparse evidence is smoothing dense evidence, with the same classes kept."""
    dense, given, kept = case
    sparse, other = keep_few(dense, given, kept), np.roll(dense, 1, axis=0)
    new = keep_few(dense, given, kept)
    new[:] = other
    sampler = CurriculumSampler("margin", len(given), seed=0, selection=Selection(smoothing=0.7))
    trust = Trust(np.ones(len(given)), 0.0)
    for each in (sparse, new):
        sampler.update(each, lambda found: (of_class(found, given), trust))
    expected = keep_few(dense, given, kept)
    expected[:] = 0.7 * dense + 0.3 * other
    np.testing.assert_allclose(sampler.evidence[:], expected[:], atol=1e-6)


def test_a_row_is_made_to_hold_a_class_and_keeps_its_sum():
    dense = np.array([[0.4, 0.3, 0.2, 0.06, 0.04]], dtype=np.float32)
    sparse = keep_few(dense, np.array([0]), 3)
    found = holding(sparse, np.array([0]), np.array([4]))
    assert found.classes.tolist() == [[0, 1, 4]]
    assert sparse.classes.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(found[:].sum(), 1, atol=1e-6)
    assert holding(sparse, np.array([0]), np.array([1])) is sparse


def test_few_classes_stay_dense_and_many_do_not():
    given = np.zeros(3, dtype=np.int64)
    few = np.random.default_rng(0).random((3, MOST_DENSE))
    assert compact(few, given) is few
    many = compact(np.random.default_rng(0).random((3, MOST_DENSE + 1)), given)
    assert isinstance(many, SparseClasses)
    assert many.values.shape == (3, KEPT)
    assert many.classes.dtype == np.int16
    assert keep_few(np.zeros((1, 40_000)), given[:1]).classes.dtype == np.int32


def test_sparse_state_is_restored_whole():
    rng, given = np.random.default_rng(0), np.arange(50) % 10
    evidence = keep_few(rng.dirichlet(np.ones(10), size=50), given, 4)
    sampler = CurriculumSampler("crossfit", 50, seed=0, selection=Selection())
    trust = Trust(of_class(evidence, given), 0.3, evidence, evidence, np.eye(10))
    sampler.update(evidence, lambda found: (of_class(found, given), trust))
    again = CurriculumSampler("crossfit", 50, seed=0, selection=Selection())
    again.load_state_dict(sampler.state_dict())
    for name in ("values", "classes", "rest", "count"):
        np.testing.assert_array_equal(
            getattr(again.evidence, name), getattr(sampler.evidence, name)
        )
        np.testing.assert_array_equal(
            getattr(again.trust.classes, name), getattr(sampler.trust.classes, name)
        )
    np.testing.assert_array_equal(again.labels(given, 10).labels, sampler.labels(given, 10).labels)
    with pytest.raises(ValueError, match="shape"):
        sampler.updated(keep_few(rng.random((50, 10)), given, 5))
