"""Evaluations killed, losses that turn to NaN, clocks that jump, full disks, stops anywhere."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import TINY, attempt, call, outcome
from PIL import Image

from robustdiff.jobs import checkpoints, evaluate
from robustdiff.jobs import sample as samples
from robustdiff.jobs import train as experiment
from robustdiff.runs.folder import Run
from robustdiff.training.rounds import RoundDone

WORDS = [
    *TINY, "--noise=0.3", "--curriculum=pmi", "--steps=12", "--precision=fp32",
    "--set=train.batch_size=64", "--set=train.log_every=3",
    "--set=sample.steps=1", "--set=sample.batch_size=8",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.timeout(1800)
@pytest.mark.slow
def test_a_killed_evaluation_leaves_the_run_and_its_earlier_result(processes):
    assert call("train", *WORDS, "--out=run") == 0
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
    while met < 50:
        file.write_text(result)
        code = attempt(processes, [*words, "--seed=1"], longest * rng.random())
        met += code == -signal.SIGKILL
        # Killed after its end, it may have written the new one: whole.
        assert file.read_text() in ((result, other) if code else (other,))
    assert call("train", "--resume=run", "--steps=14") == 0


def spoil(where, state, batch, weights):
    """Put a NaN, or an infinite gradient, where a step meets it; return batch and weights."""
    x_0, labels, index = batch
    first = next(iter(state.model.parameters()))
    if where == "image":
        x_0 = x_0.clone()
        x_0[0, 0, 0, 0] = torch.nan
    if where == "loss":
        weights = torch.full((len(x_0),), torch.nan)
    if where == "weight":
        with torch.no_grad():
            first.view(-1)[0] = torch.nan
    if where == "gradient":
        first.register_hook(lambda gradient: gradient * torch.inf)
    return (x_0, labels, index), weights


# The loss of the step whose gradient overflows is fine, and a checkpoint follows it at once.
@pytest.mark.parametrize(
    ("where", "step", "said"),
    [
        *((where, 7, "loss is nan at step 8 (samples ") for where in ("loss", "image", "weight")),
        ("gradient", 8, "weights are not finite at step 9; lower train.lr, now "),
    ],
)
def test_a_nan_stops_training_and_the_last_checkpoint_is_good(
    where, step, said, monkeypatch, capsys
):
    words = ["train", *WORDS, "--checkpoint-every=3"]
    assert call(*words, "--out=straight") == 0
    real = experiment.train

    def poisoned(state, task):
        """Training as it is, but for one number."""
        from robustdiff.training import loop as module

        make_step = module.train_step

        def once(state, task, batch, weights=None, **rest):
            if state.step == step:
                batch, weights = spoil(where, state, batch, weights)
            make_step(state, task, batch, weights, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(module, "train_step", once)
            yield from real(state, task)

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "train", poisoned)
        assert call(*words, "--out=run") == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"robustdiff: the {said}")
    assert call("train", "--resume=run") == 0
    assert "resumed at step 6 of 12" in capsys.readouterr().err
    weights, history = outcome(Path("straight"))
    again, history_again = outcome(Path("run"))
    assert all((again[name] == weights[name]).all() for name in weights)
    assert history_again == history


@pytest.mark.parametrize("number", [1, 2])
def test_a_stop_right_after_a_round_keeps_its_line(number, monkeypatch):
    words = ["train", *WORDS, "--set=curriculum.score_every=1", "--steps=40"]
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

    def note(folder, state, step, **_):
        saved.append(step)
        jumped = clock() + jump * len(saved)
        monkeypatch.setattr(time, "time", lambda: jumped)

    monkeypatch.setattr(checkpoints, "save_checkpoint", note)
    assert (
        call("train", *WORDS, "--checkpoint-every=4", "--checkpoint-minutes=60", "--out=run") == 0
    )
    assert saved == [4, 8, 12]


def test_checkpoints_come_by_the_minute(monkeypatch):
    minutes, saved, start = iter(range(1000)), [], time.monotonic()
    monkeypatch.setattr(
        checkpoints, "save_checkpoint", lambda folder, state, step, **_: saved.append(step)
    )
    monkeypatch.setattr(experiment.time, "monotonic", lambda: start + 60.0 * next(minutes))
    assert call("train", *WORDS, "--checkpoint-minutes=2", "--out=run") == 0
    assert len(saved) > 3


def test_a_run_goes_on_with_its_own_images_alone(tmp_path, capsys):
    """The same names of files, other pictures in them."""
    words = ["--dataset=folder", "--image-size=8", *WORDS, "--noise=0", "--curriculum=uniform"]

    def draw(shade):
        for number in range(24):
            folder = tmp_path / "data" / "ab"[number % 2]
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), shade + number).save(folder / f"{number}.png")

    draw(0)
    assert call("train", *words, "--data-dir=data", "--out=run") == 0
    shutil.move("data", "moved")
    assert call("train", "--resume=run", "--data-dir=moved", "--steps=13") == 0
    draw(100)
    shutil.rmtree("moved")
    capsys.readouterr()
    assert call("train", "--resume=run", "--data-dir=data", "--steps=14") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "20 images of data have changed: a/" in said
    assert "run run cannot go on without them as they were" in said
    draw(0)
    assert call("train", "--resume=run", "--data-dir=data", "--steps=14") == 0


def test_half_written_files_of_a_killed_process_go_when_the_run_goes_on():
    assert call("train", *WORDS, "--out=run") == 0
    left = ["checkpoints/.step-00000012.pt.7.tmp", "checkpoints/.scores-00000001.pt.7.tmp"]
    left += [".model.safetensors.7.tmp"]
    others = [".metrics.json.7.tmp", ".sweep-guidance.csv.7.tmp"]  # may be being written
    for name in (*left, *others):
        Path("run", name).write_bytes(b"half")
    assert call("train", "--resume=run", "--steps=13") == 0
    assert {str(path.relative_to("run")) for path in Path("run").rglob("*.tmp")} == set(others)


def test_a_full_disk_at_a_logged_step_ends_in_one_line_and_loses_nothing(monkeypatch, capsys):
    words = ["train", *WORDS, "--checkpoint-every=3"]
    assert call(*words, "--out=straight") == 0
    with monkeypatch.context() as patch:
        # Takes no byte; training logs step 3 before it saves it.
        patch.setattr(Run, "history_file", Path("/dev/full"))
        assert call(*words, "--out=run") == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "robustdiff: [Errno 28] No space left on device: '/dev/full'"
    assert call("train", "--resume=run") == 0
    weights, history = outcome(Path("straight"))
    again, history_again = outcome(Path("run"))
    assert all((again[name] == weights[name]).all() for name in weights)
    assert history_again == history


def test_a_log_that_is_no_file_is_refused(capsys):
    assert call("train", *WORDS, "--out=run") == 0
    Path("run/metrics.jsonl").unlink()
    os.mkfifo("run/metrics.jsonl")
    assert call("train", "--resume=run", "--steps=13") == 1
    assert "metrics.jsonl is not a file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "owner", "name"),
    [
        (["train", *WORDS, "--out=new"], experiment, "new_state"),
        (["sample", "run", "--per-class=1"], samples, "generate"),
        (["eval", "run", "--num-samples=40"], evaluate, "measure"),
        (["sample", "run", "--per-class=1"], np, "savez"),
    ],
    ids=["before training", "sampling", "judging", "writing"],
)
def test_a_stop_outside_of_training_is_one_line(words, owner, name, number, monkeypatch, capsys):
    assert call("train", *WORDS, "--out=run") == 0
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}

    def stopped(*rest, **named):
        os.kill(os.getpid(), number)

    monkeypatch.setattr(owner, name, stopped)
    capsys.readouterr()
    assert call(*words) == 128 + number
    assert capsys.readouterr().err.splitlines()[-1] == "robustdiff: stopped"
    after = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    # The judge, once trained, is kept.
    new = {path for path in after.keys() - before.keys() if path.parts[0] != "evaluators"}
    assert not new
    assert all(after[path] == changed for path, changed in before.items())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
