import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from tasks import run, small_task

from robustdiff.training import rounds
from robustdiff.training.rounds import RoundDone, gather_evidence, rounds_due
from robustdiff.training.state import new_state


def test_rounds_are_due_by_passes_over_the_dataset():
    task = small_task(curriculum={"warmup": 2, "score_every": 3})
    assert [rounds_due(task, step) for step in (0, 7, 8, 19, 20, 32)] == [0, 0, 1, 1, 2, 3]


def test_samples_take_turns():
    """After the first round, which scores everybody, each round scores one sample in `rotate`."""
    task = small_task(curriculum={"name": "pmi", "warmup": 0, "rotate": 4, "smoothing": 0.0})
    scored = [event.scores for event in run(task)[1] if isinstance(event, RoundDone)]
    for number, (before, after) in enumerate(pairwise(scored), start=1):
        changed = np.flatnonzero(before != after)
        np.testing.assert_array_equal(changed, np.arange(number % 4, 64, 4))


def test_the_first_round_of_margin_tries_the_classes_that_a_glance_finds_likely(monkeypatch):
    task = small_task(curriculum={"name": "margin", "probes": 1, "rivals": 2, "smoothing": 0.0})
    # Of every image the two classes after the given one, the nearer the likelier.
    ahead = (np.arange(10)[None] - task.given[:, None]) % 10
    likely = np.where(ahead == 0, 0, 1.0 / (1 + ahead)).astype(np.float32)
    monkeypatch.setattr(rounds, "_LEAST_GLANCED", 64)
    monkeypatch.setattr(rounds, "likely_classes", lambda _: likely)
    tried = []
    measure, gains = rounds.class_evidence, np.random.default_rng(0).normal(size=(64, 10))

    def seen(*args):  # an untrained network has no gains
        tried.append(np.where(np.isnan(measure(*args)), np.nan, gains).astype(np.float32))
        return tried[-1]

    monkeypatch.setattr(rounds, "class_evidence", seen)
    state = new_state(task)
    found, _ = gather_evidence(state, task)
    np.testing.assert_array_equal(~np.isnan(tried[0]), ahead < 3)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[ahead < 3], tried[0][ahead < 3])
    # What was not tried lies below what was, the less likely the lower.
    worst, unit = np.nanmin(tried[0], axis=1, keepdims=True), np.nanmean(np.abs(tried[0]))
    below = np.where(ahead < 3, np.nan, (worst - found) / unit)
    # The order is 1, 2, ..., 9 classes ahead, then the given one.
    np.testing.assert_allclose(below, np.where(ahead < 3, np.nan, 0.1 * ahead), rtol=1e-3)
    # So the next round tries the same classes again.
    state.sampler.update(found)
    gather_evidence(state, task)
    np.testing.assert_array_equal(~np.isnan(tried[1]), ahead < 3)


@pytest.mark.parametrize(("name", "rivals"), [("margin", None), ("aum", 2)])
def test_all_classes_are_tried_without_a_glance(monkeypatch, name, rivals):
    task = small_task(curriculum={"name": name, "probes": 1, "rivals": rivals})
    monkeypatch.setattr(rounds, "_LEAST_GLANCED", 64)
    monkeypatch.setattr(rounds, "likely_classes", None)
    found, _ = gather_evidence(new_state(task), task)
    assert np.isfinite(found).all()


def test_the_oracle_drops_exactly_the_wrong_labels():
    task = small_task(curriculum={"name": "oracle"})
    done = [event for event in run(task)[1] if isinstance(event, RoundDone)]
    np.testing.assert_array_equal(done[-1].label_used, task.oracle)
    assert (~task.oracle).sum() == round(0.3 * 64)


def test_the_oracle_needs_the_truth():
    task = dataclasses.replace(small_task(curriculum={"name": "oracle"}), oracle=None)
    with pytest.raises(ValueError, match="clean labels"):
        run(task)
