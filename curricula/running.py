"""Statistics that a training run accumulates over its scoring rounds."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from curricula.types import Floats


class Running(NamedTuple):
    """A statistic of the scores of all rounds.

    Attributes:
        add: (state (N, M) or None, new scores (N,), NaN where none) -> state (N, M).
        score: State (N, M) -> (N,) scores, high = trusted.
    """

    add: Callable[[Floats | None, Floats], Floats]
    score: Callable[[Floats], Floats]


def _add_mean(state: Floats | None, scores: Floats) -> Floats:
    """State: sum and number of scores."""
    measured = ~np.isnan(scores)
    new = np.stack([np.where(measured, scores, 0), measured], axis=1)
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


# Of margins, the mean is the area under the margin (Pleiss et al. 2020).
MEAN_OF_ROUNDS = Running(_add_mean, _mean)
# Toneva et al. (2019).
FORGETTING = Running(_add_forgetting, _forgetting)
