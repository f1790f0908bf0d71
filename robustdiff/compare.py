"""Runs side by side: means and 95 % intervals over seeds, and how much of the loss was won back."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from scipy.stats import t as student

from robustdiff.config import Config, flat, to_plain
from robustdiff.files import write_text
from robustdiff.markdown import plain_text
from robustdiff.plots import write_figure
from robustdiff.runs import Run

Metrics = dict[str, Any]

# Column -> figure of one run, None where it has none.
COLUMNS: dict[str, Callable[[Metrics], float | None]] = {
    "label accuracy": lambda m: m["label_accuracy"],
    "NLL": lambda m: m["nll"],
    "class-wise FID": lambda m: m["class_fid"],
    "FID": lambda m: m["fid"],
    "inception score": lambda m: m.get("inception_score"),
    "density": lambda m: m.get("density"),
    "coverage": lambda m: m.get("coverage"),
    "label accuracy, real": lambda m: m.get("label_accuracy_real"),
    "NLL, real": lambda m: m.get("nll_real"),
    "class-wise FID, real": lambda m: m.get("class_fid_floor"),
    "FID, real": lambda m: m.get("fid_floor"),
    "inception score, real": lambda m: m.get("inception_score_real"),
    "density, real": lambda m: m.get("density_real"),
    "coverage, real": lambda m: m.get("coverage_real"),
    "AUROC": lambda m: m["detection"] and m["detection"]["auroc"],
    "precision at rate": lambda m: m["detection"] and m["detection"]["precision_at_rate"],
    "noise error": lambda m: (
        None if m.get("estimated_noise") is None else abs(m["estimated_noise"] - m["noise"])
    ),
    "training seconds": lambda m: m.get("training_seconds"),
    "scoring seconds": lambda m: m.get("scoring_seconds"),
}
GAP = "gap closed"
_CLEAN = "clean"
_MAIN = (
    "label accuracy",
    "NLL",
    "class-wise FID",
    GAP,
    "AUROC",
    "precision at rate",
    "noise error",
)
# What may differ between runs that are repetitions of each other.
_FREE = (
    "seed",
    "data.data_dir",
    "data.download",
    "train.device",
    "train.log_every",
    "train.sample_every",
    "train.checkpoint_every",
    "train.checkpoint_minutes",
)


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
        ValueError: If a folder holds none.
    """
    found = []
    for path in paths:
        own = Run(path).metrics_file
        files = [own] if own.exists() else sorted(path.rglob(own.name))
        if not files:
            raise ValueError(f"{path} holds no evaluated run; make one with: robustdiff eval")
        found += [Run(file.parent) for file in files]
    return list(dict.fromkeys(found))


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Group runs that differ in their seed alone.

    The gap closed is (uniform - method) / (uniform - clean) in class-wise FID, seed by seed: 1 is
    as good as clean labels. It needs runs with curriculum "uniform" on noisy and on clean labels.

    Args:
        runs: Evaluated runs.

    Returns:
        Rows, by noise, clean labels first, and the lowest class-wise FID first.

    Raises:
        ValueError: If a run's metrics cannot be read.
    """
    entries = [(run.config(), _metrics(run)) for run in runs]
    groups: dict[str, list[tuple[Config, Metrics]]] = {}
    for config, metrics in entries:
        groups.setdefault(json.dumps(_settings(config)), []).append((config, metrics))
    plain = {
        (_noise(config, metrics), _setup(config), config.seed): metrics["class_fid"]
        for config, metrics in entries
        if config.curriculum.name == "uniform" and config.objective.name == "plain"
    }
    names = _method_names([group[0][0] for group in groups.values()])
    rows = []
    for group, method in zip(groups.values(), names, strict=True):
        group.sort(key=lambda entry: entry[0].seed)
        values = {
            name: [float(v) for _, m in group if (v := column(m)) is not None]
            for name, column in COLUMNS.items()
        }
        noise = _noise(*group[0])
        values[GAP] = [
            (noisy - metrics["class_fid"]) / (noisy - clean)
            for config, metrics in group
            if (noisy := plain.get((noise, _setup(config), config.seed))) is not None
            and (clean := plain.get((_CLEAN, _setup(config), config.seed))) is not None
            and noise != _CLEAN
        ]
        rows.append(Row(noise, method, [config.seed for config, _ in group], values))
    return sorted(rows, key=lambda row: (row.noise != _CLEAN, row.noise, _quality(row)))


def _quality(row: Row) -> float:
    return float(np.mean(row.values["class-wise FID"]))


def _metrics(run: Run) -> Metrics:
    try:
        metrics: Metrics = json.loads(run.metrics_file.read_text())
        for column in COLUMNS.values():
            float(column(metrics) or 0)
        float(metrics["noise"])
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {run.metrics_file}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.metrics_file} does not hold an evaluation's figures") from error
    return metrics


def _settings(config: Config) -> dict[str, Any]:
    """Return what repetitions have in common, dotted key -> value."""
    settings = flat(to_plain(config))
    if config.curriculum.name == "uniform":
        # Settings of scores say nothing where there are none.
        named = ("curriculum.name", "curriculum.treatment")
        settings = {
            k: v for k, v in settings.items() if k in named or not k.startswith("curriculum.")
        }
    return {key: value for key, value in settings.items() if key not in _FREE}


def _setup(config: Config) -> str:
    """Return what a run has in common with those it is measured against."""
    apart = ("noise.", "objective.", "curriculum.")
    return json.dumps([s for s in _settings(config).items() if not s[0].startswith(apart)])


def _noise(config: Config, metrics: Metrics) -> str:
    if config.noise.labels is not None:
        return f"labels of {Path(config.noise.labels).name} {config.noise.labels_key or ''}".strip()
    return f"{config.noise.type} {config.noise.rate:g}" if metrics["noise"] else _CLEAN


def _method_names(configs: Sequence[Config]) -> list[str]:
    """Name methods by objective or curriculum, and every setting in which runs differ besides."""
    settings = [_settings(config) for config in configs]
    named = ("objective.name", "curriculum.name", "curriculum.treatment")
    names = []
    for config, mine in zip(configs, settings, strict=True):
        curriculum, objective = config.curriculum, config.objective
        parts: list[str] = [curriculum.name if objective.name == "plain" else objective.name]
        parts += [] if curriculum.treatment is None else [curriculum.treatment]
        for key, value in mine.items():
            section, _, setting = key.rpartition(".")
            if section == "noise" or key in named:
                continue
            # Settings of one objective or curriculum say nothing about another.
            own = f"{section}.name"
            others = [s for s in settings if own not in mine or s[own] == mine[own]]
            if any(other.get(key) != value for other in others):
                parts.append(f"{setting}={value if isinstance(value, str) else json.dumps(value)}")
        names.append(" ".join(parts))
    return names


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and half-width of the 95 % interval (Student's t); None for one value."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, None
    width = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return mean, float(width)


def cell(values: Sequence[float]) -> str:
    """Format values as mean ± half-width."""
    if not values:
        return "-"
    mean, half = interval(values)
    return f"{mean:.3f}" if half is None else f"{mean:.3f} ± {half:.3f}"


def by_noise(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each noise, in their order."""
    parts: dict[str, list[Row]] = {}
    for row in rows:
        parts.setdefault(row.noise, []).append(row)
    return parts


