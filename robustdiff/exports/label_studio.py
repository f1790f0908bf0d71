"""Label Studio: labels to look at as its tasks, with suggestions; and its export as decisions.

A task is {"data": {...}, "predictions": [...]}, its export the same with "annotations"; see
https://labelstud.io/guide/tasks and https://labelstud.io/guide/export. Every task carries the
number of its sample and the digest of the labels that it is about.
"""

import json
import math
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from robustdiff.files.atomic import write_text
from robustdiff.labels.corrected import Corrected
from robustdiff.review.decisions import Decision

# What Label Studio serves files of this machine by; see docs/corrections.md.
_SERVED = "/data/local-files/?d="
_IMAGE, _CHOICE, _MODEL = "image", "label", "robustdiff"
# As much of a malformed part is shown.
_SHOWN = 60
_Kind = TypeVar("_Kind")


class Special(NamedTuple):
    """Choices that are no classes, by names that no class has."""

    remove: str
    unsure: str


def special_choices(class_names: Sequence[str]) -> Special:
    """Return the choices that are no classes."""
    remove, unsure = "[remove]", "[unsure]"
    while remove in class_names or unsure in class_names:
        remove, unsure = f"[{remove}]", f"[{unsure}]"
    return Special(remove, unsure)


def write_tasks(path: Path, corrected: Corrected, root: Path, chosen: Sequence[int]) -> Path:
    """Write tasks for Label Studio, and beside them the labelling interface that they need.

    Args:
        path: The .json file.
        corrected: The labels; the suggestion of an image is its corrected label.
        root: The folder of images.
        chosen: Which samples, in the order in which a person is to see them.

    Returns:
        The file of the interface, see `interface_of`.

    Raises:
        OSError: If they cannot be written.
    """
    tasks = [_task(corrected, root, number) for number in chosen]
    write_text(path, json.dumps(tasks, indent=1) + "\n")
    interface = interface_of(path)
    write_text(interface, _interface(corrected.class_names))
    return interface


def interface_of(path: Path) -> Path:
    """Return the file of the labelling interface that goes with tasks."""
    return path.with_suffix(".xml")


def _task(corrected: Corrected, root: Path, number: int) -> dict[str, Any]:
    before, names = corrected.before, corrected.class_names
    assert before.paths is not None
    file, likelihood = before.paths[number], float(corrected.likelihood[number])
    suggestion = special_choices(names).remove
    if not corrected.removed[number]:
        suggestion = names[corrected.labels[number]]
    return {
        "data": {
            _IMAGE: _SERVED + quote(os.fsencode(f"{root.resolve().name}/{file}")),
            "index": number,
            "file": _text(file),
            "given_label": _text(names[before.given[number]]),
            "labels_sha256": before.sha256,
        },
        "predictions": [
            {
                "model_version": _MODEL,
                "score": 0.0 if math.isnan(likelihood) else round(likelihood, 6),
                "result": [
                    {
                        "from_name": _CHOICE,
                        "to_name": _IMAGE,
                        "type": "choices",
                        "value": {"choices": [_text(suggestion)]},
                    }
                ],
            }
        ],
    }


def _interface(class_names: Sequence[str]) -> str:
    """Return the labelling interface: the image, and one choice among all classes."""
    choices = [
        f"    <Choice value={quoteattr(_text(name))}/>"
        for name in (*class_names, *special_choices(class_names))
    ]
    return "\n".join(
        [
            "<View>",
            f'  <Image name="{_IMAGE}" value="${_IMAGE}"/>',
            '  <Header value="$file (given: $given_label)"/>',
            f'  <Choices name="{_CHOICE}" toName="{_IMAGE}" choice="single" showInline="true">',
            *choices,
            "  </Choices>",
            "</View>\n",
        ]
    )


def _text(name: str) -> str:
    """Spell out bytes that are not UTF-8, which neither JSON nor XML can hold."""
    return name.encode(errors="backslashreplace").decode()


class Annotation(NamedTuple):
    """What people chose for an image.

    Attributes:
        decision: Their decision.
        time: When the last of them chose, in seconds since 1970; None where it is not said.
        is_torn: Whether they chose differently, so that the decision is that they are unsure.
    """

    decision: Decision
    time: float | None
    is_torn: bool


