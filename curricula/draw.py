"""From scores to draws: pure functions of (seed, epoch or round, scores)."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Streams under one seed; the numbers are part of the reproducibility promise.
_ORDER, _RANDOM_SCORES = 101, 102


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
    centred = scores - np.median(scores)
    spread = 1.4826 * np.median(np.abs(centred)) or centred.std()
    return np.asarray(centred / spread if spread > 0 else centred, dtype=np.float64)


def gumbel_top_k(log_weights: Floats, count: int, rng: np.random.Generator) -> Ints:
    """Draw without replacement with probabilities proportional to exp(log_weights).

    The largest keys `log_weights + Gumbel` follow the law of sequential weighted draws (Kool et
    al. 2019), in one pass and without the underflow of normalised weights.

    Args:
        log_weights: (N,) finite.
        count: Number of indices, in [0, N].
        rng: Source of the Gumbel noise.

    Returns:
        (count,) int64 distinct indices, in the order of the draw.
    """
    keys = log_weights + rng.gumbel(size=len(log_weights))
    return np.argsort(-keys, kind="stable")[:count].astype(np.int64)


def selected_share(round_number: int, k: float, dk: float, mk: float) -> float:
    """Return the share of the dataset drawn after a scoring round (Zhou et al. 2021).

    Args:
        round_number: Updates so far, at least 1.
        k: Share after the first one.
        dk: Relative decrease per round.
        mk: Smallest share.

    Returns:
        Share in [mk, k].
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
) -> Ints:
    """Return the order of one epoch.

    Args:
        seed: Seed of the run.
        epoch: Number of the epoch.
        num_samples: N.
        scores: (N,) float64, or None to visit every sample once.
        share: Share of the samples to draw, in (0, 1].
        temperature: Weights are exp(temperature * standardised score).

    Returns:
        (M,) int64 distinct indices, M = N or max(1, round(share * N)).
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, _ORDER, epoch]))
    if scores is None:
        return rng.permutation(num_samples)
    count = max(1, round(share * num_samples))
    drawn = gumbel_top_k(temperature * standardise(scores), count, rng)
    # The draw comes best first; training wants no such order.
    return rng.permutation(drawn)


def random_scores(seed: int, round_number: int, num_samples: int) -> Floats:
    """Return (N,) standard normal scores: the control that no score should lose to."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, _RANDOM_SCORES, round_number]))
    return rng.standard_normal(num_samples)
