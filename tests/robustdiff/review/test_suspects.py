import csv
import io

import numpy as np
import pytest
from reviewing import NAMES

from robustdiff.errors import DamagedError
from robustdiff.review.suspects import read_suspects
from robustdiff.runs.folder import Run


@pytest.fixture
def run(audit):
    return Run(audit)


def read(run):
    return read_suspects(run, run.labels(), run.labels().class_names)


def edited(run, change):
    """Change the rows of label_issues.csv, as dicts."""
    path = run.path / "label_issues.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows = change(rows) or rows
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(text.getvalue())


def test_an_audit_is_read_in_rising_quality_with_all_its_names(run):
    found, labels = read(run), run.labels()
    assert len(found) == len(labels.given) == 150
    assert sorted(found.numbers) == list(range(150))
    assert (np.diff(found.quality) >= 0).all()
    assert found.is_probability
    assert found.issues == ("", "label")
    np.testing.assert_array_equal(found.given, labels.given[found.numbers])
    with (run.path / "label_issues.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for place, number in enumerate(found.numbers.tolist()):
        row = rows[number]
        assert found.issues[found.issue[place]] == row["issue"]
        assert found.class_names[found.predicted[place]] == row["predicted_name"]
        assert found.class_names[found.second[place]] == row["second_predicted"]
    assert set(found.class_names) == set(NAMES)


def test_other_issues_and_scores_without_classes_are_read(run):
    def change(rows):
        for i, row in enumerate(rows):
            row["issue"] = ["", "off-topic", "label;near-duplicate", "near-duplicate"][i % 4]
            row["label_score"] = row.pop("label_quality")
            row["predicted_label"] = ""
            del row["second_predicted"]

    edited(run, change)
    found = read(run)
    assert found.issues == ("", "label;near-duplicate", "near-duplicate", "off-topic")
    assert found.kinds == ["label", "near-duplicate", "off-topic"]
    np.testing.assert_array_equal(found.has("near-duplicate"), (found.numbers % 4) >= 2)
    assert not found.has("duplicate").any()
    assert not found.is_probability
    assert set(found.predicted) == set(found.second) == {-1}


def test_decisions_that_change_most_come_first_or_the_worst_labels(run):
    def change(rows):
        for i, row in enumerate(rows):
            row["label_quality"], row["gain"] = str(i % 5 / 4), str(i % 3 / 2)

    edited(run, change)
    labels = run.labels()
    for order in ("gain", "quality"):
        found = read_suspects(run, labels, labels.class_names, order)
        quality, gain = found.numbers % 5 / 4, found.numbers % 3 / 2
        np.testing.assert_array_equal(found.quality, quality)
        keys = list(zip(-gain, quality, strict=True)) if order == "gain" else quality.tolist()
        assert keys == sorted(keys)


def test_a_run_that_was_not_audited_says_how(run):
    (run.path / "label_issues.csv").unlink()
    with pytest.raises(ValueError, match=r"has no label_issues\.csv; make it with: robustdiff aud"):
        read(run)


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [row | {"given_label": "0"} for row in rows],
        lambda rows: [row | {"predicted_label": "9"} for row in rows],
        lambda rows: [row | {"predicted_label": "cat"} for row in rows],
        lambda rows: [row | {"label_quality": ""} for row in rows],
        lambda rows: [row | {"index": "150"} for row in rows],
        lambda rows: [{key: row[key] for key in ("index", "issue")} for row in rows],
    ],
)
def test_a_damaged_or_foreign_audit_is_refused_in_one_line(run, change):
    edited(run, change)
    with pytest.raises(DamagedError, match="is damaged or of another audit") as caught:
        read(run)
    assert "\n" not in str(caught.value).replace(str(run.path), "")


@pytest.mark.parametrize("content", [b"", b"\0\0", b"index,given_label\n1\n"])
def test_what_is_no_table_is_refused(run, content):
    (run.path / "label_issues.csv").write_bytes(content)
    with pytest.raises(DamagedError, match="is damaged or of another audit"):
        read(run)


def test_of_many_labels_none_may_be_listed(run):
    path = run.path / "label_issues.csv"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert len(read(run)) == 0
    path.write_text(path.read_text() + "1,2\n")
    with pytest.raises(DamagedError, match="another number of columns"):
        read(run)
