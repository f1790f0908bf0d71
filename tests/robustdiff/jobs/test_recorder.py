"""What a run leaves in its folder while it trains: by the leader, and by nobody else."""

import dataclasses
import json
import time

import numpy as np
import pytest
import torch

from corruptions import corrupt
from curricula import Trust
from robustdiff.config.layers import resolve
from robustdiff.jobs import recorder as module
from robustdiff.jobs.assemble import Material, make_task
from robustdiff.jobs.recorder import Recorder, RunRecorder, recording
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.reports.tensorboard import TensorBoard
from robustdiff.runs.making import create_run
from robustdiff.runs.scores import load_scores
from robustdiff.training.loop import Prepared, StepDone
from robustdiff.training.rounds import RoundDone

CONFIG = resolve(
    {
        "model": {"channels": [8], "time_size": 8},
        "train": {"steps": 4, "batch_size": 8, "device": "cpu"},
        "curriculum": {"name": "pmi"},
    }
)


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.fixture
def material(digits):
    return make_material(digits)


def make_material(digits, workers=ALONE):
    few = dataclasses.replace(
        digits, train=digits.train[:40], train_labels=digits.train_labels[:40]
    )
    labels = corrupt(few.train_labels.numpy(), num_classes=10, rate=0.25)
    return Material(few, labels, make_task(CONFIG, few, labels, Report(), workers))


@pytest.fixture
def run(tmp_path, material):
    return create_run(tmp_path / "run", CONFIG, material.labels)


def scoring_round(labels, seconds=1.0, temperature=None):
    scores = np.where(labels.flipped, -1.0, 1.0)
    trust = Trust(1.0 * ~labels.flipped, 0.25, temperature=temperature)
    return RoundDone(2, 1, scores, trust, ~labels.flipped, seconds)


def history(run):
    return [json.loads(line) for line in run.history_file.read_text().splitlines()]


def test_processes_beside_the_leader_write_nothing(digits, run):
    before = sorted(run.path.rglob("*"))
    beside = make_material(digits, Workers(rank=1, size=2))
    with recording(run, beside, Report(), start=0) as recorder:
        assert type(recorder) is Recorder
        for event in (Prepared(1.0), StepDone(1, 0.5), scoring_round(beside.labels)):
            recorder.record(event)
        recorder.sample_grid(1, None)
        recorder.flush()
        recorder.finish()
    assert sorted(run.path.rglob("*")) == before


def test_the_leader_logs_what_happens_in_order(run, material):
    with recording(run, material, Report(), start=0) as recorder:
        for event in (
            Prepared(1.5),
            StepDone(1, None),
            StepDone(2, 0.5),
            scoring_round(material.labels, temperature=0.125),
        ):
            recorder.record(event)
    prepared, step, scored = history(run)
    assert prepared == {"step": 0, "preparing_seconds": 1.5}
    assert (step["step"], step["loss"]) == (2, 0.5)
    assert scored == {
        "step": 2, "round": 1, "labels_used": 0.75, "estimated_noise": 0.25,
        "scoring_seconds": 1.0, "auroc": 1.0, "average_precision": 1.0, "precision_at_rate": 1.0,
        "temperature": 0.125,
    }  # fmt: skip
    assert load_scores(run).trust.temperature == 0.125


def test_the_clock_of_training_stands_still_beside_its_steps(run, material, clock, monkeypatch):
    def slow(*_, **__):
        clock.now += 1000
        return torch.zeros(80, 1, 8, 8, dtype=torch.uint8)

    monkeypatch.setattr(module, "generate", slow)
    with recording(run, material, Report(), start=0) as recorder:
        clock.now += 50
        recorder.record(Prepared(50.0))
        clock.now += 2
        recorder.record(StepDone(1, None))
        recorder.sample_grid(1, None)
        clock.now += 300
        recorder.record(scoring_round(material.labels, seconds=300.0))
        clock.now += 2
        recorder.record(StepDone(2, 0.5))
        clock.now += 1
        recorder.record(StepDone(3, 0.25))
    assert [e["images_per_second"] for e in history(run) if "loss" in e] == [16 / 4, 8]
    assert (run.samples / "step-00000001.png").exists()


def test_a_resumed_run_counts_from_its_step(run, material, clock):
    with recording(run, material, Report(), start=2) as recorder:
        clock.now += 4
        recorder.record(StepDone(4, 0.5))
    assert history(run) == [{"step": 4, "loss": 0.5, "images_per_second": 4.0}]


def test_the_end_leaves_card_and_audit(run, material):
    with recording(run, material, Report(), start=4) as recorder:
        recorder.record(scoring_round(material.labels))
        recorder.finish()
    card = (run.path / "README.md").read_text()
    assert "- steps: 4 of 8 images" in card
    assert "estimated by the scores 25.00%" in card
    assert (run.path / "audit.html").exists()


def test_tensorboard_is_closed_whatever_happens(run, material, monkeypatch):
    closed = []
    monkeypatch.setattr(TensorBoard, "close", lambda board: closed.append(board))

    def interrupted():
        with recording(run, material, Report(), start=0) as recorder:
            assert type(recorder) is RunRecorder
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(closed) == 1
