"""Estimate the noise without clean labels: its rate, and its transition matrix."""

from typing import NamedTuple

import numpy as np

from corruptions.types import Doubles, Floats, Ints

# Scores that a mixture is fitted to; of more, so many at random.
_MOST_FITTED = 1_000_000
# What rounding changes of a probability at most, in float32.
_ROUNDED = 1e-6


class Estimate(NamedTuple):
    """An estimate of the noise.

    Attributes:
        rate: Share of wrong labels.
        transition: (K, K) float64, T[clean, given], rows sum to 1.
        wrong: (N,) float64 in [0, 1], how sure each label is to be wrong.
    """

    rate: float
    transition: Doubles
    wrong: Floats


def confident_joint(given: Ints, probabilities: Floats) -> Estimate:
    """Count confidently predicted classes among given labels (Northcutt et al. 2021, eq. 1 to 3).

    A sample counts for class k if its probability of k is at least the mean probability of k among
    samples given k; of several such classes the likeliest.

    Args:
        given: (N,) int64 in [0, K); every class must be given at least once.
        probabilities: (N, K) predicted class probabilities, best out of sample.

    Returns:
        The estimate.

    Raises:
        ValueError: If the shapes differ, a probability is not finite, or a class is never given.
    """
    num_classes = probabilities.shape[1]
    counts = _class_counts(given, probabilities)
    thresholds = np.array([probabilities[given == k, k].mean() for k in range(num_classes)])
    # Where all samples of a class have one probability, its mean may be rounded to more.
    confident = probabilities >= thresholds - _ROUNDED
    guess = np.where(confident, probabilities, -1.0).argmax(axis=1)
    sure = confident.any(axis=1)
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (guess[sure], given[sure]), 1)
    # Calibrate: as many samples of every given class as there are.
    columns = joint.sum(axis=0)
    joint = np.where(columns > 0, joint * (counts / np.where(columns > 0, columns, 1)), 0)
    empty = np.flatnonzero(columns == 0)
    joint[empty, empty] = counts[empty]
    wrong = 1 - probabilities[np.arange(len(given)), given]
    return _estimate(joint, wrong)


def score_mixture(
    given: Ints, scores: Doubles, predicted: Ints, num_classes: int, *, zero: float | None = None
) -> Estimate:
    """Fit two Gaussians to a score; the lower one holds the wrong labels.

    Args:
        given: (N,) int64 in [0, K).
        scores: (N,) any score that is high where the label looks right.
        predicted: (N,) int64, the likeliest class of each sample other than its given one; where a
            wrong label is taken to have come from.
        num_classes: K.
        zero: See `mixture_posterior`.

    Returns:
        The estimate.
    """
    wrong = mixture_posterior(scores, zero=zero)
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (given, given), 1 - wrong)
    np.add.at(joint, (predicted, given), wrong)
    return _estimate(joint, wrong)


def mixture_posterior(scores: Floats, *, zero: float | None = None) -> Doubles:
    """Return the probability that each score belongs to the lower of two Gaussians.

    It is 0 for all where one Gaussian describes the scores better (Schwarz 1978). Of more than a
    million scores, a million drawn at random are fitted, the same ones every time.

    Args:
        scores: (N,) finite.
        zero: The score of a label that is as likely right as wrong, where the score has such a
            point. A lower Gaussian centred above it holds right labels, too: all are then right.

    Returns:
        (N,) float64 in [0, 1].

    Raises:
        ValueError: If a score is not finite.
    """
    _refuse_nonfinite(scores, "scores")
    from sklearn.mixture import GaussianMixture

    # Centred and clipped, since a few far outliers would take a component for themselves.
    fitted = scores
    if len(scores) > _MOST_FITTED:
        fitted = scores[np.random.default_rng(0).integers(len(scores), size=_MOST_FITTED)]
    fitted = fitted.astype(np.float64)
    low, high = np.quantile(fitted, [0.001, 0.999])
    column = np.clip(fitted, low, high)[:, None]
    # Start from the halves below and above the middle of the range: no random initialisation.
    middle, spread = (column.min() + column.max()) / 2, column.std()
    if column.max() <= middle or spread == 0:
        return np.zeros(len(scores))
    means = np.array([[column[column <= middle].mean()], [column[column > middle].mean()]])
    mixture = GaussianMixture(
        2, means_init=means, reg_covar=1e-6 * spread**2, tol=1e-7, max_iter=2000, random_state=0
    ).fit(column)
    # Twice the gain in likelihood must pay for three more parameters.
    alone = -(np.log(2 * np.pi * spread**2) + 1) / 2
    one_is_enough = 2 * len(column) * (mixture.lower_bound_ - alone) < 3 * np.log(len(column))
    if one_is_enough or (zero is not None and mixture.means_.min() >= zero):
        return np.zeros(len(scores))
    lower, found = int(mixture.means_[:, 0].argmin()), np.empty(len(scores))
    for start in range(0, len(scores), _MOST_FITTED):
        piece = scores[start : start + _MOST_FITTED].astype(np.float64)
        piece = np.clip(piece, low, high)[:, None]
        found[start : start + len(piece)] = mixture.predict_proba(piece)[:, lower]
    return found


def _class_counts(given: Ints, probabilities: Floats) -> Ints:
    if probabilities.ndim != 2 or len(probabilities) != len(given):
        raise ValueError(
            f"probabilities must have shape ({len(given)}, K), got {probabilities.shape}"
        )
    _refuse_nonfinite(probabilities, "probabilities")
    counts = np.bincount(given, minlength=probabilities.shape[1])
    if (counts == 0).any():
        raise ValueError(f"class {int(np.flatnonzero(counts == 0)[0])} is never given")
    return counts


def _refuse_nonfinite(values: Floats, what: str) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"{what} must be finite, got {values[tuple(bad[0])]} for sample {bad[0, 0]}"
        )


def _estimate(joint: Doubles, wrong: Floats) -> Estimate:
    """Turn a joint count [clean, given] into an estimate."""
    rows = joint.sum(axis=1, keepdims=True)
    transition = np.where(rows > 0, joint / np.where(rows > 0, rows, 1), np.eye(len(joint)))
    return Estimate(float(1 - np.trace(joint) / joint.sum()), transition, wrong)
