"""Issues of images in the table, the summary and the page of an audit."""

import csv
import dataclasses

import numpy as np
import pytest

from corruptions import corrupt
from curricula import Trust
from robustdiff.config.layers import resolve
from robustdiff.labels.image_issues import ImageIssues
from robustdiff.reports.audit import Findings, write_audit
from robustdiff.runs.making import create_run


@pytest.fixture
def images(digits):
    return dataclasses.replace(
        digits, train=digits.train[:50], train_labels=digits.train_labels[:50]
    )


@pytest.fixture
def labels(images):
    return corrupt(images.train_labels.numpy(), num_classes=10, rate=0.4, seed=0)


def findings(labels):
    """Somebody who knows the truth; image 1 fits no class, 3 repeats 2, 5 repeats 4 otherwise."""
    classes = np.eye(10)[labels.clean] * 0.91 + 0.009
    off, near, other = np.zeros((3, 50))
    partner, is_copy = np.full(50, -1), np.zeros(50, dtype=bool)
    off[1], near[2:6], other[4:6], is_copy[3] = 0.8, 1, 1, True
    partner[2:6] = 3, 2, 5, 4
    issues = ImageIssues(off, near, other, partner, is_copy, 3, ("a note",))
    right = classes[np.arange(50), labels.given]
    trust = Trust(right, 0.4, classes, classes, labels.realised)
    return Findings(labels.given, right, trust, "the truth", images=issues)


def test_every_issue_is_named_and_the_first_reason_to_act_wins(tmp_path, images, labels):
    run = create_run(tmp_path / "run", resolve(), labels)
    found = findings(labels)
    summary = write_audit(run, images, labels, found)
    with (run.path / "label_issues.csv").open() as file:
        rows = list(csv.DictReader(file))
    label = ["label"] * 1
    expected = {1: ["off-topic"], 3: ["near-duplicate"], 4: ["duplicate-other-label"]}
    expected[5] = expected[4]
    for i, row in enumerate(rows):
        wrong = label if labels.flipped[i] and i != 1 else []
        assert row["issue"].split(";") == (wrong + expected.get(i, []) or [""])
        assert row["is_label_issue"] == str(bool(wrong))
    assert [row["duplicate_of"] for row in rows[:7]] == ["", "", "3", "2", "5", "4", ""]
    assert rows[1]["off_topic_score"] == "0.8"
    assert rows[4]["near_duplicate_score"] == rows[4]["duplicate_other_label_score"] == "1"
    assert summary["image_issues"] == {
        "off-topic": 1, "near-duplicate": 1, "duplicate-other-label": 2, "across parts": 3,
    }  # fmt: skip
    assert summary["issues"] == 20 - labels.flipped[1]
    assert summary["doubts"] == ["a note"]


def test_the_page_has_a_part_for_each_kind_and_escapes_names(tmp_path, images, labels):
    run = create_run(tmp_path / "run", resolve(), labels)
    hostile = "<script>alert(1)</script>"
    named = dataclasses.replace(
        images,
        class_names=tuple(f"{hostile}{k}" for k in range(10)),
        paths=tuple(f"{hostile}{i}.png" for i in range(50)),
    )
    write_audit(run, named, labels, findings(labels))
    page = (run.path / "audit.html").read_text()
    assert "<script" not in page
    assert "3 images are in two parts of the dataset" in page
    for kind, count in (("off-topic", 1), ("near-duplicate", 1), ("duplicate-other-label", 2)):
        assert f'<a href="#{kind}">{kind} <b>{count}</b></a>' in page
        part = page.partition(f'<h2 id="{kind}">')[2].partition("<h2")[0]
        assert part.count("<figure>") == count
        assert part.count("<img") == count * (1 if kind == "off-topic" else 2)


def test_an_audit_that_nobody_looked_at_images_for_has_no_such_parts(tmp_path, images, labels):
    run = create_run(tmp_path / "run", resolve(), labels)
    found = dataclasses.replace(findings(labels), images=None)
    summary = write_audit(run, images, labels, found)
    assert "image_issues" not in summary
    assert "off-topic" not in (run.path / "audit.html").read_text()
