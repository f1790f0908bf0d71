"""From trust in labels to the labels that training uses: one function per treatment."""

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curricula.sparse import (
    ClassValues,
    likeliest,
    of_class,
    pieces,
    some_rows,
)
from curricula.types import Doubles, Floats, Ints

# Least share of every class's labels that is drawn, so that no class is lost to a bad score. Where
# fewer labels of a class look right, the judge may not have learnt it.
LEAST_KEPT = 0.1
# Least share of a class's expected images that must look more like it than like any other. Measured
# on MNIST with classes of 500 images and one of 8, 15 or 30: at most .21 for that one, whose wrong
# labels are most of all; at least .42 for every class of 20 or more in other data.
_LEAST_LEARNT = 1 / 3
# Rows and entries of (N, K) arrays that are looked at together, at most.
_PIECE, _ENTRIES = 1 << 16, 1 << 23
_LEAST = 1e-6
_NOT_LEARNT = (
    "class {} was not learnt, since fewer than a tenth of its labels look right: its labels stay "
    "as given, and no other image is moved into it"
)


class Trust(NamedTuple):
    """Estimates of which labels are right.

    Attributes:
        right: (N,) in [0, 1], how likely each given label is right.
        noise: Estimated share of wrong labels; NaN where the scores do not estimate it.
        classes: (N, K), rows sum to 1: how likely each class is, given image and label; sparse for
            many classes. None, like the next two, where the score does not tell classes apart.
        image_classes: (N, K), rows sum to 1: the same by the image alone.
        transition: (K, K) float64: how likely label j is given to class i.
        temperature: Divisor that makes log-probabilities of differences of error; None where the
            score does not come from errors under every class.
        doubts: What cannot be known from the labels, in sentences; `{3}` stands for the name of
            class 3, so that `doubt.format(*names)` can be shown.
    """

    right: Floats
    noise: float
    classes: ClassValues | None = None
    image_classes: ClassValues | None = None
    transition: Doubles | None = None
    temperature: float | None = None
    doubts: tuple[str, ...] = ()


class Labels(NamedTuple):
    """The labels that training uses.

    Attributes:
        labels: (N,) int64 in [0, K]; K means to train without a label.
        weights: (N,) of mean 1 for the losses, or None.
        soft: (N, K) to draw each label from anew at every step, or None; float32, sparse where the
            trust is.
    """

    labels: Ints
    weights: Floats | None = None
    soft: ClassValues | None = None


def trusted(right: Floats, given: Ints) -> NDArray[np.bool_]:
    """Return which labels are used: those at least as likely right as wrong.

    A class of which no label would be used keeps all of them.

    Args:
        right: (N,) in [0, 1].
        given: (N,) int64.

    Returns:
        (N,) bool.
    """
    used = right >= 0.5
    lost = (np.bincount(given) > 0) & (np.bincount(given, used) == 0)
    return np.asarray(used | lost[given])


def spared(trust: Trust, given: Ints) -> Trust:
    """Leave the classes alone that the judge has not learnt, and say which they are.

    Their labels stay as given, at least as likely right as wrong, and no other image is moved into
    them. A class has not been learnt if fewer than a tenth of its labels look right, and the images
    do not tell it apart: of those expected to be of it, summed over p(class | image), fewer than a
    third look more like it than like any other class. Scores that do not compare classes cannot
    show the latter.

    Args:
        trust: What the evidence says.
        given: (N,) int64 in [0, K).

    Returns:
        The trust, with a doubt for every such class.
    """
    counts = np.bincount(given)
    kept = np.bincount(given, trust.right >= 0.5)
    missed = np.flatnonzero((counts > 0) & (kept < LEAST_KEPT * counts))
    if trust.image_classes is not None and len(missed):
        missed = missed[~_told_apart(trust.image_classes)[missed] | (kept[missed] == 0)]
    if len(missed) == 0:
        return trust
    own, right, classes = np.isin(given, missed), trust.right.copy(), trust.classes
    if classes is not None:
        classes, own = _without(classes, missed, given, own)
        right[~own] = of_class(some_rows(classes, ~own), given[~own])
    right[own] = np.maximum(right[own], 0.5)
    doubts = tuple(_NOT_LEARNT.format(f"{{{label}}}") for label in missed)
    return trust._replace(right=right, classes=classes, doubts=trust.doubts + doubts)


def _without(
    classes: ClassValues, missed: Ints, given: Ints, own: NDArray[np.bool_]
) -> tuple[ClassValues, NDArray[np.bool_]]:
    """Return distributions over the other classes than some, and which images keep their label.

    Args:
        classes: (N, K).
        missed: Classes that no image is moved into.
        given: (N,) int64.
        own: (N,), images that keep their label in any case.
    """
    found, own = copy.deepcopy(classes), own.copy()
    for where in pieces(*classes.shape):
        some = classes[where].copy()
        some[:, missed] = 0
        left = some.sum(axis=1)
        # What only looks like these classes keeps its label.
        kept = own[where] | (left < _LEAST)
        some[kept] = 0
        some[kept, given[where][kept]] = 1
        some[~kept] /= left[~kept, None]
        own[where], found[where] = kept, some
    return found, own


def _told_apart(image_classes: ClassValues) -> NDArray[np.bool_]:
    """Return of which classes most expected images look more like them than like others, (K,)."""
    rows, columns = image_classes.shape
    expected, seen = np.zeros((2, columns))
    size = min(_PIECE, max(1, _ENTRIES // columns))
    for start in range(0, rows, size):
        some = image_classes[start : start + size].astype(np.float64)
        expected += some.sum(axis=0)
        seen += np.bincount(some.argmax(axis=1), some.max(axis=1), len(expected))
    return np.asarray(seen >= _LEAST_LEARNT * expected)


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
    return Labels(np.where(trusted(trust.right, given), given, likeliest(trust.classes)))


def _soft(trust: Trust, given: Ints, null: int) -> Labels:
    assert trust.classes is not None
    soft = trust.classes
    kept = np.flatnonzero(trusted(trust.right, given) & (trust.right < 0.5))
    if len(kept):
        soft = copy.deepcopy(soft)
        for where in pieces(len(kept), soft.shape[1]):
            rows = kept[where]
            certain = np.zeros((len(rows), soft.shape[1]), dtype=np.float32)
            certain[np.arange(len(rows)), given[rows]] = 1
            soft[rows] = certain
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
