"""Intervals of figures by resampling within a run, and figures without the bias of few images.

Images are dealt into blocks, and a figure is taken again without each block in turn: the jackknife.
A bootstrap would be wrong here: it draws images several times, which a Frechet distance and the
neighbours of an image take for lost variety.
"""

import torch
from scipy.stats import binomtest
from scipy.stats import t as student
from torch import Tensor

BLOCKS = 20
Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""

_LEVEL = 0.975


def deal(labels: Tensor, seed: int) -> Tensor:
    """Deal images into `BLOCKS` blocks, each class evenly.

    Args:
        labels: (N,) int64 in [0, K).
        seed: Seed of the deal; the global generator stays untouched.

    Returns:
        (N,) int64, the block of each image; the sizes of blocks differ by 1 at most, as does what
        they hold of one class.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = order[labels.cpu()[order].argsort(stable=True)]
    blocks = torch.empty(len(labels), dtype=torch.int64)
    blocks[order] = torch.arange(len(labels)) % BLOCKS
    return blocks


def means_without(values: Tensor, blocks: Tensor) -> Tensor:
    """Return the means of (N,) values without each block, (BLOCKS,) float64."""
    values = values.double()
    sums = torch.zeros(BLOCKS, dtype=torch.float64).index_add(0, blocks, values)
    counts = torch.bincount(blocks, minlength=BLOCKS)
    return (values.sum() - sums) / (len(values) - counts)


def jackknife_interval(
    figure: float, without: Tensor, least: float = float("-inf"), most: float = float("inf")
) -> Interval:
    """Return the 95 % interval of a figure by the jackknife over blocks (Quenouille, Tukey).

    The variance is (B - 1) / B times the sum of squared deviations, with Student's t. It tends to
    be too large, never too small, where the figure depends on pairs of images (Efron & Stein 1981).
    It tells how the figure varies with the images alone, at this number of images: not with the
    training of the model, and not how far the figure of few images is from that of many.

    Args:
        figure: Of all images.
        without: (B,) the figures without each block.
        least: Least value of the figure; the interval ends there.
        most: Largest value.
    """
    count = len(without)
    spread = (count - 1) / count * float((without - without.mean()).square().sum())
    half = float(student.ppf(_LEVEL, count - 1)) * spread**0.5
    return max(figure - half, least), min(figure + half, most)


def without_bias(figure: float, without: Tensor) -> float:
    """Return a figure extrapolated to infinitely many images.

    Its bias falls as 1/N, so N and N (B - 1) / B images tell what is left at 1/N = 0: the jackknife
    of Quenouille. Chong & Forsyth (2020) fit a line to more numbers of images, most of them far
    smaller; the farther those are, the more counts what does not fall as 1/N.

    Args:
        figure: Of all images.
        without: (B,) the figures without each block.
    """
    return len(without) * figure - (len(without) - 1) * float(without.mean())


def share_interval(share: float, count: int) -> Interval:
    """Return the 95 % interval of a share of independent trials (Wilson 1927).

    Args:
        share: In [0, 1].
        count: Number of trials, at least 1.
    """
    ends = binomtest(round(share * count), count).proportion_ci(method="wilson")
    return float(ends.low), float(ends.high)


def accuracy_interval(hits: Tensor) -> Interval:
    """Return the 95 % interval of the mean accuracy of classifiers on the same images.

    Its variance is that of the mean over images plus that over classifiers, which a few classifiers
    tell badly: so it is Student's t, with the degrees of freedom of a sum of two such variances
    (Satterthwaite 1946, Welch 1947). What classifiers and images share is in both parts, so that
    the interval errs to the safe side.

    Args:
        hits: (S, N) bool, whether each of S >= 1 classifiers is right on each of N >= 2 images. One
            classifier tells nothing of how another would differ; the interval holds images alone.
    """
    right = hits.double()
    parts = [(float(right.mean(dim=0).var()) / right.shape[1], right.shape[1] - 1)]
    if len(right) > 1:
        parts.append((float(right.mean(dim=1).var()) / len(right), len(right) - 1))
    mean, variance = float(right.mean()), sum(part for part, _ in parts)
    if variance == 0:
        return mean, mean
    degrees = variance**2 / sum(part**2 / count for part, count in parts)
    half = float(student.ppf(_LEVEL, degrees)) * variance**0.5
    return max(mean - half, 0.0), min(mean + half, 1.0)
