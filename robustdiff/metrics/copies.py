"""Whether generated images are copies of training images."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import fisher_exact
from torch import Tensor

from robustdiff.data.checks import check_images
from robustdiff.data.likeness import amplitudes, chance, nearest
from robustdiff.metrics.resampling import share_interval
from robustdiff.progress import Progress, silent

LEVEL = 0.01
"""An image is a copy if chance explains so near a training image less often than this."""

_FEWEST = 4


class Copies(NamedTuple):
    """What `find_copies` finds.

    Attributes:
        figures: The share of "copies" among the generated images, its 95 % interval
            "copies_interval" (Wilson 1927) and that of held-out images, "copies_real"; how likely
            held-out images are to have as many copies, "copies_chance"; the median distance to the
            "nearest" training image, and that of held-out ones, "nearest_real". None where there
            are fewer than 4 images of a kind.
        pairs: (P, 2, C, H, W) uint8, generated images and the training image nearest to each, the
            surest copy first.
    """

    figures: dict[str, float | list[float] | None]
    pairs: Tensor


def find_copies(
    real: Tensor, heldout: Tensor, generated: Tensor, *, pairs: int, progress: Progress = silent
) -> Copies:
    """Compare generated images with the training image nearest to each.

    Images are compared by the amplitudes of their low frequencies, so that moved and brighter
    copies count. How near is too near depends on the other training images around, see `chance`: a
    generator of typical images is near to many of them, and copies none.

    Args:
        real: (N, C, H, W) uint8 images that the generator was trained on.
        heldout: (H, C, H, W) uint8 images that it was not trained on; as many as generated count.
        generated: (M, C, H, W) uint8.
        pairs: How many pairs are wanted.
        progress: Called with (images done, images in all).

    Raises:
        ValueError: If images have a wrong type or shape.
    """
    for images, what in ((real, "real"), (heldout, "held-out"), (generated, "generated")):
        check_images(images, f"{what} images")
    some = torch.linspace(0, len(heldout) - 1, min(len(heldout), len(generated))).round().long()
    described = amplitudes(real)
    distances, who = nearest(amplitudes(generated), described, progress=progress)
    real_distances, _ = nearest(amplitudes(heldout[some]), described)
    figures: dict[str, float | list[float] | None] = {
        "nearest": float(distances[:, 0].median()),
        "nearest_real": float(real_distances[:, 0].median()),
    }
    order = distances[:, 0].argsort()
    if len(real) < _FEWEST or min(len(generated), len(some)) < _FEWEST:
        names = ("copies", "copies_interval", "copies_real", "copies_chance")
        figures |= dict.fromkeys(names)
    else:
        likely = chance(distances)
        figures |= _shares(likely, chance(real_distances))
        order = torch.from_numpy(likely).argsort(stable=True)
    shown = order[:pairs]
    return Copies(figures, torch.stack([generated[shown], real[who[shown, 0]]], dim=1))


def _shares(
    likely: NDArray[np.float64], real: NDArray[np.float64]
) -> dict[str, float | list[float] | None]:
    """Compare how many images of two kinds are copies."""
    found, floor = (int((part < LEVEL).sum()) for part in (likely, real))
    table = np.array([[found, len(likely) - found], [floor, len(real) - floor]])
    return {
        "copies": found / len(likely),
        "copies_interval": [*share_interval(found / len(likely), len(likely))],
        "copies_real": floor / len(real),
        "copies_chance": float(fisher_exact(table, alternative="greater").pvalue),
    }
