"""Run folders: made once, locked, never taken from anybody."""

import json
from pathlib import Path

import numpy as np
import pytest

from corruptions import corrupt
from robustdiff.config.layers import resolve
from robustdiff.runs import folder as module
from robustdiff.runs.folder import Run, create_run


def test_two_processes_do_not_train_one_run(tmp_path):
    run = Run(tmp_path)
    said = pytest.raises(OSError, match="in use by another process")
    with run.locked(), said, run.locked():
        pass
    with run.locked():
        pass


def test_a_resumed_run_remembers_its_new_length(tmp_path):
    run = Run(tmp_path)
    run.save_config(resolve({"train": {"steps": 5}}))
    run.save_config(resolve({"train": {"steps": 9}}))
    assert json.loads(run.config_file.read_text())["train"]["steps"] == 9
    assert run.config().train.steps == 9


class Stopped(module.datetime.datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 1, 2, 3, 4, 5)


def test_runs_that_start_in_the_same_second_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module.datetime, "datetime", Stopped)
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
