"""Exact and near copies among images that are none."""

import numpy as np
import pytest
import torch

from robustdiff.data import likeness
from robustdiff.labels.duplicates import SURE, digests, first_of_kind, near_copies


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


def test_a_part_of_an_image_enlarged_is_found_by_the_image(images):
    parts = torch.nn.functional.interpolate(
        images[:20, :, 1:30, 2:31].float(), size=(32, 32), mode="bilinear"
    )
    found = near_copies(torch.cat([images, parts.to(torch.uint8)]))
    assert (found.score[:20] >= SURE).mean() > 0.9
    assert (found.nearest[:20] == 300 + np.arange(20)).mean() > 0.9
    assert not (found.score[20:300] >= SURE).any()


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


def test_digits_have_no_copies_and_few_images_no_verdict(digits):
    assert near_copies(digits.train).score.max() < SURE
    assert (near_copies(digits.train[:21]).score == 0).all()


def test_pieces_change_nothing(images, monkeypatch):
    whole = near_copies(torch.cat([images, images[:5] + 1]))
    for name, size in (("_ROWS", 7), ("_OTHERS", 31), ("_VALUES", 13 * 3072)):
        monkeypatch.setattr(likeness, name, size)
    parts = near_copies(torch.cat([images, images[:5] + 1]))
    np.testing.assert_allclose(parts.score, whole.score, atol=1e-4)
    assert (parts.nearest[300:] == whole.nearest[300:]).all()


def test_equal_pixels_have_equal_digests_and_the_first_is_named():
    x = torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1).expand(-1, 1, 3, 3)
    x = x[[0, 1, 0, 2, 1, 1]]
    assert first_of_kind(digests(x)).tolist() == [0, 1, 0, 3, 1, 1]
