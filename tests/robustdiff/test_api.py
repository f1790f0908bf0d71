"""The front door: what it offers, what it loads, what it leaves behind."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

import robustdiff
from robustdiff.config.layers import resolve, to_plain
from robustdiff.jobs import model
from robustdiff.metrics import evaluator
from robustdiff.progress import Report
from robustdiff.runs.folder import Run

SHORT = {
    "train.steps": 2,
    "model.channels": [8],
    "model.time_size": 8,
    "sample.steps": 2,
    "curriculum.warmup": 0,
    "curriculum.probes": 1,
}


class Heard(Report):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.fixture(scope="module")
def run():
    return robustdiff.train("digits", {"noise.rate": 0.3, "curriculum.name": "pmi", **SHORT})


def test_the_import_loads_neither_torch_nor_numpy():
    code = (
        "import sys, robustdiff\nassert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "assert set(robustdiff.__all__) <= set(dir(robustdiff))\nrobustdiff.Config\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_name_of_the_door_leads_somewhere_and_says_what_it_is():
    for name in robustdiff.__all__:
        assert getattr(robustdiff, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'tarin'"):
        robustdiff.tarin  # noqa: B018 the attribute is what fails


def test_a_run_lies_in_a_temporary_folder_unless_asked(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heard = Heard()
    named = robustdiff.train("digits", SHORT, out=tmp_path / "mine", report=heard)
    assert named.path == tmp_path / "mine"
    assert any("1347 digits images" in line for line in heard.lines)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    assert run.path.name == "run"
    assert "robustdiff-" in run.path.parent.name


def test_a_configuration_is_a_preset_with_changes_or_a_whole_one(tmp_path):
    config = resolve({"train": {"steps": 2}, "model": {"channels": [8]}})
    run = robustdiff.train(config, {"seed": 3}, out=tmp_path / "run")
    assert run.config().seed == 3
    assert run.config().train.steps == 2
    with pytest.raises(ValueError, match=r"did you mean 'train\.steps'"):
        robustdiff.train("digits", {"train.step": 2})
    with pytest.raises(ValueError, match="unknown preset 'digit'"):
        robustdiff.train("digit")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"per_class": 0}, r"per_class must be in \[1, 1000000\], got 0"),
        ({"per_class": 10**13}, r"per_class must be in \[1, 1000000\], got 10000000000000"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"classes": []}, r"at least one, got \[\]"),
        ({"classes": 3}, "must be numbers or names"),
        ({"classes": "three"}, "must be numbers or names"),
    ],
)
def test_what_cannot_be_sampled_is_named(run, words, says):
    with pytest.raises(ValueError, match=says):
        robustdiff.sample(run, **words)
    with pytest.raises(ValueError, match="seed must be at least 0"):
        robustdiff.evaluate(run, seed=-1)


def test_a_weaker_run_of_other_classes_is_refused(run, tmp_path):
    weak = tmp_path / "weak"
    shutil.copytree(run.path, weak)
    settings = {"sample.guidance": "auto", "sample.weak": str(weak)}
    assert len(robustdiff.sample(run, settings, per_class=1).images) == 10
    facts = json.loads((weak / "subject.json").read_text())
    facts["class_names"] = ["apple", *facts["class_names"][1:]]
    (weak / "subject.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"class 0 on the run .* has '0', .*'apple', '1'"):
        robustdiff.sample(run, settings, per_class=1)
    facts["image_shape"] = [1, 8, 9]
    (weak / "subject.json").write_text(json.dumps(facts))
    with pytest.raises(ValueError, match="of images of 1 x 8 x 8, got 1 x 8 x 9 in"):
        robustdiff.sample(run, settings, per_class=1)


def test_a_weaker_run_computes_where_the_run_does_and_as_it_does(run, tmp_path, monkeypatch):
    weak, used, load = Run(shutil.copytree(run.path, tmp_path / "weak")), [], model.load_model
    elsewhere = {"train": {"device": "cuda", "precision": "bf16"}}
    weak.save_config(resolve(to_plain(weak.config()), elsewhere))

    def noted(run, config, *words, **options):
        used.append((config.train.device, config.train.precision))
        return load(run, config, *words, **options)

    monkeypatch.setattr(model, "load_model", noted)
    settings = {"sample.guidance": "auto", "sample.weak": str(weak.path), "train.device": "cpu"}
    robustdiff.sample(run, settings, per_class=1)
    assert used == [("cpu", run.config().train.precision)] * 2


def test_samples_depend_on_their_seed_alone_and_write_nothing(run):
    before = sorted(run.path.rglob("*"))
    samples = robustdiff.sample(run, classes=[3, 5], per_class=2, seed=1)
    assert samples.images.shape == (4, 1, 8, 8)
    assert samples.images.dtype == torch.uint8
    assert samples.labels.tolist() == [3, 5, 3, 5]
    assert samples.class_names[3] == "3"
    again = robustdiff.sample(
        run.path, {"sample.batch_size": 1}, classes=[3, 5], per_class=2, seed=1
    )
    assert torch.equal(again.images, samples.images)
    assert sorted(run.path.rglob("*")) == before
    with pytest.raises(ValueError, match=r"data\.image_size belongs to the training of run"):
        robustdiff.sample(run, {"data.image_size": 16})
    with pytest.raises(ValueError, match=r"digits has classes 0 to 9, '0', .*; got '10'"):
        robustdiff.sample(run, classes=[10])


def test_a_run_is_evaluated_audited_and_made_longer(run, monkeypatch):
    monkeypatch.setattr(evaluator, "_SEEN", {False: 2000, True: 2000})
    figures = robustdiff.evaluate(run, {"eval.num_samples": 20, "sample.guidance_weight": 1.0})
    assert figures["sample"]["guidance_weight"] == 1.0
    assert run.metrics_file.exists()
    verdict = robustdiff.audit(run)
    assert len(verdict.given) == 1347
    assert (run.path / "label_issues.csv").exists()
    longer = robustdiff.resume(run, {"train.steps": 3})
    assert longer.config().train.steps == 3
    assert robustdiff.load_run(str(run.path)) == run
    with pytest.raises(ValueError, match="is not a run"):
        robustdiff.load_run("/nowhere")


def test_images_are_audited_without_a_run(tmp_path):
    settings = {"data.dataset": "digits", "noise.rate": 0.3, "judge.effort": "quick"}
    found = robustdiff.audit_images(settings, out=tmp_path / "found")
    with open(tmp_path / "found" / "label_issues.csv") as file:
        assert sum(1 for _ in file) == 1348
    truth = robustdiff.load_run(tmp_path / "found").labels().flipped
    assert (found.issue == truth).mean() > 0.95
    with pytest.raises(ValueError, match="another audit was made there"):
        robustdiff.audit_images({**settings, "seed": 1}, out=tmp_path / "found")


class Unread:
    """A dataset that nobody may read."""

    def __len__(self):
        return 4

    def __getitem__(self, number):
        raise AssertionError("the dataset was read")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"test_dataset": Unread()}, "and no dataset was given"),
        ({"dataset": Unread(), "settings": {"train.device": "cuda:99"}}, "cuda"),
        (
            {"dataset": Unread(), "test_dataset": []},
            "an image of each class, got no item",
        ),
    ],
)
def test_a_dataset_is_refused_before_it_is_read(arguments, says):
    with pytest.raises(ValueError, match=says):
        robustdiff.train(**arguments)


def test_a_place_that_is_taken_is_refused_before_the_dataset_is_read(run):
    with pytest.raises(ValueError, match="already exists"):
        robustdiff.train(dataset=Unread(), out=run.path)
    with pytest.raises(ValueError, match="already exists"):
        robustdiff.audit_images(dataset=Unread(), out=run.path.parent)


def test_an_audit_by_something_else_is_refused(run):
    with pytest.raises(ValueError, match="unknown way to audit 'Run'; did you mean 'run'"):
        robustdiff.audit(run, by="Run")
