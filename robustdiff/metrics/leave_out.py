"""Frechet distances, density and coverage of the images that are left without each block."""

from collections.abc import Iterator

import torch
from torch import Tensor

from robustdiff.metrics.resampling import BLOCKS

# Real images whose distances to all others are held at once.
_CHUNK = 500
# Neighbours that are known of each: blocks are dealt at random, so that the nearest ones cannot
# all be of one block.
_KNOWN = 60


def frechet_without(
    real: Tensor,
    real_blocks: Tensor,
    generated: Tensor,
    generated_labels: Tensor,
    generated_blocks: Tensor,
) -> Tensor:
    """Compute the Frechet distance of all samples, and without each block.

    A block leaves both sets at once, so that both grow and shrink by the same share. What is left
    of each generated class counts for the whole class: the numbers of images of the classes are
    chosen, not drawn, and would otherwise differ by one between blocks. Of real images there are
    so many that this does not matter.

    Args:
        real: (N, D) floating point; at least 2 samples are left without any block.
        real_blocks: (N,) int64 in [0, BLOCKS).
        generated: (M, D), at least 2 left.
        generated_labels: (M,) int64.
        generated_blocks: (M,) int64.

    Returns:
        (1 + BLOCKS,) float64: of all samples, then without each block; at least 0.
    """
    origin = real.double().mean(dim=0)
    made = generated.double() - origin
    distances = []
    parts = _moments_without(real.double() - origin, real_blocks)
    for block, (mean, covariance) in enumerate(parts, start=-1):
        kept = generated_blocks != block
        weights = _weights(generated_labels, kept)[:, None]
        middle = (weights * made[kept]).mean(dim=0)
        left = (made[kept] - middle) * (weights / (len(weights) - 1)).sqrt()
        spread = covariance.trace() + left.square().sum() - 2 * _root_trace(covariance, left)
        distances.append((mean - middle).square().sum() + spread)
    return torch.stack(distances).clamp(min=0)


def _weights(labels: Tensor, kept: Tensor) -> Tensor:
    """Return weights of mean 1 that give the classes of the kept samples their shares of all."""
    counts = torch.bincount(labels)
    left = torch.bincount(labels[kept], minlength=len(counts)).clamp(min=1)
    weights = (counts.double() / left)[labels[kept]]
    return weights / weights.mean()


def _moments_without(centred: Tensor, blocks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mean (D,) and covariance (D, D) of all rows, and of those without each block."""
    total, products = centred.sum(dim=0), centred.T @ centred
    for block in range(-1, BLOCKS):
        out = centred[blocks == block]
        count = len(centred) - len(out)
        mean = (total - out.sum(dim=0)) / count
        left = products - out.T @ out - count * mean.outer(mean)
        yield mean, left / (count - 1)


def _root_trace(covariance: Tensor, rows: Tensor) -> Tensor:
    """Return tr (S R'R)^(1/2) of a covariance S, (D, D), and rows R, (M, D)."""
    if len(rows) > rows.shape[1]:
        rows = torch.linalg.qr(rows, mode="r").R
    roots: Tensor = torch.linalg.eigvalsh(rows @ covariance @ rows.T).clamp(min=0).sqrt()
    return roots.sum()


def classwise_without(
    real: Tensor,
    real_labels: Tensor,
    real_blocks: Tensor,
    generated: Tensor,
    generated_labels: Tensor,
    generated_blocks: Tensor,
) -> Tensor:
    """Compute the mean over the classes of `frechet_without`; each needs 3 samples in both sets."""
    distances = [
        frechet_without(
            real[mine],
            real_blocks[mine],
            generated[asked],
            generated_labels[asked],
            generated_blocks[asked],
        )
        for label in range(int(generated_labels.max()) + 1)
        for mine, asked in ((real_labels == label, generated_labels == label),)
    ]
    return torch.stack(distances).mean(dim=0)


def density_coverage_without(
    real: Tensor, real_blocks: Tensor, generated: Tensor, generated_blocks: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Compute density and coverage of all samples, and without each block of both sets.

    Args:
        real: (N, D) floating point, more than k left without any block.
        real_blocks: (N,) int64 in [0, BLOCKS).
        generated: (M, D).
        generated_blocks: (M,) int64.
        k: Neighbours, as in `density_coverage`.

    Returns:
        Two (1 + BLOCKS,) float64: of all samples, then without each block.
    """
    order = generated_blocks.argsort(stable=True)
    made, ends = generated.double()[order], torch.bincount(generated_blocks, minlength=BLOCKS)
    parts = [slice(0, 0)]
    for count in ends.tolist():
        parts.append(slice(parts[-1].stop, parts[-1].stop + count))
    real = real.double()
    inside, covered, centres = torch.zeros(3, 1 + BLOCKS, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(real)), _CHUNK):
        radii = _radii_without(real, rows, real_blocks, k)
        distances = torch.cdist(real[rows], made)
        for block, part in enumerate(parts):
            counted = real_blocks[rows] != block - 1
            near = distances < radii[block][:, None]
            counts = (near.sum(dim=1) - near[:, part].sum(dim=1))[counted]
            inside[block] += counts.sum()
            covered[block] += (counts > 0).sum()
            centres[block] += counted.sum()
    left = len(made) - torch.tensor([part.stop - part.start for part in parts])
    return inside / (k * left), covered / centres


def _radii_without(real: Tensor, rows: Tensor, blocks: Tensor, k: int) -> Tensor:
    """Return how far the k-th nearest other sample of each row is, (1 + BLOCKS, len(rows))."""
    distances = torch.cdist(real[rows], real)
    distances[torch.arange(len(rows)), rows] = torch.inf
    near, places = distances.topk(min(_KNOWN, len(real) - 1), largest=False)
    theirs = blocks[places]
    radii = []
    for block in range(-1, BLOCKS):
        rank = (theirs != block).cumsum(dim=1)
        # The first of rank k; the last that is known if there is none.
        place = (rank < k).sum(dim=1).clamp(max=near.shape[1] - 1)
        radii.append(near.gather(1, place[:, None])[:, 0])
    return torch.stack(radii)
