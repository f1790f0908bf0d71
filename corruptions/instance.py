"""Instance-dependent label noise (Xia et al. 2020, algorithm 2): the image decides how to err."""

from collections.abc import Callable

import numpy as np

from corruptions.types import Doubles, Ints

# Standard deviation of the samples' flip rates, as published.
_SPREAD = 0.1


def _unit(features: Doubles) -> Doubles:
    centred = features - features.mean(axis=0)
    norms = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.where(norms > 0, norms, 1))


# The scale of the features is part of the noise: softmax of larger numbers is sharper. With raw
# pixels every image of a class has nearly one wrong class, so the noise is nearly class-dependent.
SCALINGS: dict[str, tuple[str, Callable[[Doubles], Doubles]]] = {
    "raw": ("pixels in [0, 255]", lambda pixels: pixels),
    "01": ("pixels in [0, 1]", lambda pixels: pixels / 255),
    "11": ("pixels in [-1, 1]", lambda pixels: pixels / 127.5 - 1),
    "unit": ("pixels less the mean image, scaled to length 1", _unit),
}


def instance_probabilities(
    clean: Ints, features: Doubles, num_classes: int, rate: float, rng: np.random.Generator
) -> Doubles:
    """Return every sample's label probabilities.

    Sample i errs with probability q_i ~ Normal(rate, 0.1^2) truncated to [0, 1], towards class
    k != y_i with probability proportional to exp(x_i . w_(y_i, k)), w standard normal.

    Args:
        clean: (N,) int64 in [0, K).
        features: (N, S) float64, scaled.
        num_classes: K.
        rate: Centre of the flip rates; their mean is larger for a rate near 0 and smaller for one
            near 1, because of the truncation. Exactly 0 means no noise.
        rng: Source of randomness.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    wrong = np.zeros((len(clean), num_classes))
    for label in range(num_classes):
        # Drawn for absent classes too, so that the noise of a class does not depend on the others.
        weights = rng.standard_normal((features.shape[1], num_classes))
        rows = np.flatnonzero(clean == label)
        activation = features[rows] @ weights
        activation[:, label] = -np.inf
        activation -= activation.max(axis=1, keepdims=True, initial=-np.inf)
        exponential = np.exp(activation)
        wrong[rows] = exponential / exponential.sum(axis=1, keepdims=True)
    q = _truncated_normal(rate, len(clean), rng)[:, None]
    probabilities = q * wrong
    probabilities[np.arange(len(clean)), clean] = 1 - q[:, 0]
    return probabilities


def _truncated_normal(rate: float, count: int, rng: np.random.Generator) -> Doubles:
    if rate == 0:
        return np.zeros(count)
    q = rng.normal(rate, _SPREAD, count)
    while (outside := np.flatnonzero((q < 0) | (q > 1))).size:
        q[outside] = rng.normal(rate, _SPREAD, outside.size)
    return q
