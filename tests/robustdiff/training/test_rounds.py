import dataclasses
from itertools import pairwise

import numpy as np
import pytest
from tasks import run, small_task

from curricula import Trust
from curricula.sparse import keep_few, of_class
from robustdiff.labels import scoring
from robustdiff.progress import Report
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
    state.sampler.update(found, lambda _: (np.zeros(64), Trust(np.ones(64), 0.0)))
    gather_evidence(state, task)
    np.testing.assert_array_equal(~np.isnan(tried[1]), ahead < 3)


def test_of_many_classes_the_first_round_tries_those_that_a_glance_keeps(monkeypatch):
    task = small_task(curriculum={"name": "margin", "probes": 1, "rivals": 1, "smoothing": 0.0})
    rng = np.random.default_rng(0)
    likely = rng.dirichlet(np.full(10, 0.1), size=64) + 5 * np.eye(10)[task.given]
    few = keep_few(likely, task.given, 4)
    monkeypatch.setattr(rounds, "_LEAST_GLANCED", 64)
    monkeypatch.setattr(rounds, "likely_classes", lambda _: few)
    tried, gains = [], scoring._gains

    def seen(probing, batch, model, labels, number):
        tried.append(labels.shape[1])
        return gains(probing, batch, model, labels, number)

    monkeypatch.setattr(scoring, "_gains", seen)
    state = new_state(task)
    found, _ = gather_evidence(state, task)
    assert set(tried) == {4}
    np.testing.assert_array_equal(found.classes, few.classes)
    assert np.isfinite(found.values).all()
    assert (of_class(found, task.given) == 0).all()
    np.testing.assert_array_equal(found.rest, found.values.min(axis=1))
    # Later rounds try one rival of those kept.
    state.sampler.update(found, lambda _: (np.zeros(64), Trust(np.ones(64), 0.0)))
    tried.clear()
    later, _ = gather_evidence(state, task)
    assert set(tried) == {2}
    assert np.isnan(later.values).sum() == 64 * 2


def test_classifiers_that_know_nothing_name_no_rivals_and_are_reported(monkeypatch):
    class Heard(Report):
        def message(self, text):
            messages.append(text)

    messages = []
    task = small_task(curriculum={"name": "margin", "probes": 1, "rivals": 2})
    task = dataclasses.replace(task, report=Heard())
    likely = np.random.default_rng(1).dirichlet(np.ones(10), size=64)
    monkeypatch.setattr(rounds, "_LEAST_GLANCED", 64)
    monkeypatch.setattr(rounds, "likely_classes", lambda _: keep_few(likely, task.given, 4))
    found, _ = gather_evidence(new_state(task), task)
    assert found.shape == (64, 10)
    assert np.isfinite(found).all()
    (message,) = messages
    assert "no more than by chance: the first round tries all 10 classes" in message


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
