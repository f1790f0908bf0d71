"""Images that a dataset holds twice: the same pixels, or nearly the same image.

Near copies are found by the amplitudes of an image's low frequencies, which stay when the image is
moved, and hardly change when it is compressed again or gets brighter. How near is too near follows
from the data: the distance to the nearest image over that to the twentieth has a distribution that
depends on one number, the dimension of the data near them.
"""

import hashlib
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.types import Doubles, Ints
from robustdiff.progress import Progress, silent

MOST = 100_000
"""Among more different images no near copies are looked for: the work grows with the square."""

SURE = 0.99
"""Scores of near copies from here on count."""

_FREQUENCIES = 6
_NEIGHBOURS = 20
# Images compared at a time, with how many others, and described at a time.
_ROWS, _OTHERS, _PIECE = 512, 20_000, 2000


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
    pixels = images.cpu().contiguous().numpy()
    return [hashlib.blake2b(image.data, digest_size=16).digest() for image in pixels]


def first_of_kind(contents: list[bytes]) -> Ints:
    """Return the first image with the same content, (N,) int64, itself where it is the first."""
    first: dict[bytes, int] = {}
    return np.array([first.setdefault(content, i) for i, content in enumerate(contents)], dtype=int)


def amplitudes(images: Tensor) -> Tensor:
    """Describe images by the amplitudes of their low frequencies.

    An image less its mean fades out towards its borders. The square roots of the amplitudes of its
    Fourier transform are scaled to length 1. Contrast, brightness and place drop out; so do its
    negative and a turn by 180 degrees.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, D) float32 on their device; 0 for an image of one colour.
    """
    return torch.cat([_amplitudes(part.float()) for part in torch.split(images, _PIECE)])


def _amplitudes(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    fade = torch.outer(*(torch.hann_window(n + 2)[1:-1] for n in (height, width))).sqrt()
    x = (x - x.mean((1, 2, 3), keepdim=True)) * fade.to(x.device)
    found = torch.fft.rfft2(x).abs()
    rows = min(_FREQUENCIES, height // 2)
    columns = min(_FREQUENCIES + 1, found.shape[3])
    low = torch.cat([found[:, :, :rows, :columns], found[:, :, -rows:, :columns]], dim=2)
    return F.normalize(low.flatten(1).sqrt(), dim=1)


def near_copies(images: Tensor, progress: Progress = silent) -> NearCopies:
    """Find images that are nearer to another one than chance explains.

    Of images that lie at random in D dimensions, the nearest of k neighbours is nearer than a
    share r of the distance to the last with probability 1 - (1 - r^D)^(k - 1). The logarithms of
    such shares are exponential variables of mean 1 / D (Levina and Bickel 2004), by which D is
    estimated from the other neighbours.

    Args:
        images: (N, C, H, W) uint8, no two the same.
        progress: Called with (images done, images in all).

    Returns:
        Scores and nearest images; scores of 0 where there are under 22 images, or more than
        `MOST`. Of more than 20 near copies of one image none is found.
    """
    count = len(images)
    if not _NEIGHBOURS + 2 <= count <= MOST:
        return NearCopies(np.zeros(count), np.zeros(count, dtype=np.int64))
    described = amplitudes(images)
    distances, near = [], []
    for rows in torch.split(torch.arange(count, device=described.device), _ROWS):
        some, who = _neighbours(described, rows)
        distances.append(some.cpu())
        near.append(who[:, 0].cpu())
        progress(int(rows[-1]) + 1, count)
    chance = _chance(torch.cat(distances).double().numpy())
    return NearCopies(np.clip(1 - count * chance, 0, 1), torch.cat(near).numpy())


def _neighbours(described: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distances of some images to their nearest others, in order, and which they are."""
    mine = described[rows]
    cosines, who = mine.new_empty(len(rows), 0), rows.new_empty(len(rows), 0)
    for start in range(0, len(described), _OTHERS):
        others = described[start : start + _OTHERS]
        found = mine @ others.T
        inside = (rows >= start) & (rows < start + len(others))
        found[inside, rows[inside] - start] = -torch.inf
        best, where = found.topk(min(_NEIGHBOURS, len(others)), dim=1)
        cosines, who = torch.cat([cosines, best], 1), torch.cat([who, where + start], 1)
        cosines, kept = cosines.topk(min(_NEIGHBOURS, cosines.shape[1]), dim=1)
        who = who.gather(1, kept)
    # Distances of near copies drown in the rounding of their cosines.
    distances = (mine[:, None] - described[who]).norm(dim=2)
    distances, order = distances.sort(dim=1)
    return distances, who.gather(1, order)


def _chance(distances: Doubles) -> Doubles:
    """Return how likely the nearest neighbours are so near by chance, (N,), by (N, k) distances."""
    farthest = np.maximum(distances[:, -1:], 1e-12)
    shares = np.maximum(distances / farthest, 1e-12)
    others = shares.shape[1] - 1
    # The sum of `others` exponential variables of mean 1 but the largest; its median, nearly.
    expected = others - (1 / np.arange(1, others + 1)).sum() - 1 / 3
    logs = -np.log(shares[:, 1:-1]).sum(axis=1)
    dimension = expected / max(float(np.median(logs)), 1e-9)
    nearer = np.minimum(shares[:, 0] ** dimension, 1 - 1e-12)
    return np.asarray(-np.expm1(others * np.log1p(-nearer)))
