"""Images that a dataset holds twice: the same pixels, or nearly the same image."""

import hashlib
from typing import NamedTuple

import numpy as np
from torch import Tensor

from curricula.types import Doubles, Ints
from robustdiff.data.likeness import NEIGHBOURS, amplitudes, chance, nearest, pieces
from robustdiff.progress import Progress, silent

SURE = 0.99
"""Scores of near copies from here on count."""

# Copies may show the middle of an image, or all but its borders anywhere in it, so enlarged.
_MIDDLE = 0.9


class NearCopies(NamedTuple):
    """What `near_copies` finds.

    Attributes:
        score: (N,) float64 in [0, 1]: 1 less the number of images that are expected to have so
            near a neighbour by chance.
        nearest: (N,) int64, the nearest other image.
    """

    score: Doubles
    nearest: Ints


def digests(images: Tensor) -> list[bytes]:
    """Return a digest of the pixels of each image, (N, C, H, W) uint8."""
    return [
        hashlib.blake2b(image.data, digest_size=16).digest()
        for part in pieces(images)
        for image in part.cpu().contiguous().numpy()
    ]


def first_of_kind(contents: list[bytes]) -> Ints:
    """Return the first image with the same content, (N,) int64, itself where it is the first."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(content, i) for i, content in enumerate(contents)], dtype=int)


def near_copies(images: Tensor, progress: Progress = silent) -> NearCopies:
    """Find images that are nearer to another one than chance explains.

    The whole of each image and its middle are compared with the whole of the others.

    Args:
        images: (N, C, H, W) uint8, no two the same.
        progress: Called with (comparisons done, comparisons in all).

    Returns:
        Scores and nearest images; scores of 0 where there are under 22 images. Of more than 20
        near copies of one image none is found. Time grows with the square of N, memory with N.
    """
    count = len(images)
    if count < NEIGHBOURS + 2:
        return NearCopies(np.zeros(count), np.zeros(count, dtype=np.int64))
    described = amplitudes(images)
    likely, near = [], []
    for number, asked in enumerate((described, amplitudes(images, middle=_MIDDLE))):

        def compared(done: int, _: int, before: int = number * count) -> None:
            progress(before + done, 2 * count)

        distances, who = nearest(asked, described, itself=True, progress=compared)
        likely.append(chance(distances))
        near.append(who[:, 0].numpy())
    better = np.where(likely[0] <= likely[1], 0, 1)
    rows = np.arange(count)
    # Each image was asked about twice.
    expected = 2 * count * np.stack(likely)[better, rows]
    return NearCopies(np.clip(1 - expected, 0, 1), np.stack(near)[better, rows])
