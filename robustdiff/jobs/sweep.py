"""One setting of sampling varied, every value evaluated: a CSV and a plot.

The CSV is also the record of what is done: a point that it has, under the same weights and the same
other settings, is not made again. So a sweep can be stopped, resumed and extended.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from robustdiff.config.roles import keys_of
from robustdiff.config.sections import Config, SampleConfig
from robustdiff.diffusion.samplers import denoiser_calls
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import write_text
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.evaluate import check_features, classes_to_make, load_reference
from robustdiff.jobs.model import check_guidance, check_label_noise
from robustdiff.jobs.sample import sample_run
from robustdiff.metrics.catalogue import METRICS
from robustdiff.metrics.report import measure, see
from robustdiff.progress import Report
from robustdiff.reports.figures import Line, sweep_figure, write_figure
from robustdiff.runs.evaluations import digests_used
from robustdiff.runs.folder import Run

Record = dict[str, str]
"""One row of the CSV: a setting and its figures."""

# What figures depend on besides the settings of sampling.
_MEASURED_WITH = ("weights", "evaluator", "features", "num_samples", "seed")
# Settings of sampling that change the images by more than rounding.
_SETTINGS = tuple(
    key.removeprefix("sample.") for key in keys_of("evaluation") if key.startswith("sample.")
)
# Settings that came later, and what a table without them was made with.
_LATER = {"guidance_every": "1", "undo_label_noise": "False"}
_KEY = (*_MEASURED_WITH, *_SETTINGS)
_FIGURES = (*(m.key for m in METRICS), *(m.real for m in METRICS))
_COLUMNS = (*_KEY, "denoiser_calls", *_FIGURES)
SHOWN = tuple(metric for metric in METRICS if metric.key not in ("kid", "density"))
"""Metrics in the plot and on the terminal; the CSV has all."""
_SHORT = 12

# What is swept -> (swept entry of the setting, column on the horizontal axis, its name).
OVER = {
    "guidance": ("guidance_weight", "guidance_weight", "guidance weight w"),
    "steps": ("steps", "denoiser_calls", "denoiser calls per image"),
}


def settings_to_try(
    sample: SampleConfig, over: str, values: Sequence[float], samplers: Sequence[str]
) -> list[SampleConfig]:
    """Return the settings of a sweep: every sampler with every value.

    Args:
        sample: Everything else.
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
        replace(sample, **{"sampler": sampler, entry: kind(value)})  # type: ignore[arg-type]
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
    inception_weights: str | Path | None = None,
) -> list[Record]:
    """Evaluate settings and write `sweep-<over>.csv` and `.png` in the run's folder.

    Args:
        run: The run.
        config: Its configuration, for data and evaluation.
        report: Receives progress.
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
    run.check_trained()
    check_features(config, inception_weights)
    read_table(table)  # better now than after the first point
    for sample in settings:
        check_guidance(sample)
        check_label_noise(run, sample)
    data = load_run_data(run, config, report)
    images = data.images
    classes = classes_to_make(config, images)
    reference, evaluator = load_reference(
        run, config, data, report, seed=seed, inception_weights=inception_weights
    )
    rows = []
    for number, sample in enumerate(settings):
        report.progress(f"sweep over {over}", number, len(settings))
        tried = replace(config, sample=sample)
        key = _key(run, tried, seed, len(classes), evaluator["evaluator_sha256"])
        row = next((row for row in read_table(table) if _same(row, key, _KEY)), None)
        if row is None:
            generated = sample_run(run, tried, images, classes, seed, report)
            measured = measure(reference, see(reference, generated, classes))
            calls = denoiser_calls(sample.sampler, sample.steps)
            row = key | {"denoiser_calls": str(calls)}
            figures = {name: measured[name] for name in _FIGURES}
            row |= {name: "nan" if v is None else str(v) for name, v in figures.items()}
            # Read again: another sweep of the run may have written meanwhile.
            _write_table(table, [*read_table(table), row])
        rows.append(row)
    report.progress(f"sweep over {over}", len(settings), len(settings))
    alike = [row for row in read_table(table) if _same(row, rows[0], _MEASURED_WITH)]
    write_figure(draw_sweep(alike, over), table.with_suffix(".png"))
    return rows


def draw_sweep(rows: Sequence[Record], over: str) -> Figure:
    """Draw the figures of a sweep.

    Args:
        rows: Of a sweep's CSV, alike in weights, evaluator, features, number of images and seed.
        over: Key of `OVER`.
    """
    swept, column, title = OVER[over]
    lines = []
    for name, group in _groups(rows, swept):
        ordered = sorted(group, key=lambda row: float(row[column]))
        figures = {m.key: [float(row[m.key]) for row in ordered] for m in SHOWN}
        lines.append(Line(name, [float(row[column]) for row in ordered], figures))
    real = {metric.key: float(rows[0][metric.real]) for metric in SHOWN}
    return sweep_figure(lines, real, SHOWN, title, logarithmic=over == "steps")


def _key(run: Run, config: Config, seed: int, num_samples: int, digest: str) -> Record:
    sample = config.sample
    key = {name: str(getattr(sample, name)) for name in _SETTINGS}
    used = {name: (full or "")[:_SHORT] for name, full in digests_used(run, config).items()}
    for setting, name in (("weak", "weak_sha256"), ("undo_label_noise", "transition_sha256")):
        if used[name]:
            key[setting] += f"@{used[name]}"
    return {
        "weights": used["weights_sha256"],
        "evaluator": digest[:_SHORT],
        "features": config.eval.features,
        "num_samples": str(num_samples),
        "seed": str(seed),
        **key,
    }


def _same(row: Record, other: Record, names: Sequence[str]) -> bool:
    return all(row[name] == other[name] for name in names)


def read_table(path: Path) -> list[Record]:
    """Read the rows of a sweep's CSV; none if there is no such file.

    Raises:
        DamagedError: If the file is something else.
    """
    if not path.exists():
        return []
    try:
        reader = csv.DictReader(io.StringIO(path.read_bytes().decode()), strict=True)
        rows = [_LATER | row for row in reader]
        columns = reader.fieldnames or ()
        whole = sorted([*columns, *_LATER.keys() - set(columns)]) == sorted(_COLUMNS) and all(
            None not in row and None not in row.values() for row in rows
        )
        for row in rows:
            [float(row[name]) for name in _FIGURES]
    except (ValueError, TypeError, KeyError, csv.Error):
        whole = False
    if not whole:
        raise DamagedError(f"{path} is not a table of this version's sweeps; move it away")
    return rows


def _write_table(path: Path, rows: Sequence[Record]) -> None:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, buffer.getvalue())


def _groups(rows: Sequence[Record], swept: str) -> Iterator[tuple[str, list[Record]]]:
    """Group rows that differ in nothing but the swept setting; name what sets the groups apart."""
    rest = [name for name in _SETTINGS if name != swept]
    groups: dict[tuple[str, ...], list[Record]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in rest), []).append(row)
    differs = [i for i in range(len(rest)) if len({key[i] for key in groups}) > 1]
    for key, group in groups.items():
        names = (_named(rest[i], key[i]) for i in differs)
        yield ", ".join(name for name in names if name), group


def _named(setting: str, value: str) -> str:
    """Say a setting in a legend; what is switched off is not mentioned."""
    if value in ("None", "0.0", _LATER.get(setting)):
        return ""
    if setting in ("sampler", "guidance"):
        return value
    if setting == "weak":
        return f"away from {Path(value.rpartition('@')[0]).name}"
    if setting == "undo_label_noise":
        return f"label noise undone ({value.rpartition('@')[2]})"
    return f"{setting.removeprefix('guidance_')} {value}"
