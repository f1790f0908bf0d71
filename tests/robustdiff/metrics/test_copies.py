"""Generators that copy are caught, and held-out images and typical ones are not."""

import json

import numpy as np
import pytest
import torch

from robustdiff.metrics.catalogue import FURTHER, copies_in_words, figure_in_words
from robustdiff.metrics.copies import LEVEL, _shares, find_copies


def look(digits, generated, pairs=4):
    return find_copies(digits.train, digits.test, generated, pairs=pairs)


def blurred(images, noise):
    generator = torch.Generator().manual_seed(0)
    changed = images.float() + noise * torch.randn(images.shape, generator=generator)
    return changed.round().clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("noise", [0, 2, 6])
def test_training_images_and_those_with_little_noise_are_copies(digits, noise):
    found = look(digits, blurred(digits.train[:200], noise))
    assert found.figures["copies"] > 0.95
    assert found.figures["copies_real"] < 0.02
    assert found.figures["copies_chance"] < 1e-9
    assert found.figures["nearest"] < 0.3 * found.figures["nearest_real"]
    assert "of the generated images are nearer" in copies_in_words(found.figures)


def test_a_tenth_of_copies_is_caught(digits):
    found = look(digits, torch.cat([digits.test[:360], digits.train[:40]]))
    assert 0.09 < found.figures["copies"] < 0.12
    low, high = found.figures["copies_interval"]
    assert low < 0.1 < high
    assert copies_in_words(found.figures) is not None
    # The pairs show the copies, each over the image that it was copied from.
    assert torch.equal(found.pairs[:, 0], found.pairs[:, 1])


@pytest.mark.parametrize("part", [slice(0, 225), slice(225, 450)])
def test_held_out_images_are_no_copies(digits, part):
    rest = torch.cat([digits.test[: part.start], digits.test[part.stop :]])
    found = find_copies(digits.train, rest, digits.test[part], pairs=4)
    assert found.figures["copies"] < 3 * LEVEL
    assert copies_in_words(found.figures) is None
    assert not (found.pairs[:, 0] == found.pairs[:, 1]).flatten(1).all(1).any()


def test_typical_images_are_near_to_many_and_copies_of_none(digits):
    """The mean of an image's ten nearest is nearer to them than any image of its own is."""
    flat = digits.train.flatten(1).float()
    near = torch.cdist(flat[:200], flat).topk(11, largest=False).indices[:, 1:]
    means = flat[near].mean(1).round().to(torch.uint8).view(200, 1, 8, 8)
    found = look(digits, means)
    assert found.figures["nearest"] < found.figures["nearest_real"]
    assert copies_in_words(found.figures) is None


def test_the_share_of_copies_is_compared_exactly():
    """Two kinds of 8 images, 4 copies and none: 70 of 1820 ways to choose 4 of 16."""
    likely, real = np.array([LEVEL / 2] * 4 + [0.5] * 4), np.full(8, 0.5)
    found = _shares(likely, real)
    assert found["copies"] == 0.5
    assert found["copies_chance"] == pytest.approx(70 / 1820)
    assert _shares(real, likely)["copies_chance"] == 1
    low, high = found["copies_interval"]
    assert (low, high) == (pytest.approx(0.2152, abs=1e-4), pytest.approx(0.7848, abs=1e-4))


def test_few_images_have_no_share_and_a_distance(digits):
    found = look(digits, digits.test[:3], pairs=16)
    assert found.figures["copies"] is None
    assert found.figures["nearest"] > 0
    assert found.pairs.shape == (3, 2, 1, 8, 8)
    assert copies_in_words(found.figures) is None
    assert json.loads(json.dumps(found.figures, allow_nan=False)) == found.figures


def test_the_figures_have_their_partners_and_an_earlier_evaluation_has_none(digits):
    found = look(digits, digits.test[:50]).figures
    ours = [metric for metric in FURTHER if metric.key in ("copies", "nearest")]
    words = [figure_in_words(found, metric) for metric in ours]
    assert words[0].startswith(f"{found['copies']:.3f} (0.000 to ")
    assert words[1] == f"{found['nearest']:.3f}, real images {found['nearest_real']:.3f}"
    assert [figure_in_words({}, metric) for metric in ours] == [None, None]
    assert copies_in_words({}) is None


def test_images_of_another_type_are_refused(digits):
    with pytest.raises(ValueError, match="generated images must be uint8"):
        look(digits, digits.test[:5].float())
