import csv
import dataclasses
import html.parser
import json

import numpy as np
import pytest
import torch

from corruptions import corrupt
from curricula import Trust
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.data.registry import load_images
from robustdiff.progress import Report
from robustdiff.reports.audit import Findings, cleanlab_issues, issue_columns, write_audit
from robustdiff.review.suspects import read_suspects
from robustdiff.runs import many
from robustdiff.runs.making import create_run

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'


@pytest.fixture(scope="module")
def images():
    whole = load_images(DataConfig(), Report())
    return dataclasses.replace(whole, train=whole.train[:50], train_labels=whole.train_labels[:50])


@pytest.fixture
def labels(images):
    return corrupt(images.train_labels.numpy(), num_classes=10, rate=0.4, seed=0)


def sure(labels):
    """Findings of somebody who knows the truth."""
    classes = np.eye(10)[labels.clean] * 0.91 + 0.009
    right = classes[np.arange(len(classes)), labels.given]
    trust = Trust(right, float(labels.realised_rate), classes, classes, labels.realised)
    return Findings(labels.given, right, trust, "the truth")


def make_run(folder, labels):
    return create_run(folder / "run", resolve(), labels)


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_table_has_cleanlabs_columns_and_the_truth_where_it_is_known(tmp_path, images, labels):
    run = make_run(tmp_path, labels)
    summary = write_audit(run, images, labels, sure(labels))
    rows = read(run.path / "label_issues.csv")
    assert list(rows[0]) == [
        "index", "is_label_issue", "label_quality", "gain", "given_label", "predicted_label",
        "given_name", "predicted_name", "second_predicted", "issue", "sample_weight", "true_label",
        "is_flipped",
    ]  # fmt: skip
    assert [int(row["index"]) for row in rows] == list(range(50))
    assert [row["is_label_issue"] == "True" for row in rows] == labels.flipped.tolist()
    assert [int(row["predicted_label"]) for row in rows] == labels.clean.tolist()
    assert [float(row["sample_weight"]) for row in rows] == (~labels.flipped).tolist()
    assert [row["given_name"] for row in rows] == [images.class_names[k] for k in labels.given]
    assert [row["predicted_name"] for row in rows] == [images.class_names[k] for k in labels.clean]
    assert all(row["second_predicted"] != row["predicted_name"] for row in rows)
    assert [row["issue"] == "label" for row in rows] == labels.flipped.tolist()
    assert json.loads((run.path / "label_issues.json").read_text()) == summary
    pairs = summary.pop("pairs")
    assert sum(pair["issues"] for pair in pairs) == 20
    assert all(pair["given"] != pair["predicted"] for pair in pairs)
    assert summary == {
        "images": 50, "source": "the truth", "estimated_noise": 0.4, "issues": 20, "doubts": [],
    }  # fmt: skip


def test_of_many_labels_the_suspects_are_listed_and_a_sample_describes_the_others(
    tmp_path, images, labels, monkeypatch
):
    run = make_run(tmp_path, labels)
    whole = write_audit(run, images, labels, sure(labels))
    rows = read(run.path / "label_issues.csv")
    monkeypatch.setattr(many, "MOST", 40)
    summary = write_audit(run, images, labels, sure(labels))
    listed = read(run.path / "label_issues.csv")
    assert listed == [row for row in rows if row["is_label_issue"] == "True"]
    assert summary["listed"] == len(listed) == 20
    assert "lists the 20 labels and images that look wrong, not all of 50" in summary["listing"]
    rest = summary["rest"]
    kept = np.intersect1d(many.sampled(50), np.flatnonzero(~labels.flipped))
    assert rest["sampled"] == len(kept)
    assert 0 < len(kept) < 40
    assert rest["label_quality"]["mean"] == pytest.approx(0.919)
    assert {name: summary[name] for name in whole} == whole
    found = read_suspects(run, labels, images.class_names)
    assert sorted(found.numbers.tolist()) == np.flatnonzero(labels.flipped).tolist()


def test_doubts_name_the_classes(tmp_path, images, labels):
    findings = sure(labels)
    doubt = findings.trust._replace(doubts=("class {3} was not learnt, nor {4}",))
    images = dataclasses.replace(images, class_names=("a", "b", "c", "<d>", "{e}", *"fghij"))
    run = make_run(tmp_path, labels)
    summary = write_audit(run, images, labels, dataclasses.replace(findings, trust=doubt))
    assert summary["doubts"] == ["class <d> was not learnt, nor {e}"]
    page = (run.path / "audit.html").read_text()
    assert "class &lt;d&gt; was not learnt, nor {e}" in page


