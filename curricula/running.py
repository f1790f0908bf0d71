"""Statistics that a training run accumulates over its scoring rounds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from curricula.types import Floats


class Running(NamedTuple):
    """A statistic of the margins of all rounds.

    Attributes:
        add: (state (N, M) or None, new margins (N,), NaN where none) -> state (N, M).
        score: State (N, M) -> (N,) scores, high = trusted.
    """

    add: Callable[[Floats | None, Floats], Floats]
    score: Callable[[Floats], Floats]


def _add_mean(state: Floats | None, margins: Floats) -> Floats:
    """State: sum and number of margins."""
    measured = ~np.isnan(margins)
    new = np.stack([np.where(measured, margins, 0), measured], axis=1)
    return new if state is None else state + new


def _mean(state: Floats) -> Floats:
    return np.asarray(state[:, 0] / np.maximum(state[:, 1], 1))


def _add_forgetting(state: Floats | None, margins: Floats) -> Floats:
    """State: right last time, times forgotten, ever right, times measured."""
    if state is None:
        state = np.zeros((len(margins), 4), dtype=margins.dtype)
    measured = ~np.isnan(margins)
    right = np.where(measured, margins > 0, state[:, 0])
    forgotten = (state[:, 0] > 0) & (right == 0)
    ever = np.maximum(state[:, 2], right)
    return np.stack([right, state[:, 1] + forgotten, ever, state[:, 3] + measured], axis=1)


def _forgetting(state: Floats) -> Floats:
    # Never learnt counts as forgotten every time (Toneva et al. 2019 put it at infinity).
    return np.asarray(-np.where(state[:, 2] > 0, state[:, 1], state[:, 3]))


# Area under the margin (Pleiss et al. 2020); forgetting events (Toneva et al. 2019).
AREA_UNDER_MARGIN = Running(_add_mean, _mean)
FORGETTING = Running(_add_forgetting, _forgetting)
