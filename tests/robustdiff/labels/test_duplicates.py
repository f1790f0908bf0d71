"""Exact and near copies among images that are none."""

import numpy as np
import pytest
import torch

from robustdiff.labels import duplicates
from robustdiff.labels.duplicates import SURE, amplitudes, digests, first_of_kind, near_copies


def smooth(count, seed=0, size=32):
    """Random images of low frequencies, with detail."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, 3, 10, 10))).float()
    return torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic").clamp(0, 255)


@pytest.fixture
def images():
    return smooth(300).to(torch.uint8)


CHANGES = {
    "moved": lambda x: x.roll((2, -3), (1, 2)),
    "brighter": lambda x: (x * 0.8 + 30).clamp(0, 255),
    "grainy": lambda x: (x + 5 * torch.randn(x.shape, generator=torch.manual_seed(0))).clamp(
        0, 255
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_image_is_found_beside_the_one_it_came_from(images, change):
    copies = torch.stack([CHANGES[change](image.float()).to(torch.uint8) for image in images[:20]])
    found = near_copies(torch.cat([images, copies]))
    numbers = np.arange(20)
    assert (found.score[:20] >= SURE).all()
    assert (found.score[300:] >= SURE).all()
    assert (found.nearest[:20] == 300 + numbers).all()
    assert (found.nearest[300:] == numbers).all()
    assert not (found.score[20:300] >= SURE).any()


@pytest.mark.parametrize("dimension", [2, 10, 40])
def test_points_at_random_are_no_copies(dimension):
    """By the closed form one data set in a hundred has one; here are thirty."""
    rng = np.random.default_rng(dimension)
    flagged = 0
    for _ in range(30):
        points = torch.from_numpy(rng.normal(size=(200, dimension)))
        distances = torch.cdist(points, points).sort(dim=1).values[:, 1:21].numpy()
        flagged += (1 - 200 * duplicates._chance(distances) >= SURE).any()
    assert flagged <= 3


def test_the_chance_of_a_near_neighbour_is_that_of_random_points():
    """Of 20 points in the unit ball, the nearest is within r of the last with 1 - (1 - r^D)^19."""
    rng = np.random.default_rng(0)
    radii = np.sort(rng.uniform(size=(20_000, 20)) ** (1 / 5), axis=1)
    chance = duplicates._chance(radii)
    for level in (0.01, 0.1, 0.5):
        assert (chance < level).mean() == pytest.approx(level, rel=0.25)


def test_digits_have_no_copies_and_few_images_no_verdict(digits):
    assert near_copies(digits.train).score.max() < SURE
    assert (near_copies(digits.train[:21]).score == 0).all()


def test_more_images_than_can_be_compared_have_no_verdict(images, monkeypatch):
    monkeypatch.setattr(duplicates, "MOST", 299)
    assert (near_copies(images).score == 0).all()


def test_pieces_change_nothing(images, monkeypatch):
    whole = near_copies(torch.cat([images, images[:5] + 1]))
    for name, size in (("_ROWS", 7), ("_OTHERS", 31), ("_PIECE", 13)):
        monkeypatch.setattr(duplicates, name, size)
    parts = near_copies(torch.cat([images, images[:5] + 1]))
    np.testing.assert_allclose(parts.score, whole.score, atol=1e-4)
    assert (parts.nearest[300:] == whole.nearest[300:]).all()


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 5, 9), (3, 33, 16)])
def test_images_of_any_shape_are_described(shape):
    x = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (30, *shape), np.uint8))
    found = amplitudes(x)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(30))
    assert (amplitudes(torch.zeros_like(x)) == 0).all()
    assert np.isfinite(near_copies(x).score).all()


def test_equal_pixels_have_equal_digests_and_the_first_is_named():
    x = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(-1, 1, 3, 3)
    x = x[[0, 1, 0, 2, 1, 1]]
    assert first_of_kind(digests(x)).tolist() == [0, 1, 0, 3, 1, 1]
