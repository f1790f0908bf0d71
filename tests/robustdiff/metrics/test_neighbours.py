import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from robustdiff.metrics.neighbours import density_coverage


def normal(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def by_definition(real, generated, k):
    """Both numbers in exact integers, for points on a grid."""
    among = np.square(real[:, None] - real[None]).sum(axis=-1)
    radii = np.array([sorted(np.delete(row, i))[k - 1] for i, row in enumerate(among)])
    inside = np.square(real[:, None] - generated[None]).sum(axis=-1) < radii[:, None]
    return inside.sum() / (k * len(generated)), inside.any(axis=1).mean()


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    hnp.arrays(np.int64, st.tuples(st.integers(4, 12), st.just(2)), elements=st.integers(-3, 3)),
    hnp.arrays(np.int64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.integers(-3, 3)),
    st.integers(1, 3),
)
def test_density_and_coverage_follow_the_definition_with_ties_and_copies(real, generated, k):
    result = density_coverage(
        torch.from_numpy(real).double(), torch.from_numpy(generated).double(), k
    )
    assert result == pytest.approx(by_definition(real, generated, k))


def test_a_copy_of_the_real_samples_has_density_and_coverage_one():
    x = normal(80, 6, 0)
    assert density_coverage(x, x.clone()) == (1, 1)


def test_real_against_real_meets_the_expected_values():
    count, k = 500, 5
    expected = 1 - np.prod([(count - 1 - i) / (2 * count - 1 - i) for i in range(k)])
    density, coverage = np.mean(
        [density_coverage(normal(count, 3, s), normal(count, 3, s + 50), k) for s in range(8)],
        axis=0,
    )
    assert density == pytest.approx(1, abs=0.03)
    assert coverage == pytest.approx(expected, abs=0.01)


def test_repeated_samples_keep_the_density_and_lose_coverage():
    real, fresh = normal(300, 4, 1), normal(300, 4, 2)
    density, coverage = density_coverage(real, fresh)
    repeated_density, repeated_coverage = density_coverage(real, fresh[:10].repeat(30, 1))
    assert repeated_coverage < coverage / 3
    assert repeated_density > density / 3


def test_a_dropped_mode_loses_its_share_of_the_coverage():
    side = torch.where(torch.arange(400) % 2 == 0, 10.0, -10.0)[:, None]
    real, generated = normal(400, 3, 3) + side, normal(400, 3, 4) + 10
    density, coverage = density_coverage(real, generated)
    assert 0.4 < coverage <= 0.5
    assert density > 0.8


def test_samples_far_away_have_neither():
    assert density_coverage(normal(50, 3, 5), normal(50, 3, 6) + 100) == (0, 0)


def test_bad_arguments_are_refused_in_one_line():
    x = normal(5, 2, 7)
    with pytest.raises(ValueError, match=r"5 neighbours need more than 5 real samples, got 5"):
        density_coverage(x, x)
    with pytest.raises(ValueError, match=r"k must be at least 1, got 0"):
        density_coverage(x, x, 0)
    with pytest.raises(ValueError, match=r"generated features must be finite"):
        density_coverage(x, x / 0, 2)
