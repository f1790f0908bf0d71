"""Means and their 95 % intervals over repetitions."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import t as student


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and half-width of the 95 % interval (Student's t); None for one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    width = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, float(width)


def cell(values: Sequence[float]) -> str:
    """Format values as mean ± half-width."""
    if not values:
        return "-"
    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"
