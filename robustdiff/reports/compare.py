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

from robustdiff.config.layers import flat, to_plain
from robustdiff.config.sections import Config, NoiseConfig
from robustdiff.files.atomic import write_text
from robustdiff.reports.figures import write_figure
from robustdiff.reports.markdown import plain_text
from robustdiff.runs.folder import Run

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
        None
        if m.get("estimated_noise") is None or m["noise"] is None
        else abs(m["estimated_noise"] - m["noise"])
    ),
    "training seconds": lambda m: m.get("training_seconds"),
    "scoring seconds": lambda m: m.get("scoring_seconds"),
    "preparing seconds": lambda m: m.get("preparing_seconds"),
}
GAP = "gap closed"
_CLEAN, _UNKNOWN = "clean", "unknown"
_AS_THEY_ARE = (_CLEAN, _UNKNOWN)
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
# Entry of metrics.json -> the setting that it stands for: an evaluation may have had its own.
_JUDGED_BY = {
    "features": "eval.features",
    "num_samples": "eval.num_samples",
    "guidance": "sample.guidance",
    "guidance_weight": "sample.guidance_weight",
    "sampler": "sample.sampler",
    "steps": "sample.steps",
    "evaluator_sha256": "evaluator",
}
# As many of an evaluator's digest are shown.
_DIGITS = 12


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


class _Judged(NamedTuple):
    """An evaluated run.

    Attributes:
        config: Its configuration.
        metrics: Its figures.
        settings: What repetitions have in common, dotted key -> value.
        noise: Which noise its labels have.
    """

    config: Config
    metrics: Metrics
    settings: dict[str, Any]
    noise: str

    @property
    def setup(self) -> str:
        """What the run has in common with those it is measured against."""
        apart = ("noise.", "objective.", "curriculum.")
        return json.dumps([s for s in self.settings.items() if not s[0].startswith(apart)])


def compare_runs(runs: Sequence[Run]) -> list[Row]:
    """Group runs that differ in their seed alone, and were judged alike.

    The gap closed is (uniform - method) / (uniform - clean) in class-wise FID, seed by seed: 1 is
    as good as clean labels, or labels as they are where the truth is unknown. It needs runs with
    curriculum "uniform" on noisy and on clean labels.

    Args:
        runs: Evaluated runs; of two with the same settings and seed the one evaluated last counts.

    Returns:
        Rows, by noise, clean labels first, and the lowest class-wise FID first.

    Raises:
        ValueError: If a run's metrics cannot be read.
    """
    groups: dict[str, dict[int, _Judged]] = {}
    for run in sorted(runs, key=lambda run: run.metrics_file.stat().st_mtime_ns):
        judged = _judged(run)
        repetitions = groups.setdefault(json.dumps(judged.settings), {})
        repetitions[judged.config.seed] = judged
    plain = {
        (judged.noise, judged.setup, seed): float(judged.metrics["class_fid"])
        for group in groups.values()
        for seed, judged in group.items()
        if judged.config.curriculum.name == "uniform" and judged.config.objective.name == "plain"
    }
    firsts = [next(iter(group.values())) for group in groups.values()]
    headings, names = _headings(firsts), _method_names(firsts)
    rows = []
    for group, first, name in zip(groups.values(), firsts, names, strict=True):
        seeds = sorted(group)
        values = {
            title: [float(v) for seed in seeds if (v := column(group[seed].metrics)) is not None]
            for title, column in COLUMNS.items()
        }
        gaps = (_gap(group[seed], plain) for seed in seeds)
        values[GAP] = [gap for gap in gaps if gap is not None]
        rows.append(Row(headings[first.noise], name, seeds, values))
    return sorted(rows, key=lambda row: (row.noise not in _AS_THEY_ARE, row.noise, _quality(row)))


