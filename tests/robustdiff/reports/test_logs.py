"""The logs of a run: each holds what the history holds, however often the run was killed."""

import importlib.util
import json
import os
import subprocess
import sys
import time

import logs
import pytest
from commands import TINY, call

from robustdiff.jobs.recorder import RunRecorder
from robustdiff.reports.tensorboard import TensorBoard
from robustdiff.training.loop import StepDone
from robustdiff.training.rounds import RoundDone

WORDS = [
    *TINY, "--noise=0.3", "--curriculum=pmi", "--precision=fp32", "--steps=12",
    "--set=data.train_size=160", "--set=train.batch_size=40", "--set=train.log_every=2",
    "--set=train.sample_every=4", "--set=curriculum.warmup=1", "--checkpoint-every=4",
]  # fmt: skip
# Checkpoints are made after steps 4, 8 and 12; a scoring round follows that of step 4.
KILLED_AFTER = [(RoundDone, 4), (StepDone, 6), (StepDone, 11)]


class Killed(BaseException):
    """What ends a run without a checkpoint."""


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "mlruns"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


def kill_after(monkeypatch, kind, step):
    record = RunRecorder.record

    def record_and_die(recorder, event):
        record(recorder, event)
        if isinstance(event, kind) and event.step == step:
            raise Killed

    monkeypatch.setattr(RunRecorder, "record", record_and_die)


def train_with_kills(run, words, monkeypatch):
    command = ["train", *words, f"--out={run}"]
    for kind, step in KILLED_AFTER:
        with monkeypatch.context() as patch:
            kill_after(patch, kind, step)
            with pytest.raises(Killed):
                call(*command)
        command = ["train", f"--resume={run}"]
    assert call(*command) == 0


def test_killed_and_resumed_logs_what_an_uninterrupted_run_logs(tmp_path, monkeypatch):
    trackers = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name)]
    names = ["csv", "tensorboard", *trackers]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    assert call("train", *WORDS, "--log=csv", "--log=tensorboard", f"--out={straight}") == 0
    train_with_kills(killed, [*WORDS, *(f"--log={name}" for name in names)], monkeypatch)
    for log in (logs.history, logs.table, logs.tensorboard):
        assert log(killed) == log(straight)
    assert logs.table(killed) == logs.history(killed)
    assert [step for step, _ in logs.history(killed)["loss"]] == [2, 4, 6, 8, 10, 12]
    for name in trackers:
        held, grids = getattr(logs, name)(killed)
        assert {key.rpartition("/")[2]: held[key] for key in held} == logs.history(killed)
        assert grids == [4, 8, 12]


@pytest.mark.slow
def test_the_logs_of_a_run_whose_process_was_killed_are_complete(tmp_path):
    trackers = [name for name in ("wandb", "mlflow") if importlib.util.find_spec(name)]
    named = [f"--log={name}" for name in ("csv", "tensorboard", *trackers)]
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    words = [*WORDS, "--steps=400", "--checkpoint-every=20"]
    assert call("train", *words, *named[:2], f"--out={straight}") == 0
    command = [*words, *named, f"--out={killed}"]
    for step in (30, 142, 144, 210, 399):
        process = subprocess.Popen([sys.executable, "-m", "robustdiff", "train", *command])
        while process.poll() is None and last_step(killed) < step:
            time.sleep(0.01)
        process.kill()
        process.wait()
        command = [f"--resume={killed}"]
    assert call("train", *command) == 0
    for log in (logs.history, logs.table, logs.tensorboard):
        assert log(killed) == log(straight)
    for name in trackers:
        held, grids = getattr(logs, name)(killed)
        if name == "wandb":  # at least once, see docs/logging.md
            held = {key: sorted(set(points)) for key, points in held.items()}
            grids = sorted(set(grids))
        assert {key.rpartition("/")[2]: held[key] for key in held} == logs.history(killed)
        assert grids == list(range(4, 401, 4))


def test_a_run_needs_no_wandb_of_the_program_that_started_it(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    run = tmp_path / "run"
    monkeypatch.setenv("WANDB_SERVICE", f"3-{os.getpid()}-unix-{tmp_path / 'gone'}")
    command = [sys.executable, "-m", "robustdiff", "train", *WORDS, "--log=wandb"]
    assert subprocess.run([*command, f"--out={run}"], check=False).returncode == 0
    held, _ = logs.wandb(run)
    assert {key.rpartition("/")[2]: held[key] for key in held} == logs.history(run)


def test_whatever_wandb_cannot_do_ends_in_one_line(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")

    def refuse(**settings):
        raise RuntimeError("run ID 1 is in use")

    monkeypatch.setattr(wandb, "init", refuse)
    assert call("train", *WORDS, "--log=wandb", f"--out={tmp_path / 'run'}") == 1
    assert capsys.readouterr().err.endswith("robustdiff: wandb cannot log: run ID 1 is in use\n")


def last_step(run):
    file = run / "metrics.jsonl"
    whole = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return json.loads(whole.splitlines()[-1])["step"] if whole else 0


def test_a_log_that_is_named_later_begins_at_the_first_step(tmp_path):
    run = tmp_path / "run"
    assert call("train", *WORDS, "--steps=4", "--log=jsonl", f"--out={run}") == 0
    assert not (run / "metrics.csv").exists()
    assert call("train", f"--resume={run}", "--steps=8", "--log=csv") == 0
    assert logs.table(run) == logs.history(run)
    assert json.loads((run / "config.json").read_text())["train"]["log"] == ["csv"]


@pytest.mark.parametrize(("name", "package"), [("wandb", "wandb"), ("mlflow", "mlflow")])
def test_a_missing_package_is_named_before_the_work(tmp_path, monkeypatch, capsys, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    for words in ([f"--out={tmp_path / 'run'}"], ["--dry-run"]):
        assert call("train", *WORDS, f"--log={name}", *words) == 2
        assert capsys.readouterr().err == (
            f"robustdiff: log {name!r} needs the package {package}; "
            f"get it with: pip install 'robustdiff[{name}]'\n"
        )
    assert not (tmp_path / "run").exists()


def test_wandb_without_a_login_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "login", lambda *, prompt: prompt)
    wandb.teardown()
    assert call("train", *WORDS, "--log=wandb", f"--out={tmp_path / 'run'}") == 2
    wandb.teardown()
    assert "WANDB_MODE=offline" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_store_that_does_not_answer_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert call("train", *WORDS, "--log=mlflow", f"--out={tmp_path / 'run'}") == 2
    said = capsys.readouterr().err
    assert "cannot use http://127.0.0.1:9: " in said
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_an_unknown_log_is_refused(capsys):
    assert call("train", "--log=tb") == 2
    assert "'csv', 'jsonl', 'tensorboard', 'wandb' or 'mlflow', got 'tb'" in capsys.readouterr().err


def test_event_files_sort_by_the_time_they_were_begun(tmp_path):
    for _ in range(2):  # within a second
        TensorBoard(tmp_path, dropped_from=0).writer.close()
    seconds = [path.name.split(".")[3] for path in tmp_path.iterdir()]
    assert len(set(seconds)) == 2
