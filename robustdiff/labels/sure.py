"""The images that a classifier is sure of, and how often their labels contradict it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curricula.sparse import ClassValues, likeliest, two_largest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Share of the images of every predicted class that counts as sure: a tenth, and of few images so
# many that there are a hundred, but at most half.
_SURE, _SURE_IMAGES, _MOST_SURE = 0.1, 100, 0.5
_FLOOR = 1e-6


class Contradictions(NamedTuple):
    """How often the given label is not the likeliest class.

    Attributes:
        everywhere: Share of all labels.
        sure: Share of the labels of images that the classifier is sure of, class by class.
        images: Number of the latter.
        surest: Share of the labels of the tenth of all images that it is surest of.
        surest_images: Number of the latter.
    """

    everywhere: float
    sure: float
    images: int
    surest: float
    surest_images: int


def contradictions(probabilities: ClassValues, given: Ints) -> Contradictions:
    """Count labels that contradict the classifier.

    Args:
        probabilities: (N, K).
        given: (N,) int64.
    """
    ratio = first_to_second(probabilities)
    differs, sure = likeliest(probabilities) != given, _sure(probabilities, ratio)
    surest = _surest(ratio, _SURE)
    return Contradictions(
        float(differs.mean()),
        float(differs[sure].mean()),
        int(sure.sum()),
        float(differs[surest].mean()),
        len(surest),
    )


def sure_transition(probabilities: ClassValues, given: Ints) -> Floats:
    """Return how the images that the classifier is sure of are labelled (anchors, Patrini 2017).

    Args:
        probabilities: (N, K).
        given: (N,) int64.

    Returns:
        (K, K), T[predicted, given]; one label of every class's own is added to each row.
    """
    sure = _sure(probabilities, first_to_second(probabilities))
    counts = np.eye(probabilities.shape[1])
    np.add.at(counts, (likeliest(probabilities)[sure], given[sure]), 1)
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def first_to_second(probabilities: ClassValues) -> Floats:
    """Return the ratio of the largest probability of each image to the next, (N,), at least 1.

    No calibration by a temperature changes its order.
    """
    two = two_largest(probabilities).astype(np.float64) + _FLOOR
    return np.asarray(two[:, 1] / two[:, 0])


def _sure(probabilities: ClassValues, ratio: Floats) -> NDArray[np.bool_]:
    """Return the images of every predicted class with the largest ratios, (N,)."""
    share = min(max(_SURE, _SURE_IMAGES / len(probabilities)), _MOST_SURE)
    predicted = likeliest(probabilities)
    sure = np.zeros(len(predicted), dtype=bool)
    for label in np.unique(predicted):
        members = np.flatnonzero(predicted == label)
        sure[members[_surest(ratio[members], share)]] = True
    return sure


def _surest(ratio: Floats, share: float) -> Ints:
    """Return where a share of the ratios, (N,), is largest."""
    return np.argsort(-ratio, kind="stable")[: int(np.ceil(share * len(ratio)))]
