import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustdiff.metrics.manifolds import classwise_density_coverage, precision_recall
from robustdiff.metrics.neighbours import density_coverage


def normal(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def by_definition(centres, points, k):
    """The share of points within a closed ball, in exact integers, for points on a grid."""
    among = np.square(centres[:, None] - centres[None]).sum(axis=-1)
    radii = np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(among)])
    near = np.square(centres[:, None] - points[None]).sum(axis=-1) <= radii[:, None]
    return near.any(axis=0).mean()


grids = hnp.arrays(np.int64, st.tuples(st.integers(4, 12), st.just(2)), elements=st.integers(-4, 4))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(grids, grids, st.integers(1, 3))
def test_precision_and_recall_follow_the_definition_with_ties_and_copies(real, made, k):
    found = precision_recall(torch.from_numpy(real).double(), torch.from_numpy(made).double(), k)
    assert found == pytest.approx((by_definition(real, made, k), by_definition(made, real, k)))


def test_they_swap_with_their_arguments_and_are_one_for_a_copy():
    real, made = normal(80, 4, 0), normal(60, 4, 1) * 1.3
    assert precision_recall(real, made) == precision_recall(made, real)[::-1]
    assert precision_recall(real, real.clone()) == (1, 1)
    assert precision_recall(real, made + 100) == (0, 0)


def test_a_dropped_mode_costs_recall_and_typical_samples_precision_nothing():
    side = torch.where(torch.arange(400) % 2 == 0, 10.0, -10.0)[:, None]
    real = normal(400, 3, 2) + side
    precision, recall = precision_recall(real, normal(400, 3, 3) + 10)
    assert precision > 0.8
    assert 0.35 < recall <= 0.55
    precision, recall = precision_recall(real, normal(400, 3, 4) * 0.3 + side)
    assert precision > 0.97
    assert recall < 0.3


def test_within_the_classes_are_the_means_over_the_classes():
    real, made, labels = normal(90, 3, 5), normal(90, 3, 6), torch.arange(90) % 3
    expected = np.mean(
        [density_coverage(real[labels == c], made[labels == c]) for c in range(3)], axis=0
    )
    found = classwise_density_coverage(real, labels, made, labels)
    assert found == pytest.approx(tuple(expected))
    apart = real + 100 * labels[:, None], made + 100 * labels[:, None]
    _, coverage = classwise_density_coverage(apart[0], labels, apart[1], labels)
    assert coverage == pytest.approx(found[1])
    assert classwise_density_coverage(apart[0], labels, apart[1], (labels + 1) % 3) == (0, 0)


def test_bad_arguments_are_refused_in_one_line():
    x = normal(3, 2, 7)
    with pytest.raises(ValueError, match="real features must have at least 4 rows, got 3"):
        precision_recall(x, x)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        precision_recall(x, x, 0)
