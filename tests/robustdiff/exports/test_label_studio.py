"""Tasks for Label Studio, and what comes back from it."""

import json
from dataclasses import replace
from urllib.parse import unquote
from xml.etree import ElementTree

import numpy as np
import pytest
from correcting import NAMES, corrected_at_random, given_labels

from robustdiff.exports.label_studio import read_annotations, special_choices, write_tasks
from robustdiff.review.decisions import Decision


@pytest.fixture
def corrected():
    return corrected_at_random(
        given_labels([f"{name}/{i}.png" for name in NAMES for i in range(5)])
    )


@pytest.fixture
def tasks(tmp_path, corrected):
    write_tasks(tmp_path / "ls.json", corrected, tmp_path / "my photos", range(30))
    return json.loads((tmp_path / "ls.json").read_text())


def annotated(tasks, choices, *, cancelled=False):
    """Return what Label Studio exports after a person chose."""
    return [
        {
            "id": number,
            **task,
            "annotations": [
                {
                    "was_cancelled": cancelled,
                    "result": [
                        {
                            "from_name": "label",
                            "to_name": "image",
                            "type": "choices",
                            "value": {"choices": [word]},
                        }
                    ],
                }
                for word in words
            ],
        }
        for number, (task, words) in enumerate(zip(tasks, choices, strict=True))
    ]


def read(tmp_path, content, corrected):
    path = tmp_path / "export.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_annotations(path, corrected)


def decided(found):
    return [one.decision for one in found.annotations]


def test_tasks_show_the_file_and_suggest_the_corrected_class(tasks, corrected, tmp_path):
    for number, task in enumerate(tasks):
        image = unquote(task["data"]["image"])
        assert image == f"/data/local-files/?d=my photos/{corrected.before.paths[number]}"
        (prediction,) = task["predictions"]
        assert prediction["score"] == 0.75
        (choice,) = prediction["result"][0]["value"]["choices"]
        removed = corrected.removed[number]
        assert choice == ("[remove]" if removed else NAMES[corrected.labels[number]])
    interface = ElementTree.parse(tmp_path / "ls.xml").getroot()
    choices = [one.get("value") for one in interface.iter("Choice")]
    # XML folds a line break in an attribute only where it is not escaped.
    assert choices == [*NAMES, "[remove]", "[unsure]"]


def test_suggestions_taken_as_they_are_come_back_as_the_corrected_labels(
    tasks, corrected, tmp_path
):
    words = [task["predictions"][0]["result"][0]["value"]["choices"] for task in tasks]
    found = read(tmp_path, annotated(tasks, words), corrected)
    assert found.skipped == 0
    assert not any(one.is_torn for one in found.annotations)
    for decision in decided(found):
        given, label = (x[decision.sample] for x in (corrected.before.given, corrected.labels))
        if corrected.removed[decision.sample]:
            assert decision == Decision(decision.sample, "remove")
        elif label == given:
            assert decision == Decision(decision.sample, "keep")
        else:
            assert decision == Decision(decision.sample, "relabel", label)
    assert [decision.sample for decision in decided(found)] == list(range(30))


def test_skipped_torn_and_unsure_tasks(tasks, corrected, tmp_path):
    kept = NAMES[corrected.before.given[0]]
    other = NAMES[(corrected.before.given[0] + 1) % len(NAMES)]
    choices = [[kept, other], [], ["[unsure]"], ["[remove]", "[remove]"]]
    found = read(tmp_path, annotated(tasks[:4], choices), corrected)
    assert decided(found) == [Decision(0, "unsure"), Decision(2, "unsure"), Decision(3, "remove")]
    assert [one.is_torn for one in found.annotations] == [True, False, False]
    assert found.skipped == 1
    found = read(tmp_path, annotated(tasks[:1], [[kept]], cancelled=True), corrected)
    assert found == ([], 1)