class Annotated(NamedTuple):
    """What came back.

    Attributes:
        annotations: Those of annotated tasks.
        skipped: How many tasks have no annotation, or were skipped.
    """

    annotations: list[Annotation]
    skipped: int


def read_annotations(path: Path, corrected: Corrected) -> Annotated:
    """Read the JSON export of tasks that `write_tasks` has made.

    Args:
        path: The file.
        corrected: The labels that it must be about.

    Raises:
        ValueError: If it is something else, about other labels, or names a class that there is not.
    """
    try:
        tasks = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ValueError(f"{path} is not JSON, or is damaged") from error
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise ValueError(f"{path} must hold a list of tasks; export it from Label Studio as JSON")
    annotations: list[Annotation] = []
    skipped = 0
    for place, task in enumerate(tasks, start=1):
        where = f"task {place} of {path}"
        sample = _sample(task, corrected, where)
        if "annotations" not in task:
            raise ValueError(f"{path} holds no annotations; export it from Label Studio as JSON")
        words, time = _choices(task, where)
        found = {_decision(word, sample, corrected, path) for word in words}
        skipped += not found
        if found:
            is_torn = len(found) > 1
            decision = Decision(sample, "unsure") if is_torn else found.pop()
            annotations.append(Annotation(decision, time, is_torn))
    return Annotated(annotations, skipped)


def _sample(task: dict[str, Any], corrected: Corrected, where: str) -> int:
    data = task.get("data")
    if not isinstance(data, dict) or "labels_sha256" not in data:
        raise ValueError(f"{where} was not made by robustdiff: its data has no labels_sha256")
    number, before = data.get("index"), corrected.before
    if data["labels_sha256"] != before.sha256:
        raise ValueError(f"{where} is about other labels than those of this run")
    count = len(before.given)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise ValueError(f"{where} must have an index in [0, {count}), got {number!r}")
    return number


def _choices(task: dict[str, Any], where: str) -> tuple[list[str], float | None]:
    """Return what every annotator of a task chose, and when the last one did."""
    found: list[str] = []
    times: list[float | None] = []
    for annotation in _listed(task["annotations"], dict, "annotations", where):
        if annotation.get("was_cancelled"):
            continue
        times.append(_time(annotation, where))
        for result in _listed(annotation.get("result"), dict, "result", where):
            if result.get("from_name") == _CHOICE:
                (value,) = _listed([result.get("value", {})], dict, "value", where)
                found += _listed(value.get("choices"), str, "choices", where)
    known = [time for time in times if time is not None]
    return found, max(known) if known and len(known) == len(times) else None


def _time(annotation: dict[str, Any], where: str) -> float | None:
    """Return when an annotation was last changed; None where it does not say."""
    name = "created_at" if annotation.get("updated_at") is None else "updated_at"
    if annotation.get(name) is None:
        return None
    try:
        time = datetime.fromisoformat(annotation[name])
    except (TypeError, ValueError) as error:
        raise _not_written(name, annotation[name], where) from error
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()


def _listed(part: object, kind: type[_Kind], name: str, where: str) -> list[_Kind]:
    """Return a list of an export; null is an empty one."""
    if part is None:
        return []
    if isinstance(part, list) and all(isinstance(each, kind) for each in part):
        return part
    raise _not_written(name, part, where)


def _not_written(name: str, part: object, where: str) -> ValueError:
    return ValueError(
        f"{name} of {where} is not what Label Studio writes, got {json.dumps(part)[:_SHOWN]}; "
        "export it from Label Studio as JSON"
    )


def _decision(words: str, sample: int, corrected: Corrected, path: Path) -> Decision:
    names = [_text(name) for name in corrected.class_names]
    special = special_choices(corrected.class_names)
    if words == special.remove:
        return Decision(sample, "remove")
    if words == special.unsure:
        return Decision(sample, "unsure")
    if words not in names:
        raise ValueError(f"{path} names a class {words!r} that the run has not")
    label = names.index(words)
    if label == corrected.before.given[sample]:
        return Decision(sample, "keep")
    return Decision(sample, "relabel", label)
