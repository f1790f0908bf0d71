"""Sweeps: what is tried, what is skipped, what is drawn."""

import csv
import math
from types import SimpleNamespace

import pytest
import torch

from robustdiff.config.sections import Config, SampleConfig
from robustdiff.errors import DamagedError
from robustdiff.jobs import sweep as module
from robustdiff.jobs.dataset import RunData
from robustdiff.jobs.sweep import draw_sweep, read_table, settings_to_try, sweep
from robustdiff.metrics.catalogue import METRICS
from robustdiff.progress import Report
from robustdiff.reports.figures import figure_png
from robustdiff.runs.folder import Run


@pytest.fixture
def made(monkeypatch):
    """Stand in for sampling and measuring; records the settings that were made."""
    settings = []
    partners = {metric.real: 0.1 for metric in METRICS}

    def sample(run, config, images, classes, seed, report):
        settings.append(config.sample)
        return config.sample.guidance_weight + 1

    def measure(reference, generated):
        return {metric.key: float(generated) for metric in METRICS} | partners

    references = []

    def load_reference(run, config, data, report, *, seed, inception_weights):
        references.append(run)
        return None, {"evaluator_sha256": "e" * 64}

    monkeypatch.setattr(module, "load_run_data", lambda *_: RunData(None, None, None))
    monkeypatch.setattr(module, "classes_to_make", lambda config, images: torch.arange(20))
    monkeypatch.setattr(module, "sample_run", sample)
    monkeypatch.setattr(module, "measure", measure)
    monkeypatch.setattr(module, "see", lambda reference, generated, classes: generated)
    monkeypatch.setattr(module, "load_reference", load_reference)
    monkeypatch.setattr(module, "write_figure", lambda figure, path: path.touch())  # slow
    return SimpleNamespace(settings=settings, references=references)


@pytest.fixture
def run(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    return Run(tmp_path)


PLAIN = SampleConfig()


def over_guidance(run, *values, setting=PLAIN, seed=0):
    settings = settings_to_try(setting, "guidance", values, [setting.sampler])
    return sweep(run, Config(), Report(), over="guidance", settings=settings, seed=seed)


def test_a_sweep_is_resumed_and_extended(run, made):
    rows = over_guidance(run, 0, 1, 1)
    assert [row["guidance_weight"] for row in rows] == ["0.0", "1.0"]
    assert len(made.references) == 1  # real images are measured once
    again = over_guidance(run, 1, 2)
    assert [setting.guidance_weight for setting in made.settings] == [0, 1, 2]
    assert [row["fid"] for row in again] == ["2.0", "3.0"]
    assert len(read_table(run.path / "sweep-guidance.csv")) == 3
    assert (run.path / "sweep-guidance.png").exists()
    assert figure_png(draw_sweep(again, "guidance")).startswith(b"\x89PNG")


def test_what_changes_the_images_is_made_again(run, made):
    over_guidance(run, 1)
    over_guidance(run, 1, seed=1)
    over_guidance(run, 1, setting=SampleConfig(guidance_rescale=0.5))
    over_guidance(run, 1, setting=SampleConfig(batch_size=3, compile=True))  # does not change them
    assert len(made.settings) == 3
    run.weights_file.write_bytes(b"other weights")
    over_guidance(run, 1)
    assert len(made.settings) == 4


def test_steps_are_swept_for_every_sampler_and_shown_as_calls(run, made):
    settings = settings_to_try(SampleConfig(), "steps", [5.0, 10.0], ["ddim", "heun"])
    rows = sweep(run, Config(), Report(), over="steps", settings=settings, seed=0)
    calls = [(row["sampler"], row["steps"], row["denoiser_calls"]) for row in rows]
    assert calls == [
        ("ddim", "5", "5"), ("ddim", "10", "10"), ("heun", "5", "9"), ("heun", "10", "19"),
    ]  # fmt: skip
    panel = draw_sweep(rows, "steps").axes[0]
    drawn = {tuple(line.get_xdata()) for line in panel.get_lines()}
    assert {(5.0, 10.0), (9.0, 19.0)} <= drawn
    labels = [text.get_text() for text in draw_sweep(rows, "steps").legends[0].get_texts()]
    assert labels == ["real, held out", "ddim", "heun"]


def test_a_table_from_before_guidance_was_reused_goes_on(run, made):
    over_guidance(run, 0, 1)
    table = run.path / "sweep-guidance.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        later = ("guidance_every", "undo_label_noise")
        names = [name for name in rows[0] if name not in later]
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    over_guidance(run, 0, 1, 2)
    over_guidance(run, 0, setting=SampleConfig(guidance_every=2))
    assert [setting.guidance_weight for setting in made.settings] == [0, 1, 2, 0]
    assert [row["guidance_every"] for row in read_table(table)] == ["1", "1", "1", "2"]


def test_lines_are_named_by_what_sets_them_apart(run, made):
    rows = over_guidance(run, 0, 1)
    rows += over_guidance(run, 0, 1, setting=SampleConfig(guidance_rescale=0.5))
    rows += over_guidance(run, 0, 1, setting=SampleConfig(guidance_every=2))
    rows += over_guidance(run, 0, 1, setting=SampleConfig(guidance="classifier"))
    texts = draw_sweep(rows, "guidance").legends[0].get_texts()
    assert [text.get_text() for text in texts[1:]] == [
        "classifier-free",
        "classifier-free, rescale 0.5",
        "classifier-free, every 2",
        "classifier",
    ]


@pytest.mark.parametrize("name", ["w$\\frac{$", "x@2"])
def test_names_of_weaker_runs_are_shown_as_they_are(run, made, tmp_path, name):
    weak = Run(tmp_path / name)
    weak.path.mkdir()
    weak.save_config(Config())
    weak.weights_file.write_bytes(b"weaker")
    rows = over_guidance(run, 1)
    rows += over_guidance(run, 1, setting=SampleConfig(guidance="auto", weak=str(weak.path)))
    figure = draw_sweep(rows, "guidance")
    assert figure.legends[0].get_texts()[-1].get_text() == f"auto, away from {name}"
    assert figure_png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("over", "values", "says"),
    [
        ("steps", [2.5], "numbers of steps must be whole, got 2.5"),
        ("steps", [0.0], r"sample.steps must be in \[1, 10000\], got 0"),
        ("guidance", [-1.0], "guidance_weight must be at least 0"),
        ("guidance", [], "at least one value"),
        ("guidance", [1.0, math.inf], "must be finite, got 1.0, inf"),
        ("guidance", [math.nan], "must be finite, got nan"),
        ("steps", [math.inf], "must be finite, got inf"),
    ],
)
def test_impossible_values_are_named(over, values, says):
    with pytest.raises(ValueError, match=says):
        settings_to_try(SampleConfig(), over, values, ["ddim"])


def test_a_figure_that_no_point_has_is_drawn_empty(run, made):
    rows = [row | {"class_fid": "nan", "class_fid_floor": "nan"} for row in over_guidance(run, 1)]
    assert figure_png(draw_sweep(rows, "guidance")).startswith(b"\x89PNG")


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "\x00\x01", '"'])
def test_a_file_that_is_no_sweep_is_left_alone(run, made, content):
    path = run.path / "sweep-guidance.csv"
    path.write_text(content)
    with pytest.raises(DamagedError, match="not a table of this version's sweeps"):
        over_guidance(run, 1)
    assert path.read_text() == content
    assert made.settings == []


def test_half_a_line_is_noticed(run, made):
    over_guidance(run, 1, 2)
    path = run.path / "sweep-guidance.csv"
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DamagedError):
        read_table(path)
