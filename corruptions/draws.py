"""The one function that draws given labels from flip probabilities."""

from collections.abc import Callable

import numpy as np

from corruptions.types import Doubles, Ints


def draw_labels(
    clean: Ints, probabilities: Doubles, rows: Ints, mode: str, rng: np.random.Generator
) -> Ints:
    """Draw given labels.

    Args:
        clean: (N,) int64 in [0, K).
        probabilities: (R, K) rows of label probabilities: a transition matrix, or one row a sample.
        rows: (N,) int64, the row that each sample draws from: `clean` for a transition matrix. All
            samples of a row have the same clean label.
        mode: Key of `MODES`.
        rng: Source of randomness.

    Returns:
        (N,) int64; `clean` is not changed.
    """
    away = probabilities.copy()
    away[rows, clean] = 0
    cumulative = np.cumsum(away, axis=1)
    total = cumulative[:, -1]
    flips = MODES[mode](np.minimum(total[rows], 1), clean, rng)
    # Where to: inverse of the cumulative distribution over the other classes.
    chosen = rows[flips]
    goal = rng.random(len(flips)) * total[chosen]
    target = (goal[:, None] >= cumulative[chosen]).sum(axis=1)
    # Rounding must not carry a draw past the last class that it can go to.
    last = np.where(away > 0, np.arange(away.shape[1]), 0).max(axis=1)
    given: Ints = clean.copy()
    given[flips] = np.minimum(target, last[chosen])
    return given


def _bernoulli(change: Doubles, clean: Ints, rng: np.random.Generator) -> Ints:
    return np.flatnonzero(rng.random(len(change)) < change)


def _exact(change: Doubles, clean: Ints, rng: np.random.Generator) -> Ints:
    shuffled = rng.permutation(len(change))
    return _systematic(change, shuffled[np.argsort(clean[shuffled], kind="stable")], rng)


def _exact_overall(change: Doubles, clean: Ints, rng: np.random.Generator) -> Ints:
    return _systematic(change, rng.permutation(len(change)), rng)


def _exact_per_class(change: Doubles, clean: Ints, rng: np.random.Generator) -> Ints:
    shuffled = rng.permutation(len(change))
    parts = [shuffled[clean[shuffled] == number] for number in np.unique(clean)]
    picked = [_systematic(change, part, rng) for part in parts]
    return np.concatenate(picked) if picked else np.empty(0, dtype=np.int64)


def _systematic(change: Doubles, order: Ints, rng: np.random.Generator) -> Ints:
    """Pick the rounded expected number of samples, each with probability `change`, to rounding.

    The samples are laid end to end on a line, each as long as its probability; points at distance
    1 pick where they fall. So every run of the line, a class for instance, gets its share to
    within one. Where the length is not whole the points keep off parts of the line, so of a few
    images those at its ends may never be picked, or too often.
    """
    if len(order) == 0:
        return order
    line = np.cumsum(change[order])
    length = float(line[-1])
    # Rounding errors of the sum must not decide a half.
    count, whole = round(round(length, 6)), int(length)
    rest = length - whole
    start = rng.random() * rest if count > whole else rest + rng.random() * (1 - rest)
    points = np.minimum(start + np.arange(count), np.nextafter(length, 0))
    return np.asarray(order[np.searchsorted(line, points, side="right")])


MODES: dict[str, Callable[[Doubles, Ints, np.random.Generator], Ints]] = {
    # The expected number overall, and in every class to within one. Classes lie in their order, so
    # of classes with a few images the first and the last flip too seldom or too often.
    "exact": _exact,
    # The expected number overall; how many in each class is left to chance.
    "exact-overall": _exact_overall,
    # The expected number in every class; the sum of the rounded numbers overall.
    "exact-per-class": _exact_per_class,
    # Every label by itself.
    "bernoulli": _bernoulli,
}
