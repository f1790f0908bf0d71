import json
from pathlib import Path

import pytest

from robustdiff import study as module
from robustdiff.errors import DivergedError, InterruptedRunError
from robustdiff.progress import Silent
from robustdiff.study import read_study, run_study

STUDY = """
preset = "digits"
seeds = [0, 1]
[base.train]
steps = 3
[noise.clean]
methods = ["uniform"]
[noise.symmetric-30]
rate = 0.3
[method.uniform]
[method.soft.curriculum]
name = "margin"
treatment = "soft"
"""


def write(folder, text):
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_study_is_the_grid_of_its_sections(tmp_path):
    cells = read_study(write(tmp_path, STUDY), data_dir=Path("elsewhere"))
    assert [str(cell.path) for cell in cells] == [
        f"{folder}/s{seed}"
        for seed in (0, 1)
        for folder in ("clean/uniform", "symmetric-30/uniform", "symmetric-30/soft")
    ]
    last = cells[-1].config
    assert (last.seed, last.noise.rate, last.train.steps) == (1, 0.3, 3)
    assert (last.curriculum.name, last.curriculum.treatment) == ("margin", "soft")
    assert last.data.data_dir == "elsewhere"
    assert cells[0].config.noise.rate == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("seeds", "seed"), "unknown study key 'seed'; did you mean 'seeds'"),
        (("[noise.", "[[noise."), "is not valid"),
        (("[0, 1]", "[]"), "seeds of a study must not be empty"),
        (("[0, 1]", '"0"'), "seeds: Input should be a valid list, got '0'"),
        (('["uniform"]', '["unifrm"]'), "unknown method of noise 'clean' 'unifrm'"),
        (("rate = 0.3", "rate = 3"), "noise.rate must be in"),
        (("[noise.clean]", '[noise."../clean"]'), "names in a study become folders"),
        (
            ("[noise.clean]", "[noise]\nclean = 3\n[noise.other]"),
            "noise.clean: Input should be a valid dictionary",
        ),
        (('"digits"', '"digit"'), "unknown preset 'digit'"),
    ],
)
def test_what_is_wrong_in_a_study_is_named(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_study(write(tmp_path, STUDY.replace(*change)))


def test_a_missing_study_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read config file .*none\.toml"):
        read_study(tmp_path / "none.toml")


@pytest.fixture
def calls(monkeypatch):
    """Stand in for training and evaluation; they take minutes."""
    seen = []

    def start(config, path, report):
        seen.append(("start", path.parent.name, path.name))
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")

    def resume(run, config, report):
        seen.append(("resume", run.path.parent.name, run.path.name))

    def evaluate(run, config, report, *, seed, inception_weights, evaluators):
        (run.path / "metrics.json").write_text(json.dumps({"seed": seed}))

    monkeypatch.setattr(module, "start_run", start)
    monkeypatch.setattr(module, "resume_run", resume)
    monkeypatch.setattr(module, "evaluate_run", evaluate)
    monkeypatch.setattr(module.Run, "config", lambda run: None)
    return seen


def test_what_is_done_is_skipped_and_what_was_stopped_is_resumed(calls, tmp_path):
    cells = read_study(write(tmp_path, STUDY))
    done, stopped = tmp_path / cells[0].path, tmp_path / cells[1].path
    for folder in (done, stopped):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
    (done / "metrics.json").write_text("{}")
    assert run_study(cells, tmp_path, Silent()) == []
    assert calls[0] == ("resume", "uniform", "s0")
    assert [call[0] for call in calls[1:]] == ["start"] * 4
    calls.clear()
    assert run_study(cells, tmp_path, Silent()) == []
    assert calls == []


def test_a_failed_run_is_reported_and_the_others_are_made(calls, monkeypatch, tmp_path):
    start = module.start_run

    def diverge(config, path, report):
        if path.parent.name == "soft":
            raise DivergedError("the loss is nan")
        start(config, path, report)

    monkeypatch.setattr(module, "start_run", diverge)
    failed = run_study(read_study(write(tmp_path, STUDY)), tmp_path, Silent())
    assert failed == [f"symmetric-30/soft/s{seed}: the loss is nan" for seed in (0, 1)]
    assert len(calls) == 4


def test_a_signal_ends_the_study(calls, monkeypatch, tmp_path):
    def stop(config, path, report):
        raise InterruptedRunError("stopped", 15)

    monkeypatch.setattr(module, "start_run", stop)
    with pytest.raises(InterruptedRunError):
        run_study(read_study(write(tmp_path, STUDY)), tmp_path, Silent())
