"""Runs side by side: means and 95 % intervals over seeds, and how much of the loss was won back."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from robustdiff.config.sections import Config
from robustdiff.files.atomic import write_text
from robustdiff.files.csv_text import csv_text
from robustdiff.metrics.catalogue import DETECTION, FLAG, FURTHER, METRICS, evaluator_in_words
from robustdiff.progress import Report
from robustdiff.reports.evaluated import AS_THEY_ARE, Evaluated, evaluated, headings, method_names
from robustdiff.reports.figures import comparison_figure, write_figure
from robustdiff.reports.intervals import cell, interval
from robustdiff.reports.markdown import plain_text
from robustdiff.runs.evaluations import Evaluation, Metrics, evaluations
from robustdiff.runs.folder import PublishedRun, Run


def _entry(metrics: Metrics, *, key: str) -> float | None:
    value: float | None = metrics[key] if key in _NEEDED else metrics.get(key)
    return value


def _noise_error(metrics: Metrics) -> float | None:
    estimated, true = metrics.get("estimated_noise"), metrics["noise"]
    return None if estimated is None or true is None else abs(estimated - true)


def _detected(key: str) -> Callable[[Metrics], float | None]:
    def figure(metrics: Metrics) -> float | None:
        found = metrics["detection"]
        value: float | None = found and (found.get(key) if key in FLAG else found[key])
        return value

    return figure


# Column -> figure of one evaluation, None where it has none.
COLUMNS: dict[str, Callable[[Metrics], float | None]] = {
    **{metric.title: partial(_entry, key=metric.key) for metric in METRICS},
    **{f"{metric.title}, real": partial(_entry, key=metric.real) for metric in METRICS},
    **{metric.title: partial(_entry, key=metric.key) for metric in FURTHER},
    **{f"{metric.title}, real": partial(_entry, key=metric.real) for metric in FURTHER},
    **{title: _detected(key) for key, title in (DETECTION | FLAG).items()},
    "noise error": _noise_error,
    "labels corrected for the evaluator": partial(_entry, key="evaluator_corrected"),
    "training seconds": partial(_entry, key="training_seconds"),
    "scoring seconds": partial(_entry, key="scoring_seconds"),
    "preparing seconds": partial(_entry, key="preparing_seconds"),
}
GAP, ABOVE = "gap closed", "above clean"
ALL = (*COLUMNS, GAP, ABOVE)
# Every evaluation has these; others came later.
_NEEDED = ("label_accuracy", "nll", "class_fid", "fid")
_MAIN = (
    "label accuracy",
    "label accuracy, real",
    "NLL",
    "class-wise FID",
    ABOVE,
    GAP,
    "AUROC",
    "precision at rate",
    "noise error",
)
# Shown where an evaluation has them.
_BESIDES = ("CAS", "CAS, real", "F1 of the flag", "copies", "copies, real")


class Row(NamedTuple):
    """Repetitions of one method under one noise.

    Attributes:
        noise: What was done to the labels.
        method: What was done about it.
        seeds: Seeds of the repetitions.
        values: Column -> one figure per seed; empty where the method has none.
    """

    noise: str
    method: str
    seeds: list[int]
    values: dict[str, list[float]]


def find_runs(paths: Sequence[Path]) -> list[Run]:
    """Return the evaluated runs at or under some folders.

    Raises:
        ValueError: If a folder holds none, or is a published model.
    """
    found = []
    for path in paths:
        run, published = Run(path), PublishedRun(path)
        if published.config_file.exists() and not run.config_file.exists():
            raise ValueError(f"{path} is a published model; name the run that it was made of")
        files = [run.metrics_file]
        if not run.metrics_file.exists():
            # An export and a folder of evaluations have figures, too, and are no runs.
            files = sorted(path.rglob(run.metrics_file.name))
            files = [file for file in files if Run(file.parent).config_file.exists()]
        if not files:
            raise ValueError(f"{path} holds no evaluated run; make one with: robustdiff eval")
        found += [Run(file.parent) for file in files]
    return list(dict.fromkeys(found))


def compare_runs(runs: Sequence[Run], report: Report | None = None) -> list[Row]:
    """Group evaluations that differ in the run's seed alone.

    The gap closed is (uniform - method) / (uniform - clean) in class-wise FID, seed by seed: 1 is
    as good as clean labels, or labels as they are where the truth is unknown. It needs runs with
    curriculum "uniform" on noisy and on clean labels. "above clean" is method - clean in that
    distance itself: a small part of a large gap can be large beside what clean labels reach.

    Args:
        runs: Evaluated runs, all evaluations of each; of two with the same settings and seed the
            last counts. Runs on label files repeat each other if their labels are the same,
            whatever the files are called.
        report: Receives a line for each evaluation that is left out.

    Returns:
        Rows, by noise, clean labels first, and the lowest class-wise FID first.

    Raises:
        ValueError: If a run's metrics cannot be read.
        DamagedError: If a run's configuration, or its labels that came from a file, are damaged.
    """
    groups = _repetitions(runs, report or Report())
    plain = {
        (one.noise, one.setup, seed): float(one.metrics["class_fid"])
        for group in groups
        for seed, one in group.items()
        if one.config.curriculum.name == "uniform"
        and one.config.objective.name == "plain"
        and not one.settings["sample.undo_label_noise"]
        and one.metrics["class_fid"] is not None
    }
    firsts = [next(iter(group.values())) for group in groups]
    noises, names = headings(firsts), method_names(firsts)
    rows = []
    for group, first, name in zip(groups, firsts, names, strict=True):
        seeds = sorted(group)
        values = {
            title: [float(v) for seed in seeds if (v := column(group[seed].metrics)) is not None]
            for title, column in COLUMNS.items()
        }
        for title, measured in ((GAP, _gap), (ABOVE, _above)):
            measures = (measured(group[seed], plain) for seed in seeds)
            values[title] = [value for value in measures if value is not None]
        rows.append(Row(noises[first.noise], name, seeds, values))
    return sorted(rows, key=lambda row: (row.noise not in AS_THEY_ARE, row.noise, _quality(row)))


def _repetitions(runs: Sequence[Run], report: Report) -> list[dict[int, Evaluated]]:
    """Return the evaluations of the same settings by seed, those of every settings apart."""
    found = []
    for run in runs:
        config = run.config()
        digest = None if config.noise.labels is None else run.given_digest()
        found += [_checked(one, config, digest) for one in evaluations(run)]
    groups: dict[str, dict[int, Evaluated]] = {}
    for one in sorted(found, key=lambda one: one.path.stat().st_mtime_ns):
        seeds, seed = groups.setdefault(json.dumps(one.settings), {}), one.config.seed
        if seed in seeds:
            report.message(
                f"left out: {seeds[seed].path}, since {one.path} has the same settings and the "
                f"same seed, {seed}, and was written later"
            )
        seeds[seed] = one
    return list(groups.values())


def _gap(evaluated: Evaluated, plain: dict[tuple[str, str, int], float]) -> float | None:
    """Return the gap closed; None without both ends of it, or where they are the same."""
    noisy = plain.get((evaluated.noise, evaluated.setup, evaluated.config.seed))
    clean, mine = _clean(evaluated, plain), evaluated.metrics["class_fid"]
    if evaluated.noise in AS_THEY_ARE or noisy is None or clean is None or noisy == clean:
        return None
    # Between labels as they are and corrected ones there is no clean end.
    return (
        None
        if mine is None or evaluated.metrics["noise"] is None
        else (noisy - float(mine)) / (noisy - clean)
    )


def _above(evaluated: Evaluated, plain: dict[tuple[str, str, int], float]) -> float | None:
    """Return how far the class-wise FID lies above that of clean labels; None without one."""
    clean, mine = _clean(evaluated, plain), evaluated.metrics["class_fid"]
    return None if mine is None or clean is None else float(mine) - clean


def _clean(evaluated: Evaluated, plain: dict[tuple[str, str, int], float]) -> float | None:
    rest = (evaluated.setup, evaluated.config.seed)
    return next((plain[key] for name in AS_THEY_ARE if (key := (name, *rest)) in plain), None)


def _quality(row: Row) -> float:
    # A handful of images has no class-wise distance.
    return float(np.mean(row.values["class-wise FID"] or row.values["FID"]))


def _checked(evaluation: Evaluation, config: Config, digest: str | None) -> Evaluated:
    path, metrics = evaluation
    try:
        for column in COLUMNS.values():
            float(column(metrics) or 0)
        float(metrics["noise"] or 0)
        return evaluated(evaluation, config, digest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} does not hold an evaluation's figures") from error


def by_noise(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each noise, in their order."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.noise, []).append(row)
    return parts


def evaluators_in_words(rows: Sequence[Row]) -> list[str]:
    """Return how far the evaluators of some rows are to be trusted, one line for each of them."""
    lines = []
    for row in rows:
        accuracy = row.values["label accuracy, real"]
        corrected = row.values["labels corrected for the evaluator"]
        if accuracy:  # earlier versions did not write it down
            share = float(np.mean(corrected)) if corrected else None
            lines.append(evaluator_in_words(float(np.mean(accuracy)), share))
    return list(dict.fromkeys(lines))


def main_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns that tables show: the main ones, and some where an evaluation has them."""
    return [*_MAIN, *(name for name in _BESIDES if any(row.values[name] for row in rows))]


