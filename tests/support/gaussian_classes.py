"""Images of Gaussian classes, so that p(class | image) is exact, and labels drawn for them."""

import numpy as np
from scipy.special import softmax


def classes_of(n, k, distance, seed=0, weights=None):
    """Return clean classes (N,) and p(class | image), (N, K), for means that far apart."""
    rng = np.random.default_rng(seed)
    shares = np.full(k, 1 / k) if weights is None else np.asarray(weights)
    clean = np.append(np.arange(k), rng.choice(k, n - k, p=shares))
    points = rng.normal(size=(n, k))
    points[np.arange(n), clean] += distance
    return clean, softmax(distance * points + np.log(shares), axis=1)


def symmetric(k, rate):
    return (1 - rate) * np.eye(k) + rate / (k - 1) * (1 - np.eye(k))


def draw(rows, seed=1):
    """Draw a class from every row of probabilities."""
    chance = np.random.default_rng(seed).random(len(rows))
    return (rows.cumsum(axis=1) < chance[:, None]).sum(axis=1).clip(0, rows.shape[1] - 1)
