"""A permutation by index holds every index once, depends on its key, and looks random."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from curricula import CurriculumSampler, Selection, draw
from curricula.draw import MOST_SORTED, draw_order
from curricula.permutation import Permutation


@given(st.integers(1, 3000), st.integers(0, 2**63), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_it_is_a_bijection_and_its_slices_are_parts_of_it(count, seed, epoch):
    order = Permutation.of(count, seed, epoch)
    whole = np.asarray(order)
    assert len(order) == count
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(np.sort(whole), np.arange(count))
    for places in (slice(0, 7), slice(count // 2, count), slice(None, None, 3), slice(5, 5)):
        np.testing.assert_array_equal(order[places], whole[places])


def test_every_index_comes_at_every_place_alike():
    count, keys = 12, 3000
    found = np.array([np.asarray(Permutation.of(count, 3, epoch)) for epoch in range(keys)])
    for place in range(count):
        assert chisquare(np.bincount(found[:, place], minlength=count)).pvalue > 1e-4
    # And at two places next to each other every pair.
    pairs = found[:, 0] * count + found[:, 1]
    counts = np.bincount(pairs, minlength=count * count)
    assert chisquare(counts[counts > 0]).pvalue > 1e-4
    assert (counts > 0).sum() == count * (count - 1)


def test_neighbours_are_far_apart_and_epochs_differ():
    count = 50_000
    one, two = (np.asarray(Permutation.of(count, 0, epoch)).astype(float) for epoch in (0, 1))
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(one, np.arange(count))[0, 1]) < 0.02
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.02
    assert (one == two).sum() < 20


def test_only_the_order_of_many_samples_that_no_score_draws_is_by_index(monkeypatch):
    plain = {"scores": None, "share": 1.0, "temperature": 1.0}
    assert isinstance(draw_order(0, 0, 100, **plain), np.ndarray)
    assert isinstance(draw_order(0, 0, MOST_SORTED + 1, **plain), Permutation)
    by_score = plain | {"scores": np.arange(100.0)}
    sampler = CurriculumSampler("uniform", MOST_SORTED + 1, seed=4, selection=Selection())
    first, other = (sampler.order_by_index(epoch)[100:110] for epoch in (0, 1))
    again = CurriculumSampler("uniform", MOST_SORTED + 1, seed=4, selection=Selection())
    np.testing.assert_array_equal(again.order_by_index(0)[100:110], first)
    assert (first != other).any()
    monkeypatch.setattr(draw, "MOST_SORTED", 99)
    assert isinstance(draw_order(0, 0, 100, **plain), Permutation)
    assert isinstance(draw_order(0, 0, 100, **by_score), np.ndarray)
