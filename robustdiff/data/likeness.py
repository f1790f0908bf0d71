"""How alike images are, wherever their content lies, and whether two are nearer than by chance.

Images are compared by the amplitudes of their low frequencies, which stay when an image is moved,
and hardly change when it is compressed again or gets brighter. How near is too near follows from
the data: the distance to the nearest image over that to the twentieth has a distribution that
depends on one number, the dimension of the data near them.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from robustdiff.progress import Progress, silent

NEIGHBOURS = 20
"""Nearest images that are looked at."""

_FREQUENCIES = 6
# Values that images described at a time have; images compared at a time, with how many others.
_VALUES, _ROWS, _OTHERS = 1 << 22, 512, 20_000


def pieces(images: Tensor) -> tuple[Tensor, ...]:
    """Split images, (N, C, H, W), into pieces of a bounded number of values."""
    return torch.split(images, max(1, _VALUES // max(1, images[:1].numel())))


def amplitudes(images: Tensor, *, middle: float = 1) -> Tensor:
    """Describe images by the amplitudes of their low frequencies.

    An image less its mean fades out towards its borders. The square roots of the amplitudes of its
    Fourier transform are scaled to length 1. Contrast, brightness and place drop out; so do its
    negative and a turn by 180 degrees.

    Args:
        images: (N, C, H, W) uint8.
        middle: Share of the side that is described, enlarged to the whole.

    Returns:
        (N, D) float32 on their device; 0 for an image of one colour.
    """
    parts = (_middle(part.float(), middle) for part in pieces(images))
    return torch.cat([_amplitudes(part) for part in parts])


def _middle(x: Tensor, share: float) -> Tensor:
    height, width = x.shape[2:]
    rows, columns = round(share * height), round(share * width)
    top, left = (height - rows) // 2, (width - columns) // 2
    if (rows, columns) == (height, width):
        return x
    part = x[:, :, top : top + rows, left : left + columns]
    return F.interpolate(part, size=(height, width), mode="bilinear")


def _amplitudes(x: Tensor) -> Tensor:
    height, width = x.shape[2:]
    fade = torch.outer(*(torch.hann_window(n + 2)[1:-1] for n in (height, width))).sqrt()
    x = (x - x.mean((1, 2, 3), keepdim=True)) * fade.to(x.device)
    found = torch.fft.rfft2(x).abs()
    rows = min(_FREQUENCIES, height // 2)
    columns = min(_FREQUENCIES + 1, found.shape[3])
    low = torch.cat([found[:, :, :rows, :columns], found[:, :, -rows:, :columns]], dim=2)
    return F.normalize(low.flatten(1).sqrt(), dim=1)


def nearest(
    described: Tensor, others: Tensor, *, itself: bool = False, progress: Progress = silent
) -> tuple[Tensor, Tensor]:
    """Find the nearest other images, see `amplitudes`.

    Args:
        described: (N, D) of the images.
        others: (M, D) of those to compare with.
        itself: Whether these are the same images; none is then its own neighbour.
        progress: Called with (images done, images in all).

    Returns:
        (N, k) distances in order, and (N, k) int64, which images these are; both on the CPU. k is
        20, or as many others as there are. Memory does not grow with N times M.
    """
    distances, who = [], []
    for rows in torch.split(torch.arange(len(described), device=described.device), _ROWS):
        found = _nearest(described[rows], others, rows if itself else None)
        distances.append(found[0].cpu())
        who.append(found[1].cpu())
        progress(int(rows[-1]) + 1, len(described))
    return torch.cat(distances), torch.cat(who)


def _nearest(mine: Tensor, others: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return distances and numbers of the nearest others of (R, D) images, numbered `own`."""
    kept = min(NEIGHBOURS, len(others) - (own is not None))
    cosines = mine.new_empty(len(mine), 0)
    who = torch.empty(len(mine), 0, dtype=torch.int64, device=mine.device)
    for start in range(0, len(others), _OTHERS):
        part = others[start : start + _OTHERS]
        found = mine @ part.T
        if own is not None:
            inside = (own >= start) & (own < start + len(part))
            found[inside, own[inside] - start] = -torch.inf
        best, where = found.topk(min(kept, len(part)), dim=1)
        cosines, who = torch.cat([cosines, best], 1), torch.cat([who, where + start], 1)
        cosines, chosen = cosines.topk(min(kept, cosines.shape[1]), dim=1)
        who = who.gather(1, chosen)
    # Distances of near copies drown in the rounding of their cosines.
    distances, order = (mine[:, None] - others[who]).norm(dim=2).sort(dim=1)
    return distances, who.gather(1, order)


def chance(distances: Tensor) -> NDArray[np.float64]:
    """Return how likely nearest neighbours are so near by chance.

    Of images that lie at random in D dimensions, the nearest of k neighbours is nearer than a
    share r of the distance to the last with probability 1 - (1 - r^D)^(k - 1). The logarithms of
    such shares are exponential variables of mean 1 / D (Levina and Bickel 2004), by which D is
    estimated from the other neighbours.

    Args:
        distances: (N, k) to the nearest images, in order, k >= 4.

    Returns:
        (N,) in [0, 1], evenly distributed where nothing is a copy.
    """
    shares = distances.double().numpy()
    shares = np.maximum(shares / np.maximum(shares[:, -1:], 1e-12), 1e-12)
    others = shares.shape[1] - 1
    # The sum of `others` exponential variables of mean 1 but the largest; its median, nearly.
    expected = others - (1 / np.arange(1, others + 1)).sum() - 1 / 3
    logs = -np.log(shares[:, 1:-1]).sum(axis=1)
    dimension = expected / max(float(np.median(logs)), 1e-9)
    nearer = np.minimum(shares[:, 0] ** dimension, 1 - 1e-12)
    return np.asarray(-np.expm1(others * np.log1p(-nearer)))
