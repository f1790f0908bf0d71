"""New run folders: made once, never taken from anybody, and refused before any work."""

from pathlib import Path

import numpy as np
import pytest

from corruptions import corrupt
from robustdiff import api
from robustdiff.config.layers import resolve
from robustdiff.data import registry
from robustdiff.errors import TakenError
from robustdiff.runs import making as module
from robustdiff.runs.folder import Run
from robustdiff.runs.making import create_run


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


@pytest.mark.parametrize("call", [api.train, api.audit_images])
@pytest.mark.parametrize("place", ["a file", "below a file", "a folder in use", "a name"])
def test_a_place_that_cannot_be_had_is_refused_before_images_are_read(
    tmp_path, monkeypatch, call, place
):
    def read(*_):
        raise AssertionError("images were read")

    monkeypatch.setitem(registry.DATASETS, "digits", read)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("mine")
    out, words = {
        "a file": (tmp_path / "file", "is no folder"),
        "below a file": (tmp_path / "file" / "run", "is no folder"),
        "a folder in use": (tmp_path / "folder", "already exists; choose another --out$"),
        "a name": (tmp_path / "\udcff", "UTF-8"),
    }[place]
    with pytest.raises(ValueError, match=words):
        call(settings={"data.dataset": "digits"}, out=out)
    assert (tmp_path / "file").read_text() == (tmp_path / "folder" / "notes").read_text() == "mine"


def test_only_a_run_is_offered_to_be_continued(tmp_path):
    labels = corrupt(np.arange(20) % 2, num_classes=2)
    path = create_run(tmp_path / "run", resolve(), labels).path
    with pytest.raises(TakenError, match="or continue it with --resume"):
        api.train("digits", out=path)
