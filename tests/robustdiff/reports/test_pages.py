"""The report of a run and the page of a comparison: complete, self-contained, and escaped."""

import dataclasses
import html.parser
import json

import numpy as np
import pytest
import torch
from commands import call

from corruptions import corrupt
from curricula import Trust
from robustdiff.config.layers import nested, resolve
from robustdiff.jobs.audit import AUDIT_LAYER
from robustdiff.reports.charts import Curve, histogram, line_chart, range_bar
from robustdiff.reports.compare import compare_runs
from robustdiff.reports.compare_page import write_compare_page
from robustdiff.reports.pictures import write_png
from robustdiff.reports.run_page import report_page, write_report
from robustdiff.runs.making import create_run
from robustdiff.runs.scores import save_scores

HOSTILE = '"><script src=//x.org/a></script><img src=//x.org/b onerror=c>&amp;'
# Of elements that load something, the attributes that say from where.
LOADING = {"src", "href", "srcset", "data", "poster", "action", "xlink:href"}
METRICS = {
    "num_samples": 40, "fid": 0.5, "fid_floor": 0.1, "fid_interval": [0.25, 0.75],
    "class_fid": 2.125, "class_fid_floor": 0.375, "nll": 0.25, "nll_real": 0.125, "noise": 0.3,
    "label_accuracy": 0.9, "label_accuracy_real": 0.96, "kid": None, "detection": None,
    "sample": {"sampler": "ddim", "steps": 7, "guidance_weight": 1.5}, "evaluator_corrected": None,
}  # fmt: skip


