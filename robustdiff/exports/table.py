"""Corrected labels as a table, which `--labels` reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustdiff.files.atomic import write_text
from robustdiff.files.csv_text import csv_text
from robustdiff.labels.corrected import Corrected


def write_table(path: Path, corrected: Corrected, *, truth_known: bool) -> None:
    """Write a CSV file, one row a sample.

    Its columns are `index`, `file` for a folder, `label` (the corrected one, by name),
    `previous_label`, `decided_by` (given, judge, person or removed), `removed`, and `true_label`
    where the truth is known.

    Args:
        path: The file.
        corrected: The labels.
        truth_known: See `Corrected.record`.

    Raises:
        OSError: If it cannot be written.
    """
    before, names = corrected.before, corrected.class_names
    columns: dict[str, Sequence[Any]] = {"index": range(len(corrected.labels))}
    if before.paths is not None:
        columns["file"] = before.paths
    columns |= {
        "label": [names[label] for label in corrected.labels],
        "previous_label": [names[label] for label in before.given],
        "decided_by": corrected.decided_by,
        "removed": corrected.removed.tolist(),
    }
    if truth_known:
        columns["true_label"] = [names[label] for label in before.clean]
    write_text(path, csv_text([columns, *zip(*columns.values(), strict=True)]))
