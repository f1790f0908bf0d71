"""Transition matrices: `T[clean, given]`, row-stochastic."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from corruptions.arrays import load_array
from corruptions.types import Doubles


def symmetric(num_classes: int, rate: float) -> Doubles:
    """Move a label to each other class with equal probability, `rate` in total.

    Args:
        num_classes: K, at least 2.
        rate: Probability that the label changes, in [0, 1]; the true class is excluded.

    Returns:
        (K, K) float64.

    Examples:
        >>> symmetric(3, 0.2).tolist()
        [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
    """
    matrix = np.full((num_classes, num_classes), rate / (num_classes - 1), dtype=np.float64)
    np.fill_diagonal(matrix, 1 - rate)
    return matrix


def symmetric_inclusive(num_classes: int, rate: float) -> Doubles:
    """Redraw a label over all classes with probability `rate`, the true class included.

    Args:
        num_classes: K, at least 2.
        rate: Probability of the redraw, in [0, 1]; a label changes with rate (K - 1) / K only.

    Returns:
        (K, K) float64.
    """
    return symmetric(num_classes, rate * (num_classes - 1) / num_classes)


def from_class_map(num_classes: int, rate: float, class_map: Mapping[int, int]) -> Doubles:
    """Move the labels of some classes to one other class each.

    Args:
        num_classes: K.
        rate: Probability that the label of a mapped class changes, in [0, 1]; the rate over the
            whole dataset is smaller if only some classes are mapped.
        class_map: Clean class -> given class.

    Returns:
        (K, K) float64.
    """
    matrix = np.eye(num_classes)
    for clean, given in class_map.items():
        matrix[clean, clean] -= rate
        matrix[clean, given] += rate
    return matrix


def pairflip(num_classes: int, rate: float) -> Doubles:
    """Move every label to the next class, the last one to the first, with probability `rate`.

    Args:
        num_classes: K, at least 2.
        rate: Probability that the label changes, in [0, 1].

    Returns:
        (K, K) float64.
    """
    return from_class_map(num_classes, rate, {c: (c + 1) % num_classes for c in range(num_classes)})


def check_matrix(matrix: object, num_classes: int) -> Doubles:
    """Return a transition matrix of the right shape.

    Raises:
        ValueError: If it is not (K, K), has an entry outside [0, 1], or a row that does not sum
            to 1.
    """
    checked = np.asarray(matrix, dtype=np.float64)
    if checked.shape != (num_classes, num_classes):
        raise ValueError(
            f"noise matrix must have shape ({num_classes}, {num_classes}), got {checked.shape}"
        )
    if not (np.isfinite(checked).all() and (checked >= 0).all() and (checked <= 1).all()):
        raise ValueError("noise matrix entries must be probabilities in [0, 1]")
    sums = checked.sum(axis=1)
    wrong = np.flatnonzero(np.abs(sums - 1) > 1e-6)
    if len(wrong):
        row = int(wrong[0])
        raise ValueError(
            f"every row of the noise matrix T[clean, given] must sum to 1, "
            f"got {sums[row]:.6g} in row {row}"
        )
    return checked


def load_matrix(path: str | Path) -> Doubles:
    """Read a matrix from .npy, or from text with commas between the entries of a row.

    Raises:
        ValueError: If the file is missing or does not hold numbers.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            return load_array(path).astype(np.float64)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of files without any number
            return np.loadtxt(path, delimiter=",", ndmin=2, dtype=np.float64, encoding="utf-8-sig")
    except (OSError, ValueError, TypeError, UserWarning) as error:
        raise ValueError(f"cannot read a noise matrix from {path}: {error}") from error
