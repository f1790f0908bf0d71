"""One run evaluated again and again: no evaluation hides another."""

import dataclasses
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from robustdiff.cli.eval import _print_table

from curricula import Trust
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.config.sections import SampleConfig
from robustdiff.errors import DamagedError
from robustdiff.jobs import evaluate as module
from robustdiff.jobs import sweep
from robustdiff.jobs.evaluate import classes_to_make, evaluate_run
from robustdiff.jobs.sample import write_samples
from robustdiff.jobs.study import standing
from robustdiff.jobs.train import dry_run, resume_run, start_run
from robustdiff.metrics import cas, evaluator
from robustdiff.metrics.catalogue import evaluator_in_words
from robustdiff.progress import Report
from robustdiff.reports.compare import ABOVE, GAP, compare_runs, find_runs, markdown
from robustdiff.runs.evaluations import evaluations, has_evaluation
from robustdiff.runs.folder import Run
from robustdiff.runs.scores import save_scores
from robustdiff.training.task import build_network

TINY = {
    "noise": {"rate": 0.3},
    "model": {"channels": [8], "time_size": 8},
    "train": {"steps": 2, "batch_size": 32},
    "sample": {"steps": 2, "sampler": "edm"},
    "eval": {"num_samples": 20},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    for name, steps in (("run", 2), ("weak", 1)):
        start_run(resolve(TINY, {"train": {"steps": steps}}), folder / name, Report())
    judged(Run(folder / "run"), 0.3)
    return folder


def judged(run, rate):
    """Leave an estimate of symmetric noise, as an audit does."""
    right = np.full(len(run.labels().given), 1 - rate)
    matrix = np.full((10, 10), rate / 9) + (1 - rate * 10 / 9) * np.eye(10)
    trust = Trust(right, rate, transition=matrix)
    save_scores(run, right, trust, right > 0.5, anew=True)


@pytest.fixture
def runs(trained, tmp_path):
    """A run, and one that trained less and guides it; neither has been evaluated."""
    shutil.copytree(trained, tmp_path / "runs")
    return [Run(tmp_path / "runs" / name) for name in ("run", "weak")]


@pytest.fixture(autouse=True)
def _short_evaluator(monkeypatch):
    for of in (evaluator, cas):
        monkeypatch.setattr(of, "_SEEN", {False: 2000, True: 2000})


def ways(weak):
    return {
        "plain": {},
        "guidance_interval=[0.2, 0.8]": {"guidance_interval": (0.2, 0.8)},
        "guidance_rescale=0.5": {"guidance_rescale": 0.5},
        "spacing=even": {"spacing": "even"},
        "eta=1.0": {"sampler": "ddim", "eta": 1.0},
        "churn=3.0": {"churn": 3.0},
        "guidance_outside=given": {"guidance_outside": "given"},
        "guidance_every=2": {"guidance_every": 2},
        "weak=": {"guidance": "auto", "weak": str(weak.path)},
        "undo_label_noise=true": {"undo_label_noise": True},
    }


def test_every_way_of_sampling_is_a_row_is_seen_by_a_study_and_told_apart_by_a_sweep(runs):
    run, weak = runs
    configs = {name: resolve(TINY, {"sample": way}) for name, way in ways(weak).items()}
    for config in configs.values():
        assert standing(run, config) == "to resume"
        evaluate_run(run, config, Report(), seed=0)
        assert standing(run, config) == "done"
    assert all(has_evaluation(run, config) for config in configs.values())
    rows = compare_runs(find_runs([run.path]))
    assert len(rows) == len(configs)
    for name in configs.keys() - {"plain"}:
        assert sum(f"sample.{name}" in row.method for row in rows) >= 1, name
    keys = [sweep._key(run, config, 0, 20, "e" * 64) for config in configs.values()]
    assert len({json.dumps(key) for key in keys}) == len(configs)


def test_an_estimate_of_other_noise_undoes_other_noise(runs):
    run, weak = runs
    config = resolve(TINY, {"sample": {"undo_label_noise": True}})
    one = evaluate_run(run, config, Report(), seed=0)
    assert has_evaluation(run, config)
    judged(run, 0.2)
    assert not has_evaluation(run, config)
    other = evaluate_run(run, config, Report(), seed=0)
    assert other["fid"] != one["fid"]
    assert [found.metrics["fid"] for found in evaluations(run)] == [other["fid"]]
    assert len(list(run.path.glob("time_classifier-*.safetensors"))) == 1
    assert "the noise of the labels was undone" in (run.path / "README.md").read_text()
    for job in (evaluate_run, write_samples):
        wanted = {"seed": 0} if job is evaluate_run else {"folder": weak.path / "x", "wanted": None}
        with pytest.raises(ValueError, match=r"`robustdiff audit .*weak --by crossfit` makes one"):
            job(weak, config, Report(), **wanted)
        judged(weak, 0.9)  # all classes get the same labels
        with pytest.raises(ValueError, match="some classes get nearly the same labels"):
            job(weak, config, Report(), **wanted)
        weak.judged_file.unlink()
    assert not (weak.path / "x").exists()


def test_undone_noise_is_a_method_beside_plain_training(runs, tmp_path):
    run, _ = runs
    clean = resolve(TINY, {"noise": {"rate": 0.0}})
    start_run(clean, tmp_path / "runs" / "clean", Report())
    undone = resolve(TINY, {"sample": {"undo_label_noise": True}})
    for which, config in ((Run(tmp_path / "runs" / "clean"), clean), (run, resolve(TINY))):
        evaluate_run(which, config, Report(), seed=0)
    evaluate_run(run, undone, Report(), seed=0)
    rows = {row.method: row for row in compare_runs(find_runs([tmp_path / "runs"]))}
    plain = rows["uniform sample.undo_label_noise=false"]
    method = rows["uniform sample.undo_label_noise=true"]
    assert plain.values[GAP] == [0.0]
    assert len(method.values[GAP]) == len(method.values[ABOVE]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curriculum": {"name": "pmi"}}, "got 'plain' and 'pmi'"),
        ({"sample": {"guidance": "classifier"}}, "goes with sample.guidance = 'classifier-free'"),
        ({"diffusion": {"p_uncond": 0.0}}, "takes the estimate without a label"),
    ],
)
def test_noise_is_undone_where_it_is_there_and_can_be(change, message):
    with pytest.raises(ValueError, match=message):
        resolve(TINY, {"sample": {"undo_label_noise": True}}, change)


