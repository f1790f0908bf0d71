"""Run folders: locked, and they remember what they are told."""

import json

import pytest

from robustdiff.config.layers import resolve
from robustdiff.runs.folder import Run


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
