"""Evaluations killed, losses that turn to NaN, clocks that jump, runs that start together."""

import json
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from robustdiff.cli.app import main
from safetensors.torch import load_file

from corruptions import corrupt
from robustdiff import experiment, runs
from robustdiff.config import resolve
from robustdiff.rounds import RoundDone
from robustdiff.runs import create_run

TINY = [
    "--noise=0.3", "--curriculum=pmi", "--steps=12", "--precision=fp32",
    "--set=model.channels=[8]", "--set=model.time_size=8", "--set=train.batch_size=64",
    "--set=train.log_every=3", "--set=curriculum.warmup=0", "--set=curriculum.probes=1",
    "--set=sample.steps=1", "--set=sample.batch_size=8",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*words):
    try:
        main([str(word) for word in words])
    except SystemExit as left:
        return left.code
    return 0


def attempt(processes, words, seconds=None):
    """Run a command, and kill it after some seconds; return its exit code."""
    process = processes.Process(target=main, args=(words,))
    process.start()
    process.join(seconds)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    return process.exitcode


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [3, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_evaluation_leaves_the_run_and_its_earlier_result(processes, kills):
    assert call("train", *TINY, "--out=run") == 0
    words = ["eval", "run", "--num-samples=100"]
    # While the evaluator is trained; nothing is there yet.
    assert attempt(processes, words, 1.5) == -signal.SIGKILL
    assert not Path("run/metrics.json").exists()
    assert attempt(processes, words) == 0
    file, started = Path("run/metrics.json"), time.monotonic()
    result = file.read_text()
    assert attempt(processes, [*words, "--seed=1"]) == 0
    longest, other = time.monotonic() - started, file.read_text()
    assert other != result
    rng, met = random.Random(0), 0
    while met < kills:
        file.write_text(result)
        code = attempt(processes, [*words, "--seed=1"], longest * rng.random())
        met += code == -signal.SIGKILL
        # Killed after its end, it may have written the new one: whole.
        assert file.read_text() in ((result, other) if code else (other,))
    assert call("train", "--resume=run", "--steps=14") == 0


def outcome(run):
    """What must not depend on interruptions."""
    timing = ("images_per_second", "scoring_seconds")
    history = [
        {key: value for key, value in json.loads(line).items() if key not in timing}
        for line in (run / "metrics.jsonl").read_text().splitlines()
    ]
    return load_file(run / "model.safetensors"), history


@pytest.mark.parametrize("where", ["loss", "image", "weight"])
def test_a_nan_stops_training_and_the_last_checkpoint_is_good(where, monkeypatch, capsys):
    words = ["train", *TINY, "--checkpoint-every=3"]
    assert call(*words, "--out=straight") == 0
    real = experiment.train

    def poisoned(state, task):
        """Training as it is, but for one number after step 7."""
        from robustdiff import train as module

        step = module.train_step

        def once(state, task, batch, weights=None, **rest):
            if state.step == 7:
                x_0, labels, index = batch
                if where == "image":
                    x_0 = x_0.clone()
                    x_0[0, 0, 0, 0] = torch.nan
                if where == "loss":
                    weights = torch.full((len(x_0),), torch.nan)
                if where == "weight":
                    with torch.no_grad():
                        next(iter(state.model.parameters())).view(-1)[0] = torch.nan
                batch = (x_0, labels, index)
            return step(state, task, batch, weights, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(module, "train_step", once)
            yield from real(state, task)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", poisoned)
        assert call(*words, "--out=run") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("robustdiff: the loss is nan at step 8 (samples ")
    assert call("train", "--resume=run") == 0
    assert "resumed at step 6 of 12" in capsys.readouterr().err
    weights, history = outcome(Path("straight"))
    again, history_again = outcome(Path("run"))
    assert all((again[name] == weights[name]).all() for name in weights)
    assert history_again == history


@pytest.mark.parametrize("number", [1, 2])
def test_a_stop_right_after_a_round_keeps_its_line(number, monkeypatch):
    words = ["train", *TINY, "--set=curriculum.score_every=1", "--steps=40"]
    assert call(*words, "--out=straight") == 0
    real = experiment.train

    def stopped(state, task):
        for event in real(state, task):
            if isinstance(event, RoundDone) and event.number == number:
                os.kill(os.getpid(), signal.SIGTERM)
            yield event

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", stopped)
        assert call(*words, "--out=run") == 143
    assert call("train", "--resume=run") == 0
    weights, history = outcome(Path("straight"))
    again, history_again = outcome(Path("run"))
    assert all((again[name] == weights[name]).all() for name in weights)
    assert [entry for entry in history_again if "round" in entry] == [
        entry for entry in history if "round" in entry
    ]


@pytest.mark.parametrize("jump", [-1e8, 1e8])
def test_a_clock_that_jumps_moves_no_checkpoint(jump, monkeypatch):
    """Minutes between checkpoints are counted by a clock that nobody sets."""
    saved, clock = [], time.time

    def note(folder, state, step):
        saved.append(step)
        jumped = clock() + jump * len(saved)
        monkeypatch.setattr(time, "time", lambda: jumped)

    monkeypatch.setattr(experiment, "save_checkpoint", note)
    assert call("train", *TINY, "--checkpoint-every=4", "--checkpoint-minutes=60", "--out=run") == 0
    assert saved == [4, 8, 12]


def test_checkpoints_come_by_the_minute(monkeypatch):
    minutes, saved, start = iter(range(1000)), [], time.monotonic()
    monkeypatch.setattr(
        experiment, "save_checkpoint", lambda folder, state, step: saved.append(step)
    )
    monkeypatch.setattr(experiment.time, "monotonic", lambda: start + 60.0 * next(minutes))
    assert call("train", *TINY, "--checkpoint-minutes=2", "--out=run") == 0
    assert len(saved) > 3


class Stopped(runs.datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def test_runs_that_start_in_the_same_second_have_their_own_folders(monkeypatch):
    monkeypatch.setattr(runs.datetime, "datetime", Stopped)
    config, labels = resolve(), corrupt(np.arange(20) % 2, num_classes=2)
    made = [create_run(None, config, labels).path.name for _ in range(3)]
    assert made[0] == "20260102-030405-digits-clean-uniform-s0"
    assert made[1:] == [f"{made[0]}-2", f"{made[0]}-3"]


def test_one_of_two_that_want_the_same_folder_gets_it(tmp_path):
    config, labels = resolve(), corrupt(np.arange(20) % 2, num_classes=2)
    (tmp_path / "run" / "samples").mkdir(parents=True)  # as another process would have made it
    with pytest.raises(ValueError, match="already exists"):
        create_run(tmp_path / "run", config, labels)
    assert not (tmp_path / "run" / "config.json").exists()
    (tmp_path / "empty").mkdir()
    assert create_run(tmp_path / "empty", config, labels).config() == config