def test_a_damaged_estimate_matters_to_those_alone_who_use_it(runs):
    run, _ = runs
    run.judged_file.write_bytes(b"junk")
    evaluate_run(run, resolve(TINY), Report(), seed=0)
    with pytest.raises(DamagedError, match=r"judged\.npz is damaged"):
        evaluate_run(run, resolve(TINY, {"sample": {"undo_label_noise": True}}), Report(), seed=0)


def test_a_run_that_was_stopped_is_no_repetition_of_one_that_was_not(runs, tmp_path):
    run, _ = runs
    evaluate_run(run, resolve(TINY), Report(), seed=0)
    shutil.copytree(run.path, tmp_path / "stopped")
    stopped, said, longer = Run(tmp_path / "stopped"), [], resolve(TINY, {"train": {"steps": 3}})
    stopped.save_config(longer)
    report = Report()
    report.message = said.append
    evaluators = run.path.parent / "evaluators"
    metrics = evaluate_run(stopped, longer, report, seed=0, evaluators=evaluators)
    assert (metrics["trained_steps"], metrics["planned_steps"]) == (2, 3)
    assert any("stopped is evaluated after 2 of its 3 steps" in line for line in said)
    whole = start_run(longer, tmp_path / "whole", Report())
    evaluate_run(whole, longer, Report(), seed=0, evaluators=evaluators)
    rows = compare_runs(find_runs([stopped.path, whole.path]))
    assert len(rows) == 2
    assert {"steps made=2" in row.method for row in rows} == {True, False}


def test_a_run_of_a_study_is_evaluated_with_the_evaluators_of_the_study(runs, tmp_path):
    run, _ = runs
    study = tmp_path / "study"
    shutil.copytree(run.path, study / "clean" / "uniform" / "s0")
    (study / "evaluators").mkdir()
    evaluate_run(Run(study / "clean" / "uniform" / "s0"), resolve(TINY), Report(), seed=0)
    assert list((study / "evaluators").iterdir())
    assert not (study / "clean" / "uniform" / "evaluators").exists()


def test_training_does_not_undo_what_no_audit_has_seen(tmp_path):
    config = resolve(TINY, {"sample": {"undo_label_noise": True}})
    with pytest.raises(ValueError, match="give it to eval, sample or sweep, not to training"):
        start_run(config, tmp_path / "run", Report())
    with pytest.raises(ValueError, match="give it to eval, sample or sweep, not to training"):
        dry_run(config, Report())
    assert not (tmp_path / "run").exists()


