import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from tasks import run, small_task

from robustdiff.training.rounds import RoundDone, rounds_due


def test_rounds_are_due_by_passes_over_the_dataset():
    task = small_task(curriculum={"warmup": 2, "score_every": 3})
    assert [rounds_due(task, step) for step in (0, 7, 8, 19, 20, 32)] == [0, 0, 1, 1, 2, 3]


def test_samples_take_turns():
    """After the first round, which scores everybody, each round scores one sample in `rotate`."""
    task = small_task(curriculum={"name": "pmi", "warmup": 0, "rotate": 4, "smoothing": 0.0})
    rounds = [event.scores for event in run(task)[1] if isinstance(event, RoundDone)]
    for number, (before, after) in enumerate(pairwise(rounds), start=1):
        changed = np.flatnonzero(before != after)
        np.testing.assert_array_equal(changed, np.arange(number % 4, 64, 4))


def test_the_oracle_drops_exactly_the_wrong_labels():
    task = small_task(curriculum={"name": "oracle"})
    rounds = [event for event in run(task)[1] if isinstance(event, RoundDone)]
    np.testing.assert_array_equal(rounds[-1].label_used, task.oracle)
    assert (~task.oracle).sum() == round(0.3 * 64)


def test_the_oracle_needs_the_truth():
    task = dataclasses.replace(small_task(curriculum={"name": "oracle"}), oracle=None)
    with pytest.raises(ValueError, match="clean labels"):
        run(task)