def markdown(rows: Sequence[Row]) -> str:
    """Return the comparison's main columns as one Markdown table for each noise."""
    lines = []
    for noise, part in by_noise(rows).items():
        lines += [f"### {plain_text(noise)}", "", "| method | seeds | " + " | ".join(_MAIN) + " |"]
        lines.append("|---" * (len(_MAIN) + 2) + "|")
        for row in part:
            cells = " | ".join(cell(row.values[name]) for name in _MAIN)
            lines.append(f"| {plain_text(row.method)} | {len(row.seeds)} | {cells} |")
        lines.append("")
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
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [*COLUMNS, GAP]
    heads = [f"{name} {part}" for name in names for part in ("mean", "half-width")]
    writer.writerow(["noise", "method", "seeds", *heads])
    for row in rows:
        figures = [interval(v) if (v := row.values[name]) else (None, None) for name in names]
        writer.writerow(
            [row.noise, row.method, len(row.seeds), *(f for pair in figures for f in pair)]
        )
    write_text(folder / "compare.csv", text.getvalue())
    write_figure(comparison_figure(rows), folder / "compare.png")


def comparison_figure(rows: Sequence[Row]) -> Figure:
    """Draw class-wise FID and AUROC of every method, one panel row per noise."""
    parts = by_noise(rows)
    heights = [0.6 + 0.26 * len(part) for part in parts.values()]
    figure = Figure(figsize=(9, 1 + sum(heights)), dpi=110, layout="constrained")
    grid = figure.subplots(len(parts), 2, squeeze=False, height_ratios=heights)
    for panels, (noise, part) in zip(grid, parts.items(), strict=True):
        chosen = part[::-1]
        for axes, column in zip(panels, ("class-wise FID", "AUROC"), strict=True):
            for place, row in enumerate(chosen):
                if values := row.values[column]:
                    mean, half = interval(values)
                    axes.errorbar(mean, place, xerr=half or 0, fmt="o", color="tab:blue", ms=4)
                    axes.plot(values, [place] * len(values), "|", color="grey", ms=6)
            axes.set_ylim(-0.6, len(chosen) - 0.4)
            names = [row.method for row in chosen] if axes is panels[0] else [""] * len(chosen)
            axes.set_yticks(range(len(chosen)), names, fontsize=8, parse_math=False)
            axes.grid(axis="x", alpha=0.3)
            axes.set_title(f"{noise}: {column}", fontsize=9, loc="left", parse_math=False)
        panels[0].set_xscale("log")
        panels[0].xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].xaxis.set_major_formatter("{x:g}")
        panels[0].xaxis.set_minor_locator(NullLocator())
        panels[1].set_xlim(0, 1.02)
    return figure