def test_an_evaluation_replaces_its_like_and_those_of_other_weights(runs):
    run, _ = runs
    one, other = resolve(TINY), resolve(TINY, {"sample": {"steps": 3}})
    for config in (one, other, one):
        evaluate_run(run, config, Report(), seed=0)
    assert json.loads(run.metrics_file.read_text())["sample"]["steps"] == 2
    assert [found.metrics["sample"]["steps"] for found in evaluations(run)] == [3, 2]
    run.save_weights(build_network(one.model, (1, 8, 8), 10, 99))
    assert not has_evaluation(run, one)
    evaluate_run(run, one, Report(), seed=0)
    assert [found.path for found in evaluations(run)] == [run.metrics_file]


def test_the_card_holds_the_newest_evaluation_and_how_far_its_evaluator_is_to_be_trusted(runs):
    run, _ = runs
    card = run.path / "README.md"
    trained = card.read_text()
    for steps in (2, 3):
        metrics = evaluate_run(run, resolve(TINY, {"sample": {"steps": steps}}), Report(), seed=0)
    assert metrics["evaluator_corrected"] is None
    words = evaluator_in_words(metrics["label_accuracy_real"], None)
    before, heading, evaluation = card.read_text().partition("\n## Evaluation\n")
    assert before == trained
    assert heading
    low, high = metrics["label_accuracy_interval"]
    words_of_it = f"{metrics['label_accuracy']:.3f} ({low:.3f} to {high:.3f}), real images"
    assert f"- label accuracy: {words_of_it}" in evaluation
    assert evaluation.endswith(f"\n- {words}\n")
    assert "## Evaluation" not in evaluation


def test_a_score_that_takes_training_is_asked_for_and_is_no_other_evaluation(runs):
    run, _ = runs
    plain, scored = resolve(TINY), resolve(TINY, {"eval": {"cas": True}})
    first = evaluate_run(run, plain, Report(), seed=0)
    assert "cas" not in first
    assert has_evaluation(run, plain)
    assert not has_evaluation(run, scored)
    second = evaluate_run(run, scored, Report(), seed=0)
    assert has_evaluation(run, plain)
    assert has_evaluation(run, scored)
    assert {key: second[key] for key in first if key != "eval"} == {
        key: value for key, value in first.items() if key != "eval"
    }
    low, high = second["cas_interval"]
    assert 0 <= low <= second["cas"] <= high <= 1
    assert second["cas"] < second["cas_real"]
    assert len(evaluations(run)) == 1
    (row,) = compare_runs([run])
    assert row.values["CAS, real"] == [second["cas_real"]]
    assert f"- CAS: {second['cas']:.3f} ({low:.3f} to" in (run.path / "README.md").read_text()


def test_a_generator_that_copies_is_warned_of_everywhere(runs, monkeypatch, digits, capsys):
    run, _ = runs
    monkeypatch.setattr(module, "sample_run", lambda *_: digits.train[:20])
    metrics = evaluate_run(run, resolve(TINY), Report(), seed=0)
    assert (metrics["copies"], metrics["nearest"]) == (1, 0)
    assert metrics["copies_chance"] < 1e-3
    words = "copies: 100.0% of the generated images are nearer to a training image"
    assert words in (run.path / "README.md").read_text()
    _print_table(metrics)
    assert words in capsys.readouterr().out
    with Image.open(run.path / "copies.png") as picture:
        assert picture.size == (16 * 50 + 2, 2 * 50 + 2)
    (row,) = compare_runs([run])
    assert row.values["copies"] == [1]
    assert "| copies | copies, real |" in markdown([row])


def test_the_seed_of_the_images_is_part_of_an_evaluation(runs):
    run, _ = runs
    config = resolve(TINY)
    evaluate_run(run, config, Report(), seed=5)
    assert json.loads(run.metrics_file.read_text())["evaluation_seed"] == 5
    assert has_evaluation(run, dataclasses.replace(config, seed=5))


def test_an_evaluation_by_an_earlier_version_is_read_by_its_own_names(runs):
    _, run = runs
    metrics = {"sampler": "heun", "steps": 7, "guidance_weight": 3.0, "num_samples": 20}
    run.metrics_file.write_text(json.dumps(metrics))
    config = run.config()
    sample = SampleConfig(sampler="heun", steps=7, guidance_weight=3.0)
    assert has_evaluation(run, dataclasses.replace(config, sample=sample))
    assert not has_evaluation(run, config)


@pytest.mark.parametrize(
    ("train", "test", "count"),
    [
        ([50] * 600, [10] * 600, 1200),
        ([50] * 10, [500] * 10, 500),
        ([50, 9, 50], [10, 10, 1], 3),
        ([5421] * 10, [892] * 10, 1000),
    ],
)
def test_the_number_of_samples_fits_the_real_images(train, test, count):
    labels = [
        torch.arange(len(part)).repeat_interleave(torch.tensor(part)) for part in (train, test)
    ]
    images = SimpleNamespace(
        name="toys", num_classes=len(train), train_labels=labels[0], test_labels=labels[1]
    )
    assert len(classes_to_make(resolve({}), images)) == count
    with pytest.raises(ValueError, match=r"eval\.num_samples must be between"):
        classes_to_make(resolve({"eval": {"num_samples": 10**6}}), images)


