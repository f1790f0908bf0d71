"""Distances between images, and what is nearer than by chance."""

import numpy as np
import pytest
import torch

from robustdiff.data.likeness import NEIGHBOURS, amplitudes, chance, nearest


@pytest.mark.parametrize("dimension", [2, 10, 40])
def test_points_at_random_are_no_copies(dimension):
    """By the closed form one data set in a hundred has one; here are thirty."""
    rng = np.random.default_rng(dimension)
    flagged = 0
    for _ in range(30):
        points = torch.from_numpy(rng.normal(size=(200, dimension)))
        distances = torch.cdist(points, points).sort(dim=1).values[:, 1:21]
        flagged += (1 - 200 * chance(distances) >= 0.99).any()
    assert flagged <= 3


def test_the_chance_of_a_near_neighbour_is_that_of_random_points():
    """Of 20 points in the unit ball, the nearest is within r of the last with 1 - (1 - r^D)^19."""
    rng = np.random.default_rng(0)
    radii = np.sort(rng.uniform(size=(20_000, 20)) ** (1 / 5), axis=1)
    found = chance(torch.from_numpy(radii))
    for level in (0.01, 0.1, 0.5):
        assert (found < level).mean() == pytest.approx(level, rel=0.25)


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 5, 9), (3, 33, 16)])
def test_images_of_any_shape_are_described(shape):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, *shape), np.uint8))
    found = amplitudes(x)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(30))
    assert (amplitudes(torch.zeros_like(x)) == 0).all()
    assert np.isfinite(chance(nearest(amplitudes(x), amplitudes(x), itself=True)[0])).all()


def test_a_moved_image_keeps_its_amplitudes_and_another_does_not():
    inner = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), np.uint8))
    x = torch.nn.functional.pad(inner, (12, 12, 12, 12))
    one, other = amplitudes(x)
    moved = amplitudes(x.roll((2, -1), (2, 3)))[0]
    assert (one - moved).norm() < 0.2 * (one - other).norm()


def test_nearest_images_are_those_of_all_distances():
    x, y = torch.randn(50, 7), torch.randn(90, 7)
    x, y = torch.nn.functional.normalize(x, dim=1), torch.nn.functional.normalize(y, dim=1)
    distances, who = nearest(x, y)
    expected, order = torch.cdist(x, y).sort(dim=1)
    torch.testing.assert_close(distances, expected[:, :NEIGHBOURS], atol=1e-5, rtol=1e-4)
    assert (who[:, 0] == order[:, 0]).all()
    assert (nearest(x, x)[1][:, 0] == torch.arange(50)).all()
    assert (nearest(x, x, itself=True)[1] != torch.arange(50)[:, None]).all()
    assert nearest(x[:5], x[:5], itself=True)[0].shape == (5, 4)
