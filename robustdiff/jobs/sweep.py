"""One setting of sampling varied, every value judged: a CSV and a plot.

The CSV is also the record of what is done: a point that it has, under the same weights and the same
other settings, is not made again. So a sweep can be stopped, resumed and extended.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path

from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from robustdiff.config.sections import Config, SampleConfig
from robustdiff.data.registry import load_images
from robustdiff.diffusion.samplers import denoiser_calls
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256, write_text
from robustdiff.jobs.evaluate import classes_to_make, make_judge
from robustdiff.jobs.sample import sample_run
from robustdiff.metrics.report import measure
from robustdiff.progress import Report
from robustdiff.reports.figures import write_figure
from robustdiff.runs.folder import Run, open_run

Row = dict[str, str]

# What a point is a function of; rows that agree in the first part may share a plot, rows that
# differ in nothing but the swept setting share a line.
_JUDGED_BY = ("weights", "evaluator", "features", "num_samples", "seed")
_SPEED = ("batch_size", "compile")  # what changes the images at most by rounding
_SETTING = tuple(entry.name for entry in fields(SampleConfig) if entry.name not in _SPEED)
_KEY = (*_JUDGED_BY, *_SETTING)
# Figure -> (its name, the partner that real images get, logarithmic axis).
FIGURES = {
    "fid": ("FID", "fid_floor", True),
    "class_fid": ("class-wise FID", "class_fid_floor", True),
    "inception_score": ("inception score", "inception_score_real", False),
    "nll": ("NLL of the class", "nll_real", True),
    "label_accuracy": ("label accuracy", "label_accuracy_real", False),
    "coverage": ("coverage", "coverage_real", False),
}
_MEASURED = (*FIGURES, "kid", "density")
_PARTNERS = (*(partner for _, partner, _ in FIGURES.values()), "kid_floor", "density_real")
_COLUMNS = (*_KEY, "denoiser_calls", *_MEASURED, *_PARTNERS)
_SHORT = 12

# What is swept -> (swept entry of the setting, column on the horizontal axis, its name).
OVER = {
    "guidance": ("guidance_weight", "guidance_weight", "guidance weight w"),
    "steps": ("steps", "denoiser_calls", "denoiser calls per image"),
}


def settings_to_try(
    setting: SampleConfig, over: str, values: Sequence[float], samplers: Sequence[str]
) -> list[SampleConfig]:
    """Return the settings of a sweep: every sampler with every value.

    Args:
        setting: Everything else.
        over: Key of `OVER`.
        values: Guidance weights, or numbers of steps.
        samplers: Keys of `robustdiff.diffusion.samplers.SAMPLERS`.

    Raises:
        ValueError: If a value is out of range, or not finite.
    """
    if not values or not samplers:
        raise ValueError("a sweep needs at least one value and one sampler")
    if not all(map(math.isfinite, values)):
        raise ValueError(f"a sweep's values must be finite, got {', '.join(map(str, values))}")
    entry = OVER[over][0]
    if entry == "steps" and any(value != int(value) for value in values):
        raise ValueError(f"numbers of steps must be whole, got {', '.join(map(str, values))}")
    kind = int if entry == "steps" else float
    return [
        replace(setting, **{"sampler": sampler, entry: kind(value)})  # type: ignore[arg-type]
        for sampler in dict.fromkeys(samplers)
        for value in dict.fromkeys(values)
    ]


def sweep(
    run: Run,
    config: Config,
    report: Report,
    *,
    over: str,
    settings: Sequence[SampleConfig],
    seed: int,
    inception_weights: Path | None = None,
) -> list[Row]:
    """Judge settings and write `sweep-<over>.csv` and `.png` in the run's folder.

    Args:
        run: The run.
        config: Its configuration, for data and evaluation.
        report: Told about progress.
        over: Key of `OVER`.
        settings: What to try; those that the CSV holds are skipped.
        seed: Seed of the generated images.
        inception_weights: As for `robustdiff.jobs.evaluate.evaluate_run`.

    Returns:
        The rows of these settings.

    Raises:
        ValueError: If the run, its dataset or a setting cannot be used.
        DamagedError: If the CSV there is something else.
    """
    table = run.path / f"sweep-{over}.csv"
    read_table(table)  # better now than after the first point
    images = load_images(config.data, report)
    classes = classes_to_make(config, images)
    judge = make_judge(run, config, images, report, seed=seed, inception_weights=inception_weights)
    rows = []
    for number, setting in enumerate(settings):
        report.progress(f"sweep over {over}", number, len(settings))
        tried = replace(config, sample=setting)
        key = _key(run, tried, seed, len(classes), judge.digest)
        row = next((row for row in read_table(table) if _same(row, key, _KEY)), None)
        if row is None:
            generated = sample_run(run, tried, images, classes, seed, report)
            measured = measure(judge.reference, generated, classes)
            calls = denoiser_calls(setting.sampler, setting.steps)
            row = key | {"denoiser_calls": str(calls)}
            row |= {name: str(measured[name]) for name in (*_MEASURED, *_PARTNERS)}
            # Read again: another sweep of the run may have written meanwhile.
            _write_table(table, [*read_table(table), row])
        rows.append(row)
    report.progress(f"sweep over {over}", len(settings), len(settings))
    alike = [row for row in read_table(table) if _same(row, rows[0], _JUDGED_BY)]
    write_figure(sweep_figure(alike, over), table.with_suffix(".png"))
    return rows


def _key(run: Run, config: Config, seed: int, num_samples: int, digest: str) -> Row:
    setting = config.sample
    key = {name: str(getattr(setting, name)) for name in _SETTING}
    if setting.weak is not None:
        key["weak"] += "@" + sha256(open_run(Path(setting.weak)).weights_file)[:_SHORT]
    return {
        "weights": sha256(run.weights_file)[:_SHORT],
        "evaluator": digest[:_SHORT],
        "features": config.eval.features,
        "num_samples": str(num_samples),
        "seed": str(seed),
        **key,
    }


def _same(row: Row, other: Row, names: Sequence[str]) -> bool:
    return all(row[name] == other[name] for name in names)


def read_table(path: Path) -> list[Row]:
    """Read the rows of a sweep's CSV; none if there is no such file.

    Raises:
        DamagedError: If the file is something else.
    """
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode()), strict=True)
        rows = list(reader)
        whole = tuple(reader.fieldnames or ()) == _COLUMNS and all(
            None not in row and None not in row.values() for row in rows
        )
        for row in rows:
            [float(row[name]) for name in (*_MEASURED, *_PARTNERS)]
    except (ValueError, TypeError, KeyError, csv.Error):
        whole = False
    if not whole:
        raise DamagedError(f"{path} is not a table of this version's sweeps; move it away")
    return rows


def _write_table(path: Path, rows: Sequence[Row]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _lines(rows: Sequence[Row], swept: str) -> Iterator[tuple[str, list[Row]]]:
    """Group rows that differ in nothing but the swept setting; name what sets the groups apart."""
    rest = [name for name in _SETTING if name != swept]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in rest), []).append(row)
    differs = [i for i in range(len(rest)) if len({key[i] for key in groups}) > 1]
    for key, group in groups.items():
        names = (_named(rest[i], key[i]) for i in differs)
        yield ", ".join(name for name in names if name), group


def _named(setting: str, value: str) -> str:
    """Say a setting in a legend; what is switched off is not mentioned."""
    if value in ("None", "0.0"):
        return ""
    if setting in ("sampler", "guidance"):
        return value
    if setting == "weak":
        return f"away from {Path(value.rpartition('@')[0]).name}"
    return f"{setting.removeprefix('guidance_')} {value}"


def _logarithmic(axis: Axis) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def sweep_figure(rows: Sequence[Row], over: str) -> Figure:
    """Draw the figures of a sweep, one panel each, beside what held-out real images get.

    Args:
        rows: Rows of a sweep's CSV, judged alike.
        over: Key of `OVER`.
    """
    swept, column, name = OVER[over]
    figure = Figure(figsize=(10.5, 6.2), dpi=110, layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    handles = {}
    for panel, (key, (title, partner, logarithmic)) in zip(panels, FIGURES.items(), strict=True):
        for label, group in _lines(rows, swept):
            ordered = sorted(group, key=lambda row: float(row[column]))
            x = [float(row[column]) for row in ordered]
            y = [float(row[key]) for row in ordered]
            (handles[label],) = panel.plot(x, y, marker="o", markersize=3.5, linewidth=1.2)
        real = panel.axhline(float(rows[0][partner]), color="0.4", linestyle="--", linewidth=1)
        panel.set_title(title, fontsize=10)
        panel.grid(visible=True, color="0.92")
        panel.set_xlabel(name, fontsize=9)
        if column == "denoiser_calls":
            panel.set_xscale("log")
            _logarithmic(panel.xaxis)
        if logarithmic:
            panel.set_yscale("log")
            _logarithmic(panel.yaxis)
    labels = {"real, held out": real} | {label: line for label, line in handles.items() if label}
    legend = figure.legend(
        labels.values(),
        labels.keys(),
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=9,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # a run's name may hold dollar signs
    return figure
