"""Files that say of which shape and classes the images are that a model makes."""

import json
from pathlib import Path
from typing import Any

from robustdiff.data.arrays import Subject
from robustdiff.errors import DamagedError


def _are(values: object, kind: type) -> bool:
    """Return whether a value of JSON is a list of so many things of one type, at least one."""
    return isinstance(values, list) and len(values) > 0 and {*map(type, values)} == {kind}


def read_facts(file: Path) -> dict[str, Any]:
    """Read a file about a model, which gives the shape and the classes of its images.

    Raises:
        DamagedError: If it is damaged.
    """
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        shape, names = facts["image_shape"], facts["class_names"]
        if not (_are(shape, int) and len(shape) == 3 and min(shape) > 0 and _are(names, str)):
            raise ValueError(
                f"image_shape must be three numbers and class_names names, got {shape!r} and "
                f"{names!r}"
            )
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DamagedError(f"{file} is damaged: {error}") from error
    return dict(facts)


def subject_in(facts: dict[str, Any], name: str) -> Subject:
    """Return what such a file says, under a name of the dataset."""
    shape, names = tuple(facts["image_shape"]), tuple(facts["class_names"])
    return Subject(name=name, image_shape=shape, class_names=names)
