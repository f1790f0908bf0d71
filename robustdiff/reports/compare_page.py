"""compare.html: runs side by side, their figures on common scales and their last samples."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robustdiff import __version__
from robustdiff.metrics.catalogue import METRICS
from robustdiff.reports.charts import range_bar
from robustdiff.reports.compare import Row, by_noise, evaluators_in_words, main_columns
from robustdiff.reports.intervals import cell, interval
from robustdiff.reports.page import render, write_page
from robustdiff.reports.run_page import sample_pictures, training_curves
from robustdiff.runs.folder import Run
from robustdiff.runs.history import read_history

PAGE_NAME = "compare.html"
_MOST_RUNS = 24
# Columns that are drawn, beside the figure; those of real images stand within them.
_DRAWN = ("label accuracy", "NLL", "class-wise FID", "AUROC", "CAS")
_LOGARITHMIC = {metric.title for metric in METRICS if metric.logarithmic}


def write_compare_page(rows: Sequence[Row], runs: Sequence[Run], folder: Path) -> None:
    """Write compare.html.

    Args:
        rows: See `robustdiff.reports.compare.compare_runs`.
        runs: The runs that were compared.
        folder: An existing folder.
    """
    page = render(
        "compare.html.j2",
        parts=[
            {
                "noise": noise,
                "columns": (columns := _columns(part)),
                "rows": [_row(row, part, columns) for row in part],
                "notes": evaluators_in_words(part),
            }
            for noise, part in by_noise(rows).items()
        ],
        runs=[_run(run) for run in runs[:_MOST_RUNS]],
        left_out=max(0, len(runs) - _MOST_RUNS),
        command=f"robustdiff compare {' '.join(shlex.quote(str(run.path)) for run in runs)}",
        others="Every figure is in compare.csv and compare.json beside this page.",
        version=__version__,
    )
    write_page(folder / PAGE_NAME, page)


def _columns(part: Sequence[Row]) -> list[str]:
    """Return the main columns that hold a figure; those of real images are drawn in the others."""
    columns = [name for name in main_columns(part) if any(row.values[name] for row in part)]
    return [name for name in columns if not name.endswith(", real")]


def _row(row: Row, part: Sequence[Row], columns: Sequence[str]) -> dict[str, Any]:
    cells = [{"text": cell(row.values[name]), "bar": _bar(row, part, name)} for name in columns]
    return {"method": row.method, "seeds": len(row.seeds), "cells": cells}


def _bar(row: Row, part: Sequence[Row], name: str) -> str:
    """Draw a figure on the scale that all methods under one noise share."""
    values = row.values[name]
    if name not in _DRAWN or not values:
        return ""
    mean, half = interval(values)
    real = row.values.get(f"{name}, real", [])
    low, high = min(values), max(values)
    # An interval over few seeds is often wider than all figures; the picture shows what fits.
    ends = None if half is None else (max(mean - half, low), min(mean + half, high))
    every = [value for other in part for value in other.values[name]]
    marks = [float(np.mean(real))] if real else []
    return range_bar(
        mean, ends, marks, points=values, beside=every, logarithmic=name in _LOGARITHMIC
    )


def _run(run: Run) -> dict[str, Any]:
    config, entries = run.config(), read_history(run)
    pictures = sample_pictures(run, most=1)
    method = config.curriculum.name if config.objective.name == "plain" else config.objective.name
    return {
        "name": str(run.path),
        "about": f"{method}, seed {config.seed}, {config.data.dataset}",
        "grid": pictures[-1] if pictures else None,
        "curves": training_curves(entries, None)[:2],
    }
