"""label_issues.csv, read again: the labels it lists with their doubts, in the order of a review."""

import csv
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels
from robustdiff.errors import DamagedError
from robustdiff.reports.audit import CSV_NAME
from robustdiff.runs.folder import Run

Order = Literal["gain", "quality"]


@dataclass(frozen=True, kw_only=True)
class Suspects:
    """What an audit found, M labels in the order in which a person looks at them.

    Attributes:
        numbers: (M,) int64, the numbers of the samples in the run.
        given: (M,) int64 labels as given.
        predicted: (M,) int64 likeliest classes; -1 where the audit named none.
        second: (M,) int64 next likeliest classes; -1 where the audit named none.
        quality: (M,) float64 in [0, 1]: how good each label is.
        is_probability: Whether `quality` is the probability that a label is right, or a rank.
        issues: What may be wrong with an image, kinds joined by ";"; the first is "" for nothing.
        issue: (M,) int64 in [0, len(issues)).
        class_names: K names.
    """

    numbers: NDArray[np.int64]
    given: NDArray[np.int64]
    predicted: NDArray[np.int64]
    second: NDArray[np.int64]
    quality: NDArray[np.float64]
    is_probability: bool
    issues: tuple[str, ...]
    issue: NDArray[np.int64]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def kinds(self) -> list[str]:
        """Every kind of issue that there is."""
        return sorted({kind for words in self.issues if words for kind in words.split(";")})

    def has(self, kind: str) -> NDArray[np.bool_]:
        """Return which images have an issue of this kind, (M,)."""
        with_it = [number for number, words in enumerate(self.issues) if kind in words.split(";")]
        return np.isin(self.issue, with_it)


def read_suspects(
    run: Run, labels: NoisyLabels, class_names: Sequence[str], order: Order = "gain"
) -> Suspects:
    """Read the label_issues.csv of a run.

    Args:
        run: The run.
        labels: All its labels.
        class_names: Names of its classes.
        order: Labels first whose decision is likeliest to change what leaves ("gain"; where the
            audit cannot say that, or says the same, by quality), or the worst ones ("quality").

    Raises:
        ValueError: If the run was not audited.
        DamagedError: If the file is damaged, or about other labels.
    """
    path, command = run.path / CSV_NAME, f"robustdiff audit {shlex.quote(str(run.path))}"
    if not path.exists():
        raise ValueError(f"{run.path} has no {CSV_NAME}; make it with: {command}")
    try:
        with path.open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            header, *rows = csv.reader(file)
        if any(len(row) != len(header) for row in rows):
            raise ValueError("a line has another number of columns")
        columns = {name: tuple(row[i] for row in rows) for i, name in enumerate(header)}
        found = _suspects(columns, tuple(class_names), order)
        if not np.array_equal(labels.given[found.numbers], found.given):
            raise ValueError("its labels are not those of the run")
    except (ValueError, KeyError, IndexError, csv.Error) as error:
        raise DamagedError(
            f"{path} is damaged or of another audit ({error}); make it again with: {command}"
        ) from error
    return found


def _suspects(
    columns: dict[str, tuple[str, ...]], class_names: tuple[str, ...], by: Order
) -> Suspects:
    is_probability = "label_quality" in columns
    quality = np.array(columns["label_quality" if is_probability else "label_score"], np.float64)
    keys = [quality]
    if by == "gain" and "gain" in columns:
        keys.append(-np.array(columns["gain"], np.float64))
    order = np.lexsort(keys)
    names, issue = np.unique(np.array(["", *columns["issue"]], dtype=object), return_inverse=True)
    number = {name: k for k, name in enumerate(class_names)}
    seconds = columns.get("second_predicted", ("",) * len(quality))
    given, predicted = (_integers(columns[f"{name}_label"]) for name in ("given", "predicted"))
    for labels in (given, predicted):
        if len(labels) and not -1 <= labels.min() <= labels.max() < len(class_names):
            raise ValueError(f"classes are 0 to {len(class_names) - 1}")
    return Suspects(
        numbers=_integers(columns["index"])[order],
        given=given[order],
        predicted=predicted[order],
        second=np.array([number.get(name, -1) for name in seconds], dtype=np.int64)[order],
        quality=quality[order],
        is_probability=is_probability,
        issues=tuple(names.tolist()),
        issue=issue[1:][order],
        class_names=class_names,
    )


def _integers(words: Sequence[str]) -> NDArray[np.int64]:
    """Return integers, -1 for an empty word."""
    return np.array([word or "-1" for word in words], dtype=np.int64)