def test_no_class_is_taken_for_a_special_choice():
    assert special_choices(["[remove]", "b"]) == ("[[remove]]", "[[unsure]]")
    assert special_choices(["a", "[[unsure]]", "[unsure]"]) == ("[[[remove]]]", "[[[unsure]]]")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "must hold a list of tasks"),
        ('[1, "a"]', "must hold a list of tasks"),
        ('[{"image": "a.png", "label": "cat"}]', "was not made by robustdiff"),
        ('[{"data": {"image": "a.png"}, "annotations": []}]', "was not made by robustdiff"),
        ('[{"data": {"labels_sha256": "0", "index": 0}, "annotations": []}]', "other labels"),
    ],
)
def test_foreign_files_are_refused_in_one_line(tmp_path, corrected, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, content, corrected)
    assert "\n" not in str(caught.value)


RESULT = '[{"result": [{"from_name": "label", "value": %s}]}]'


@pytest.mark.parametrize(
    ("annotations", "part"),
    [
        ("[1]", "annotations"),
        ("5", "annotations"),
        ("{}", "annotations"),
        ('[{"result": ["x"]}]', "result"),
        ('[{"result": 3}]', "result"),
        (RESULT % "null", "value"),
        (RESULT % '"one"', "value"),
        (RESULT % '{"choices": "one"}', "choices"),
        (RESULT % '{"choices": [7]}', "choices"),
    ],
)
def test_malformed_annotations_are_refused_in_one_line(
    tmp_path, tasks, corrected, annotations, part
):
    tasks = [{**task, "annotations": []} for task in tasks[:2]]
    tasks[1]["annotations"] = json.loads(annotations)
    with pytest.raises(ValueError, match=rf"^{part} of task 2 of .* is not what Label Studio"):
        read(tmp_path, tasks, corrected)


def test_an_annotation_is_as_old_as_its_last_change_by_anybody(tmp_path, tasks, corrected):
    (task,) = annotated(tasks[:1], [["plain", "plain"]])
    one, other = task["annotations"]
    for first, second, found in (
        ({}, {}, None),
        ({"created_at": "2024-05-01T10:00:00Z"}, {}, None),
        ({"created_at": "1970-01-01T00:00:05Z"}, {"created_at": "1970-01-01T00:00:02"}, 5.0),
        (
            {"created_at": "1970-01-01T00:00:05Z"},
            {"created_at": "1970-01-01T00:00:00Z", "updated_at": "1970-01-01T01:00:07.5+01:00"},
            7.5,
        ),
    ):
        content = [{**task, "annotations": [one | first, other | second]}]
        assert [each.time for each in read(tmp_path, content, corrected).annotations] == [found]
    for odd in ("yesterday", 5, ["2024"]):
        content = [{**task, "annotations": [one | {"updated_at": odd}]}]
        with pytest.raises(ValueError, match=r"^updated_at of task 1 of .* is not what"):
            read(tmp_path, content, corrected)


@pytest.mark.parametrize("index", [-1, 30, 1.5, None, True, "0"])
def test_a_task_of_no_sample_is_refused(tmp_path, tasks, corrected, index):
    tasks[0]["data"]["index"] = index
    with pytest.raises(ValueError, match=r"must have an index in \[0, 30\)"):
        read(tmp_path, annotated(tasks[:1], [["plain"]]), corrected)


def test_unknown_classes_and_files_without_annotations_are_refused(tmp_path, tasks, corrected):
    with pytest.raises(ValueError, match="names a class 'wolf' that the run has not"):
        read(tmp_path, annotated(tasks[:1], [["wolf"]]), corrected)
    with pytest.raises(ValueError, match="holds no annotations"):
        read(tmp_path, tasks, corrected)
    with pytest.raises(ValueError, match="cannot read"):
        read_annotations(tmp_path / "none.json", corrected)


def test_a_suggestion_without_a_judge_has_no_score(tmp_path, corrected):
    blind = replace(corrected, likelihood=np.full(30, np.nan))
    write_tasks(tmp_path / "x.json", blind, tmp_path, [0])
    assert json.loads((tmp_path / "x.json").read_text())[0]["predictions"][0]["score"] == 0