class Elements(html.parser.HTMLParser):
    """Names and attributes of a page's elements, and its text."""

    def __init__(self, page):
        super().__init__()
        self.names, self.attributes, self.text = set(), [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text.append(data)


def make_run(folder, *, names=None, classes=True, evaluated=True, num_classes=3, seed=0):
    rng = np.random.default_rng(0)
    clean = rng.integers(0, num_classes, 120)
    labels = corrupt(clean, num_classes=num_classes, rate=0.25, seed=0)
    labels = dataclasses.replace(labels, class_names=names)
    config = resolve({"curriculum": {"name": "margin"}, "noise": {"rate": 0.25}, "seed": seed})
    run = create_run(folder, config, labels)
    scores = np.where(labels.flipped, -1.0, 1.0) + rng.normal(0, 0.5, 120)
    likely = np.eye(num_classes)[clean] if classes else None
    trust = Trust(1.0 * ~labels.flipped, 0.25, classes=likely)
    save_scores(run, scores, trust, ~labels.flipped)
    entries = [{"step": s, "loss": 1 / s, "images_per_second": 100.0} for s in range(20, 220, 20)]
    entries += [
        {"step": s, "round": s // 50, "labels_used": 0.75, "estimated_noise": 0.2,
         "scoring_seconds": 1.0, "auroc": 0.875, "average_precision": 0.75}
        for s in (50, 100, 150)
    ]  # fmt: skip
    run.history_file.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    for step in range(20, 220, 20):
        write_png(run.samples / f"step-{step:08d}.png", torch.zeros(3, 4, 4, dtype=torch.uint8))
    if evaluated:
        run.metrics_file.write_text(json.dumps(METRICS))
    return run


def assert_loads_nothing(page):
    elements = Elements(page)
    assert not elements.names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    addresses = [value for name, value in elements.attributes if name in LOADING]
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    return " ".join(" ".join(elements.text).split())


def test_a_report_holds_what_the_run_was_and_what_came_out(tmp_path):
    run = make_run(tmp_path / "run", names=("cat", "dog", "owl"))
    page = write_report(run).read_text()
    text = assert_loads_nothing(page)
    assert page.startswith("<!doctype html>")
    for words in (
        "Training loss", "How the scores find wrong labels", "Given against judged labels",
        "Given against true labels", "class-wise FID 2.125 0.375", "FID 0.500 0.250 to 0.750 0.100",
        "40 images by ddim in 7 steps, guidance weight 1.5",
        "noise.rate 0.25", "one column a class: cat, dog, owl", "margin",
        "robustdiff train --config config.json --out again",
    ):  # fmt: skip
        assert words in text
    assert run.labels().sha256 in text
    # The first and the last grid, and some between.
    assert [f"step {step} " in text for step in (20, 200)] == [True, True]
    assert page.count("data:image/png") == 6


def test_the_confusion_counts_given_against_judged_labels(tmp_path):
    run = make_run(tmp_path / "run", names=("cat", "dog", "owl"))
    labels, text = run.labels(), assert_loads_nothing(report_page(run))
    counts = np.zeros((3, 3), dtype=int)
    np.add.at(counts, (labels.given, labels.clean), 1)  # the judge of this run is always right
    rows = [
        f"{name} {' '.join(map(str, row))}"
        for name, row in zip(("cat", "dog", "owl"), counts, strict=True)
    ]
    assert f"cat dog owl {' '.join(rows)}" in text


def test_many_classes_are_shown_by_their_commonest_pairs(tmp_path):
    run = make_run(tmp_path / "run", num_classes=30)
    page = report_page(run)
    assert 'class="confusion"' not in page
    text = assert_loads_nothing(page)
    assert "The 20 classes with the most suspect labels; 10 more are left out." in text


def test_scores_that_know_no_classes_have_no_confusion(tmp_path):
    text = assert_loads_nothing(report_page(make_run(tmp_path / "run", classes=False)))
    assert "Given against judged labels" not in text
    assert "30 of 120 labels look wrong" in text


def test_a_run_that_has_only_begun_has_a_report(tmp_path):
    run = create_run(
        tmp_path / "run", resolve({}), corrupt(np.arange(20) % 2, num_classes=2, rate=0.5)
    )
    text = assert_loads_nothing(report_page(run))
    assert "has not been evaluated" in text
    assert "uniform judges no labels" in text


def test_the_report_of_an_audit_tells_nothing_of_training(tmp_path):
    asked = {"data.dataset": "digits", "noise.rate": 0.5, "judge.effort": "quick"}
    config = resolve(AUDIT_LAYER, nested(asked))
    labels = corrupt(np.arange(20) % 2, num_classes=2, rate=0.5)
    run = create_run(tmp_path / "found", config, labels, trained=False)
    page = report_page(run)
    text = assert_loads_nothing(page)
    assert f"has not judged the labels yet; robustdiff audit {run.path} goes on" in text
    right = 1.0 * ~labels.flipped
    save_scores(run, right, Trust(right, 0.25, classes=np.eye(2)[labels.clean]), ~labels.flipped)
    text = assert_loads_nothing(report_page(run))
    assert "An audit of digits, without a model: 20 images, labels 50.00% wrong" in text
    assert "10 of 20 labels look wrong" in text
    for word in ("diffusion", "steps of", "training", "curriculum crossfit", "evaluated"):
        assert word not in text.partition("Settings that are not the default")[0]
    assert "robustdiff train" not in text
    settings = {"noise.rate": 0.5, "judge.effort": "quick"}
    assert f"robustdiff.audit_images({settings}, out='again')" in text
    assert resolve(AUDIT_LAYER, nested(settings)) == config


def test_names_from_elsewhere_are_escaped(tmp_path):
    place = tmp_path / HOSTILE.replace("/", "|")
    run = make_run(place, names=(HOSTILE, "</style><b>", "\udcff"))
    page = write_report(run).read_text()
    text = assert_loads_nothing(page)
    assert "\\udcff" in text
    assert HOSTILE in text
    write_compare_page(compare_runs([run]), [run], tmp_path)
    assert_loads_nothing((tmp_path / "compare.html").read_text())


def test_a_comparison_shows_every_method_and_run(tmp_path):
    for seed in range(2):
        make_run(tmp_path / f"margin {seed}", seed=seed)
    assert call("compare", tmp_path, "--out", tmp_path / "made") == 0
    text = assert_loads_nothing((tmp_path / "made" / "compare.html").read_text())
    assert "margin 2 0.900 ± 0.000 0.9 0.250 ± 0.000 0.25 2.125 ± 0.000 2.125" in text
    assert f"{tmp_path / 'margin 0'} margin, seed 0, digits samples at step 200" in text
    assert f"robustdiff compare '{tmp_path / 'margin 0'}'" in text


def test_the_command_writes_where_it_is_told(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert call("report", run.path) == 0
    assert capsys.readouterr().out == f"{run.path / 'report.html'}\n"
    assert call("report", run.path, "--out", tmp_path / "page.html") == 0
    assert (tmp_path / "page.html").read_text() == (run.path / "report.html").read_text()
    assert call("report", run.path, "--out", tmp_path / "none" / "page.html") == 2
    assert call("report", tmp_path / "nowhere") == 2
    assert "is not a run" in capsys.readouterr().err
    run.metrics_file.write_text("{")
    assert call("report", run.path) == 1
    assert "metrics.json" in capsys.readouterr().err


def test_a_chart_holds_its_curves_and_escapes_their_names():
    chart = line_chart(
        "<b>", [Curve("<i>", [0, 10, 20], [1, 2, 4]), Curve("b", [5], [3])], levels={"x": 1}
    )
    assert "<b>" not in chart.picture
    assert "&lt;i&gt;: 4 at step 20" in chart.picture
    assert chart.legend == [("s0", "<i>"), ("s1", "b"), ("level", "x")]
    assert chart.picture.count("<polyline") == 1


def test_long_curves_are_thinned_to_their_end():
    chart = line_chart("loss", [Curve("loss", range(10_001), [1.0] * 10_001)])
    assert chart.picture.count(",") <= 301
    assert "at step 10000" in chart.picture


@pytest.mark.parametrize("values", [[0.0, 1.0], [-1.0, 1.0], [5.0], [0.0], [1e-9, 1e9]])
@pytest.mark.parametrize("logarithmic", [False, True])
def test_any_values_can_be_drawn(values, logarithmic):
    steps = list(range(len(values)))
    chart = line_chart("any", [Curve("any", steps, values)], logarithmic=logarithmic)
    bar = range_bar(values[0], None, values, logarithmic=logarithmic)
    bars = histogram("any", {"some": np.array(values)})
    for picture in (chart.picture, bar, bars.picture):
        assert "nan" not in picture
        assert "inf" not in picture