def _gap(judged: _Judged, plain: dict[tuple[str, str, int], float]) -> float | None:
    """Return the gap closed; None without both ends of it, or where they are the same."""
    rest = (judged.setup, judged.config.seed)
    noisy = plain.get((judged.noise, *rest))
    clean = next((plain[key] for name in _AS_THEY_ARE if (key := (name, *rest)) in plain), None)
    if judged.noise in _AS_THEY_ARE or noisy is None or clean is None or noisy == clean:
        return None
    return (noisy - float(judged.metrics["class_fid"])) / (noisy - clean)


def _quality(row: Row) -> float:
    return float(np.mean(row.values["class-wise FID"]))


def _judged(run: Run) -> _Judged:
    try:
        metrics: Metrics = json.loads(run.metrics_file.read_text())
        for column in COLUMNS.values():
            float(column(metrics) or 0)
        float(metrics["noise"] or 0)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {run.metrics_file}: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{run.metrics_file} does not hold an evaluation's figures") from error
    config = run.config()
    return _Judged(config, metrics, _settings(config, metrics), _noise(config, metrics))


def _settings(config: Config, metrics: Metrics) -> dict[str, Any]:
    settings = flat(to_plain(config))
    if config.curriculum.name == "uniform":
        # Settings of scores say nothing where there are none.
        named = ("curriculum.name", "curriculum.treatment")
        settings = {
            k: v for k, v in settings.items() if k in named or not k.startswith("curriculum.")
        }
    settings |= {key: metrics[name] for name, key in _JUDGED_BY.items() if name in metrics}
    return {key: value for key, value in settings.items() if key not in _FREE}


def _noise(config: Config, metrics: Metrics) -> str:
    if metrics["noise"] is None:
        return _UNKNOWN
    if config.noise.labels is None and not metrics["noise"]:
        return _CLEAN
    return json.dumps(to_plain(config)["noise"])


def _headings(runs: Sequence[_Judged]) -> dict[str, str]:
    """Name every noise; those of one name by every setting in which they differ besides."""
    alike: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        name = run.noise if run.noise in _AS_THEY_ARE else _noise_name(run.config.noise)
        noise = {} if run.noise in _AS_THEY_ARE else json.loads(run.noise)
        alike.setdefault(name, {})[run.noise] = noise
    headings = {}
    for name, noises in alike.items():
        for key, mine in noises.items():
            differs = (k for k in mine if any(other[k] != mine[k] for other in noises.values()))
            headings[key] = " ".join([name, *(_shown(k, mine[k]) for k in differs)])
    return headings


def _noise_name(noise: NoiseConfig) -> str:
    if noise.labels is not None:
        return f"labels of {Path(noise.labels).name} {noise.labels_key or ''}".strip()
    if noise.matrix is not None:
        return f"matrix {Path(noise.matrix).name}"
    return f"{noise.type} {noise.rate:g}"


def _shown(setting: str, value: Any) -> str:  # noqa: ANN401 whatever a setting holds
    return f"{setting}={value if isinstance(value, str) else json.dumps(value)}"


def _method_names(runs: Sequence[_Judged]) -> list[str]:
    """Name methods by objective or curriculum, and every setting in which runs differ besides."""
    named = ("objective.name", "curriculum.name", "curriculum.treatment")
    names = []
    for run in runs:
        curriculum, objective = run.config.curriculum, run.config.objective
        parts: list[str] = [curriculum.name if objective.name == "plain" else objective.name]
        parts += [] if curriculum.treatment is None else [curriculum.treatment]
        for key, value in run.settings.items():
            section, _, setting = key.rpartition(".")
            if section == "noise" or key in named:
                continue
            # Settings of one objective or curriculum say nothing about another.
            own = f"{section}.name"
            others = [
                other.settings
                for other in runs
                if own not in run.settings or other.settings[own] == run.settings[own]
            ]
            if any(other.get(key) != value for other in others):
                short = value[:_DIGITS] if key == "evaluator" and value else value
                parts.append(_shown(key if section == "sample" else setting, short))
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
