"""From trust in labels to the labels that training uses: one function per treatment."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curricula.types import Doubles, Floats, Ints

# Least share of every class's labels that is drawn, so that no class is lost to a bad score. Where
# fewer labels of a class look right, the judge may not have learnt it.
LEAST_KEPT = 0.1
# Least share of a class's expected images that must look more like it than like any other. Measured
# on MNIST with classes of 500 images and one of 8, 15 or 30: at most .21 for that one, whose wrong
# labels are most of all; at least .42 for every class of 20 or more in other data.
_LEAST_LEARNT = 1 / 3
# Rows of (N, K) arrays that are looked at together.
_PIECE = 1 << 16
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
        classes: (N, K), rows sum to 1: how likely each class is, given image and label;
            None, like the next two, where the score does not tell classes apart.
        image_classes: (N, K), rows sum to 1: the same by the image alone.
        transition: (K, K) float64: how likely label j is given to class i.
        temperature: Divisor that makes log-probabilities of differences of error; None where the
            score does not come from errors under every class.
        doubts: What cannot be known from the labels, in sentences; `{3}` stands for the name of
            class 3, so that `doubt.format(*names)` can be shown.
    """

    right: Floats
    noise: float
    classes: Floats | None = None
    image_classes: Floats | None = None
    transition: Doubles | None = None
    temperature: float | None = None
    doubts: tuple[str, ...] = ()


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
        classes = classes.copy()
        classes[:, missed] = 0
        left = classes.sum(axis=1)
        # What only looks like these classes keeps its label.
        own |= left < _LEAST
        classes[own] = 0
        classes[own, given[own]] = 1
        classes[~own] /= left[~own, None]
        right[~own] = classes[~own, given[~own]]
    right[own] = np.maximum(right[own], 0.5)
    doubts = tuple(_NOT_LEARNT.format(f"{{{label}}}") for label in missed)
    return trust._replace(right=right, classes=classes, doubts=trust.doubts + doubts)


def _told_apart(image_classes: Floats) -> NDArray[np.bool_]:
    """Return of which classes most expected images look more like them than like others, (K,)."""
    expected, seen = np.zeros((2, image_classes.shape[1]))
    for start in range(0, len(image_classes), _PIECE):
        some = image_classes[start : start + _PIECE].astype(np.float64)
        likeliest = some.argmax(axis=1)
        expected += some.sum(axis=0)
        seen += np.bincount(likeliest, some.max(axis=1), len(expected))
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
