"""From scores to draws: pure functions of (seed, epoch or round, scores).

Written for many samples: few arrays of N at a time, noise drawn in pieces, 4-byte indices.
"""

import numpy as np

from curricula.permutation import Permutation
from curricula.trust import LEAST_KEPT
from curricula.types import Floats, Indices, Ints

# Streams under one seed; the numbers are part of the reproducibility promise.
_ORDER, _RANDOM_SCORES, _QUOTA, _BY_INDEX = 101, 102, 103, 104
# Where nothing is drawn by score, the order of up to so many samples is an array, 16 MiB.
MOST_SORTED = 1 << 22
Order = Indices | Permutation
# Random numbers drawn at a time; the stream is the same for any size.
_PIECE = 1 << 20


def standardise(scores: Floats) -> Floats:
    """Centre by the median and scale by the median absolute deviation.

    Makes the temperature mean the same for every score and image size, whatever the outliers.
    Falls back to the standard deviation where more than half of the scores are equal; constant
    scores give zeros.

    Args:
        scores: (N,) finite.

    Returns:
        (N,) float64.
    """
    centred = scores.astype(np.float64)
    centred -= np.median(centred)
    spread = 1.4826 * np.median(np.abs(centred), overwrite_input=True) or centred.std()
    if spread > 0:
        centred /= spread
    return centred


def gumbel_top_k(log_weights: Floats, count: int, rng: np.random.Generator) -> Indices:
    """Draw without replacement with probabilities proportional to exp(log_weights).

    The largest keys `log_weights + Gumbel` follow the law of sequential weighted draws (Kool et
    al. 2019), in one pass and without the underflow of normalised weights.

    Args:
        log_weights: (N,) finite.
        count: Number of indices, in [0, N].
        rng: Source of the Gumbel noise.

    Returns:
        (count,) distinct indices in the order of the draw, of the type of `indices`.
    """
    # Negated, so that the first ones are wanted.
    keys = np.negative(log_weights, dtype=np.float64)
    for start in range(0, len(keys), _PIECE):
        piece = keys[start : start + _PIECE]
        piece -= rng.gumbel(size=len(piece))
    best = indices(len(keys))
    if 0 < count < len(keys):
        last = np.partition(keys, count - 1)[count - 1]
        best = np.flatnonzero(keys <= last).astype(best.dtype)
        keys = keys[best]
    return best[np.argsort(keys, kind="stable")[:count]]


def indices(count: int) -> Indices:
    """Return 0 to count - 1 in the smallest type of 4 or 8 bytes that holds them."""
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def selected_share(round_number: int, k: float, dk: float, mk: float) -> float:
    """Return the share of the dataset drawn after a scoring round (Zhou et al. 2021).

    Args:
        round_number: Updates so far, at least 1.
        k: Share after the first one.
        dk: Relative decrease per round.
        mk: Smallest share.

    Returns:
        Share in [mk, k].

    Examples:
        >>> [selected_share(round_number, k=1.0, dk=0.5, mk=0.3) for round_number in (1, 2, 3)]
        [1.0, 0.5, 0.3]
    """
    return max(mk, k * (1 - dk) ** (round_number - 1))


def draw_order(
    seed: int,
    epoch: int,
    num_samples: int,
    *,
    scores: Floats | None,
    share: float,
    temperature: float,
    given: Ints | None = None,
) -> Order:
    """Return the order of one epoch.

    A pure function of its arguments: every process draws the same.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch.
        num_samples: N.
        scores: (N,), or None to visit every sample once.
        share: Share of the samples to draw, in (0, 1].
        temperature: Weights are exp(temperature * standardised score).
        given: (N,) labels in [0, K); the draw then holds a tenth of every class's share at least.

    Returns:
        (M,) distinct indices, M = N or max(1, round(share * N)); int32 below 2**31 samples. Those
        of all of more than `MOST_SORTED` samples are computed when they are read.
    """
    if scores is None and num_samples > MOST_SORTED:
        return Permutation.of(num_samples, seed, _BY_INDEX, epoch)
    rng = np.random.default_rng(np.random.SeedSequence([seed, _ORDER, epoch]))
    if scores is None:
        drawn = indices(num_samples)
    else:
        log_weights = standardise(scores)
        log_weights *= temperature
        drawn = gumbel_top_k(log_weights, max(1, round(share * num_samples)), rng)
        if given is not None:
            again = np.random.default_rng(np.random.SeedSequence([seed, _QUOTA, epoch]))
            drawn = _with_quotas(drawn, log_weights, given, again)
    # The draw comes best first; training needs a random order.
    rng.shuffle(drawn)
    return drawn


def _with_quotas(
    drawn: Indices, log_weights: Floats, given: Ints, rng: np.random.Generator
) -> Indices:
    """Return a draw of as many samples in which no class has less than its quota.

    The draw goes on among the samples of each class below its quota, and the last drawn samples of
    classes above theirs are removed. The draw is returned as it is if every class has its quota, or
    if it is too small for one sample of each.
    """
    classes = given[drawn]
    counts = np.bincount(given)
    quota = np.rint(LEAST_KEPT * len(drawn) / len(given) * counts).astype(np.int64)
    quota = np.where(counts > 0, np.maximum(quota, 1), 0)
    found = np.bincount(classes, minlength=len(counts))
    below = np.flatnonzero(found < quota)
    if len(below) == 0 or quota.sum() > len(drawn):
        return drawn
    left = np.ones(len(given), dtype=bool)
    left[drawn] = False
    added = []
    for label in below:
        members = np.flatnonzero(left & (given == label)).astype(drawn.dtype)
        added.append(members[gumbel_top_k(log_weights[members], quota[label] - found[label], rng)])
    more = np.concatenate(added)
    # Place of each drawn sample within its class, the first drawn at 0.
    by_class = np.argsort(classes, kind="stable")
    place = np.empty_like(by_class)
    place[by_class] = np.arange(len(drawn)) - (np.cumsum(found) - found)[classes[by_class]]
    spare = np.flatnonzero(place >= quota[classes])
    return np.concatenate([np.delete(drawn, spare[len(spare) - len(more) :]), more])


def random_scores(seed: int, round_number: int, num_samples: int) -> Floats:
    """Return (N,) standard normal scores, the control for every other score."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _RANDOM_SCORES, round_number]))
    return rng.standard_normal(num_samples)
