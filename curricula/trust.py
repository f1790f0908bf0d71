"""From trust in labels to the labels that training uses: one function per treatment."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curricula.types import Doubles, Floats, Ints

# Least share of every class's labels that stays in use, so that no class is lost to a bad score.
LEAST_KEPT = 0.1


class Trust(NamedTuple):
    """Estimates of which labels are right.

    Attributes:
        right: (N,) in [0, 1], how likely each given label is right.
        noise: Estimated share of wrong labels; NaN where the scores do not estimate it.
        classes: (N, K), rows sum to 1: how likely each class is, given image and label;
            None, like the next two, where the score does not tell classes apart.
        image_classes: (N, K), rows sum to 1: the same by the image alone.
        transition: (K, K) float64: how likely label j is given to class i.
        temperature: Divisor that makes log-probabilities of differences of error; None where the
            score does not come from errors under every class.
    """

    right: Floats
    noise: float
    classes: Floats | None = None
    image_classes: Floats | None = None
    transition: Doubles | None = None
    temperature: float | None = None


class Labels(NamedTuple):
    """The labels that training uses.

    Attributes:
        labels: (N,) int64 in [0, K]; K means to train without a label.
        weights: (N,) of mean 1 for the losses, or None.
        soft: (N, K) to draw each label from anew at every step, or None.
    """

    labels: Ints
    weights: Floats | None = None
    soft: Floats | None = None


def trusted(right: Floats, given: Ints) -> NDArray[np.bool_]:
    """Return which labels are used: those more likely right than wrong.

    If fewer than a tenth of a class's labels would be used, its likeliest tenth is.

    Args:
        right: (N,) in [0, 1].
        given: (N,) int64.

    Returns:
        (N,) bool.
    """
    used = right >= 0.5
    counts = np.bincount(given)
    kept = np.bincount(given[used], minlength=len(counts))
    for label in np.flatnonzero(counts):
        least = max(1, round(LEAST_KEPT * counts[label]))
        if kept[label] < least:
            members = np.flatnonzero(given == label)
            used[members[np.argsort(-right[members], kind="stable")[:least]]] = True
    return np.asarray(used)


def _as_given(trust: Trust, given: Ints, null: int) -> Labels:
    return Labels(given)


def _null(trust: Trust, given: Ints, null: int) -> Labels:
    return Labels(np.where(trusted(trust.right, given), given, null))


def _reweight(trust: Trust, given: Ints, null: int) -> Labels:
    used = trusted(trust.right, given)
    weights = np.where(used, np.maximum(trust.right, 0.5), trust.right)
    return Labels(given, weights=weights / weights.mean())


def _relabel(trust: Trust, given: Ints, null: int) -> Labels:
    assert trust.classes is not None
    likeliest = trust.classes.argmax(axis=1)
    return Labels(np.where(trusted(trust.right, given), given, likeliest))


def _soft(trust: Trust, given: Ints, null: int) -> Labels:
    assert trust.classes is not None
    soft = trust.classes
    kept = np.flatnonzero(trusted(trust.right, given) & (trust.right < 0.5))
    if len(kept):
        soft = soft.copy()
        soft[kept] = 0
        soft[kept, given[kept]] = 1
    return Labels(given, soft=soft)


TREATMENTS: dict[str, Callable[[Trust, Ints, int], Labels]] = {
    "none": _as_given,
    # The sampler draws a part of the samples; their labels stay.
    "select": _as_given,
    "reweight": _reweight,
    "null": _null,
    "relabel": _relabel,
    "soft": _soft,
}