@pytest.mark.parametrize("name", ["paper-mnist", "paper-switching"])
def test_the_papers_presets_ask_for_what_mnist_holds_out(name):
    counts = torch.tensor([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    images = SimpleNamespace(
        name="mnist", num_classes=10,
        train_labels=torch.arange(10).repeat(5421),
        test_labels=torch.arange(10).repeat_interleave(counts),
    )  # fmt: skip
    assert len(classes_to_make(resolve(preset(name)), images)) == 8920


def test_figures_of_fewer_steps_do_not_pass_for_those_of_a_longer_run(runs):
    run, _ = runs
    evaluate_run(run, resolve(TINY), Report(), seed=0)
    resume_run(run, resolve(TINY), Report())  # nothing to do
    assert len(evaluations(run)) == 1
    resume_run(run, resolve(TINY, {"train": {"steps": 4}}), Report())
    assert evaluations(run) == []


def test_a_longer_run_that_could_not_be_evaluated_is_refused_and_loses_nothing(runs):
    run, _ = runs
    evaluate_run(run, resolve(TINY), Report(), seed=0)
    longer = resolve(TINY, {"train": {"steps": 4}, "eval": {"num_samples": 5000}})
    with pytest.raises(ValueError, match="between 10 and 430"):
        resume_run(run, longer, Report())
    assert len(evaluations(run)) == 1
    assert run.config().train.steps == 2


def test_weights_that_change_meanwhile_are_no_evaluation(runs, monkeypatch):
    run, _ = runs
    sample = module.sample_run

    def trained_further(*arguments):
        images = sample(*arguments)
        run.save_weights(build_network(run.config().model, (1, 8, 8), 10, 99))
        return images

    monkeypatch.setattr(module, "sample_run", trained_further)
    with pytest.raises(OSError, match="was trained or audited while it was evaluated"):
        evaluate_run(run, resolve(TINY), Report(), seed=0)
    assert evaluations(run) == []


def refuse(*_, **__):
    raise AssertionError("images were made")


@pytest.mark.parametrize(
    ("features", "weights", "says"),
    [
        ("inception", "none.pth", r"cannot read --inception-weights none\.pth"),
        ("classifier", "none.pth", "go with eval.features = 'inception'"),
        ("efficientnet-lite0", None, "robustdiff\\[features\\]"),
    ],
)
def test_features_that_cannot_be_computed_are_refused_before_images_are_made(
    runs, monkeypatch, features, weights, says
):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    monkeypatch.setattr(module, "sample_run", refuse)
    monkeypatch.setattr(module, "load_run_data", refuse)
    config = resolve(TINY, {"eval": {"features": features}})
    with pytest.raises(ValueError, match=says):
        evaluate_run(runs[0], config, Report(), seed=0, inception_weights=weights)
    with pytest.raises(ValueError, match=says):
        sweep.sweep(
            runs[0],
            config,
            Report(),
            over="guidance",
            settings=[config.sample],
            seed=0,
            inception_weights=weights,
        )


def test_what_has_no_model_is_refused_before_its_images_are_read(runs, monkeypatch):
    run, weak = runs
    monkeypatch.setattr(sweep, "load_run_data", refuse)
    monkeypatch.setattr(module, "load_run_data", refuse)
    config = resolve(TINY, {"sample": {"guidance": "auto", "weak": str(weak.path)}})
    weak.weights_file.unlink()
    with pytest.raises(DamagedError, match=r"has no model\.safetensors yet"):
        sweep.sweep(run, config, Report(), over="guidance", settings=[config.sample], seed=0)
    audited = resolve(TINY, {"data": {"whole": True}})
    weak.save_config(audited)
    with pytest.raises(ValueError, match="is an audit, which has no model"):
        evaluate_run(weak, audited, Report(), seed=0)
    with pytest.raises(ValueError, match="is an audit, which has no model"):
        sweep.sweep(weak, audited, Report(), over="guidance", settings=[audited.sample], seed=0)


def test_classes_without_any_held_out_image_are_named():
    images = SimpleNamespace(
        name="toys", num_classes=3, train_labels=torch.arange(3), test_labels=torch.arange(0)
    )
    with pytest.raises(ValueError, match="the rarest has 0"):
        classes_to_make(resolve({}), images)