def markdown(rows: Sequence[Row]) -> str:
    """Return the comparison's main columns as one Markdown table for each noise."""
    lines = []
    shown = main_columns(rows)
    for noise, part in by_noise(rows).items():
        lines += [f"### {plain_text(noise)}", "", "| method | seeds | " + " | ".join(shown) + " |"]
        lines.append("|---" * (len(shown) + 2) + "|")
        for row in part:
            cells = " | ".join(cell(row.values[name]) for name in shown)
            lines.append(f"| {plain_text(row.method)} | {len(row.seeds)} | {cells} |")
        lines += ["", *(f"- {line}" for line in evaluators_in_words(part)), ""]
    return "\n".join(lines)


def write_comparison(rows: Sequence[Row], folder: Path) -> None:
    """Write compare.md, .csv, .json and .png.

    Args:
        rows: See `compare_runs`.
        folder: Made if missing; files of the same names are replaced.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "compare.md", markdown(rows))
    write_text(
        folder / "compare.json", json.dumps([row._asdict() for row in rows], indent=2) + "\n"
    )
    heads = [f"{name} {part}" for name in ALL for part in ("mean", "half-width")]
    lines: list[list[object]] = [["noise", "method", "seeds", *heads]]
    for row in rows:
        figures = [interval(v) if (v := row.values[name]) else (None, None) for name in ALL]
        lines.append(
            [row.noise, row.method, len(row.seeds), *(f for pair in figures for f in pair)]
        )
    write_text(folder / "compare.csv", csv_text(lines))
    parts = by_noise(rows).items()
    drawn = {noise: [(row.method, row.values) for row in part] for noise, part in parts}
    write_figure(comparison_figure(drawn), folder / "compare.png")
