"""Evaluations killed, losses that turn to NaN, clocks that jump, runs that start together."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from corruptions import corrupt
from robustdiff.cli.app import main
from robustdiff.config.sections import resolve
from robustdiff.data import arrays as data
from robustdiff.jobs import evaluate
from robustdiff.jobs import sample as samples
from robustdiff.jobs import train as experiment
from robustdiff.runs import folder as runs
from robustdiff.runs.folder import Run, create_run
from robustdiff.training.rounds import RoundDone

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
    words = ["train", *TINY, "--checkpoint-every=3"]
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
    (tmp_path / "run").mkdir()
    # As long as the other process makes it, and after that.
    with Run(tmp_path / "run").locked(), pytest.raises(OSError, match="another process"):
        create_run(tmp_path / "run", config, labels)
    assert not (tmp_path / "run" / "config.json").exists()
    assert create_run(tmp_path / "run", config, labels).config() == config
    with pytest.raises(ValueError, match="already exists"):
        create_run(tmp_path / "run", config, labels)
    (tmp_path / "empty").mkdir()
    assert create_run(tmp_path / "empty", config, labels).config() == config


class Killed(BaseException):
    """Ends a function where a signal would end the process."""


@pytest.mark.parametrize("where", ["lock", "labels", "config"])
def test_a_folder_left_by_a_process_that_was_killed_while_making_it_is_used(
    tmp_path, where, monkeypatch
):
    config, labels = resolve(), corrupt(np.arange(20) % 2, num_classes=2)

    def killed(*_):
        raise Killed

    owner, name = {
        "lock": (Path, "iterdir"),
        "labels": (type(labels), "save"),
        "config": (Run, "save_config"),
    }[where]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killed)
        with pytest.raises(Killed):
            create_run(folder, config, labels)
    (folder / ".config.json.1.tmp").write_text("{")
    run = create_run(folder, config, labels)
    assert run.config() == config
    assert not list(folder.glob("*.tmp"))


@pytest.mark.parametrize("name", ["labels.npz", "samples/mine.png", ".lock/file", "notes"])
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, name):
    config, labels = resolve(), corrupt(np.arange(20) % 2, num_classes=2)
    file = tmp_path / "run" / name
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(ValueError, match="already exists"):
        create_run(tmp_path / "run", config, labels)
    assert file.read_text() == "mine"


def test_a_run_goes_on_with_its_own_images_alone(tmp_path, capsys):
    """The same names of files, other pictures in them."""
    words = ["--dataset=folder", "--image-size=8", *TINY, "--noise=0", "--curriculum=uniform"]

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
    assert "the training images are not those that run run began with" in said
    Path("run/images.sha256").unlink()  # as of an earlier version
    assert call("train", "--resume=run", "--data-dir=data", "--steps=14") == 0


def test_a_digest_of_many_images_reads_a_part_of_them(monkeypatch):
    images = torch.arange(40, dtype=torch.uint8).view(10, 1, 2, 2)
    other = images.clone()
    other[3] = 0
    assert data.images_digest(images) != data.images_digest(other)
    assert data.images_digest(images) != data.images_digest(images.view(10, 1, 4, 1))
    monkeypatch.setattr(data, "_DIGESTED", 20)  # every other image
    assert data.images_digest(images) == data.images_digest(other)


def test_half_written_files_of_a_killed_process_go_when_the_run_goes_on():
    assert call("train", *TINY, "--out=run") == 0
    left = ["checkpoints/.step-00000012.pt.7.tmp", ".model.safetensors.7.tmp"]
    others = [".metrics.json.7.tmp", ".sweep-guidance.csv.7.tmp"]  # may be being written
    for name in (*left, *others):
        Path("run", name).write_bytes(b"half")
    assert call("train", "--resume=run", "--steps=13") == 0
    assert {str(path.relative_to("run")) for path in Path("run").rglob("*.tmp")} == set(others)


def test_a_full_disk_at_a_logged_step_ends_in_one_line_and_loses_nothing(monkeypatch, capsys):
    words = ["train", *TINY, "--checkpoint-every=3"]
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
    assert call("train", *TINY, "--out=run") == 0
    Path("run/metrics.jsonl").unlink()
    os.mkfifo("run/metrics.jsonl")
    assert call("train", "--resume=run", "--steps=13") == 1
    assert "metrics.jsonl is not a file" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("words", "owner", "name"),
    [
        (["train", *TINY, "--out=new"], experiment, "new_state"),
        (["sample", "run", "--per-class=1"], samples, "generate"),
        (["eval", "run", "--num-samples=40"], evaluate, "measure"),
        (["sample", "run", "--per-class=1"], np, "savez"),
    ],
    ids=["before training", "sampling", "judging", "writing"],
)
def test_a_stop_outside_of_training_is_one_line(words, owner, name, number, monkeypatch, capsys):
    assert call("train", *TINY, "--out=run") == 0
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