def test_nobody_is_told_a_truth_that_is_not_known(tmp_path, images):
    labels = corrupt(images.train_labels.numpy(), num_classes=10, rate=0, seed=0)
    run = make_run(tmp_path, labels)
    write_audit(run, images, labels, sure(labels))
    assert "true_label" not in read(run.path / "label_issues.csv")[0]
    page = (run.path / "audit.html").read_text()
    assert "truly wrong" not in page
    assert "No label looks more likely wrong than right" in page


def test_without_classes_there_is_no_prediction_for_a_suspect(images, labels):
    right = np.where(labels.flipped, 0.2, 0.9)
    findings = Findings(labels.given, right, Trust(right, 0.4), "a score")
    columns = issue_columns(images, labels, findings)
    # A score that does not compare classes is no probability: the column holds its rank.
    assert "label_quality" not in columns
    assert sorted(columns["label_score"]) == pytest.approx(np.arange(1, 51) / 50)
    assert (columns["is_label_issue"] == labels.flipped).all()
    assert [p is None for p in columns["predicted_label"]] == labels.flipped.tolist()
    pytest.importorskip("cleanlab")
    with pytest.raises(ValueError, match=r"needs class probabilities.*--by crossfit"):
        cleanlab_issues(findings)


@pytest.mark.filterwarnings("ignore:May not flag all label issues")
def test_cleanlab_gives_its_verdict_on_the_same_probabilities(tmp_path, images, labels):
    pytest.importorskip("cleanlab")
    run = make_run(tmp_path, labels)
    summary = write_audit(run, images, labels, sure(labels), use_cleanlab=True)
    rows = read(run.path / "label_issues.csv")
    found = np.array([row["is_cleanlab_issue"] == "True" for row in rows])
    assert summary["cleanlab_issues"] == found.sum()
    # By design it leaves at least some labels of every class.
    assert not (found & ~labels.flipped).any()
    assert found.sum() > 10


@pytest.mark.filterwarnings("ignore:May not flag all label issues")
def test_cleanlab_hears_of_the_given_labels_noise_and_all(labels):
    """A matrix that explains all labels leaves cleanlab with their own probabilities."""
    pytest.importorskip("cleanlab")
    found = sure(labels)
    hard = found.trust._replace(image_classes=np.eye(10)[labels.clean], transition=np.eye(10))
    blind = hard._replace(transition=np.full((10, 10), 0.1))
    assert cleanlab_issues(dataclasses.replace(found, trust=hard)).any()
    assert not cleanlab_issues(dataclasses.replace(found, trust=blind)).any()


def test_a_page_of_labels_that_are_all_wrong(tmp_path, images):
    given = (images.train_labels.numpy() + 1) % 10
    labels = corrupt(images.train_labels.numpy(), num_classes=10, noise_type="pairflip", rate=1)
    np.testing.assert_array_equal(labels.given, given)
    run = make_run(tmp_path, labels)
    write_audit(run, images, labels, sure(labels))
    page = (run.path / "audit.html").read_text()
    assert "truly wrong" in page
    assert "AUROC" not in page


def test_the_page_says_by_what_and_how_the_labels_were_judged(tmp_path, images, labels):
    run = make_run(tmp_path, labels)
    told = dataclasses.replace(
        sure(labels), trust=sure(labels).trust._replace(temperature=0.0025), in_sample=True
    )
    write_audit(run, images, labels, told)
    page = (run.path / "audit.html").read_text()
    assert "was trained on these images and labels" in page
    assert "divided by 0.0025" in page
    write_audit(run, images, labels, sure(labels))
    page = (run.path / "audit.html").read_text()
    assert "was trained on these images" not in page
    assert "divided by" not in page


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_names_cannot_break_out(tmp_path, images, labels):
    hostile = dataclasses.replace(
        images,
        class_names=tuple(f"{HOSTILE}{k}" for k in range(10)),
        paths=tuple(f"{HOSTILE}/{i}.png" for i in range(50)),
        name=HOSTILE,
    )
    run = make_run(tmp_path / "<b>x", labels)
    write_audit(run, hostile, labels, sure(labels))
    page = (run.path / "audit.html").read_text()
    tags = Tags()
    tags.feed(page)
    names = {tag for tag, _ in tags.seen}
    assert "script" not in names
    assert "link" not in names
    assert not any(key.startswith("on") for _, attrs in tags.seen for key in attrs)
    sources = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert len(sources) == 20 + 3  # suspects, scores, two matrices
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert read(run.path / "label_issues.csv")[3]["file"] == f"{HOSTILE}/3.png"


def test_colour_images_are_shown(tmp_path, images, labels):
    colour = dataclasses.replace(images, train=torch.zeros(50, 3, 8, 8, dtype=torch.uint8))
    run = make_run(tmp_path, labels)
    write_audit(run, colour, labels, sure(labels))
    assert (run.path / "audit.html").stat().st_size > 10_000
