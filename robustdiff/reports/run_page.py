"""report.html of a run: what it was, how it went, what came out; one file that needs no server."""

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels
from curricula import CURRICULA
from curricula.sparse import likeliest
from robustdiff import __version__
from robustdiff.config.images import dataset_in_words
from robustdiff.config.layers import flat, to_plain
from robustdiff.config.sections import Config
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.labels.checked import Checked, taught
from robustdiff.labels.probabilities import label_scores
from robustdiff.metrics.catalogue import (
    FURTHER,
    METRICS,
    copies_in_words,
    evaluator_in_words,
    guidance_in_words,
)
from robustdiff.reports.audit import doubts_in_words, estimate_in_words
from robustdiff.reports.card import noise_in_words, time_spent
from robustdiff.reports.charts import Chart, Curve, histogram, line_chart, range_bar
from robustdiff.reports.page import render, write_page
from robustdiff.reports.pictures import png_uri, spread
from robustdiff.runs.evaluations import Metrics, evaluations
from robustdiff.runs.folder import Run
from robustdiff.runs.history import read_history, sample_grids
from robustdiff.runs.scores import StoredScores, detect, load_judged

REPORT_NAME = "report.html"
# What `robustdiff.audit_images` sets itself.
_OF_EVERY_AUDIT = ("data.whole", "curriculum.name")
_MOST_CLASSES = 20
_MOST_PAIRS = 20
# Two tables of so many classes fit beside each other, and such names fit above a column.
_NARROW, _SHORT_NAME = 10, 4


def write_report(run: Run, path: Path | None = None, *, checked: Checked | None = None) -> Path:
    """Write the report of a run.

    Args:
        run: The run; it may be unfinished, and need not be evaluated.
        path: Where; None for report.html in the run's folder.
        checked: What a person said about its labels; None where nobody did.

    Returns:
        The file.

    Raises:
        DamagedError: If a file of the run is damaged.
        OSError: If the report cannot be written.
    """
    path = run.path / REPORT_NAME if path is None else path
    write_page(path, report_page(run, checked))
    return path


def report_page(run: Run, checked: Checked | None = None) -> str:
    """Return the report as one self-contained HTML page; see `write_report`."""
    config, labels, entries = run.config(), run.labels(), read_history(run)
    stored, metrics = _decided(_judged(run, config), labels, checked), _newest(run)
    names = labels.class_names or tuple(map(str, range(len(labels.nominal))))
    step = max((entry["step"] for entry in entries), default=0)
    estimated = None if stored is None else stored.trust.noise
    return render(
        "run.html.j2",
        run=run.path.name,
        summary=_summary(config, labels, estimated),
        facts=_facts(config, labels, stored, metrics, step),
        curves=training_curves(entries, labels.realised_rate if labels.flipped.any() else None),
        grids=sample_pictures(run),
        grid_classes=[names[i] for i in spread(len(names))] if len(names) <= _MOST_CLASSES else [],
        metrics=None if metrics is None else _metrics(metrics),
        is_audit=config.data.whole,
        evaluate=f"robustdiff eval {shlex.quote(str(run.path))}",
        labels=None if stored is None else _labels(stored, labels, names, checked),
        unjudged=_unjudged(run, config),
        identity=_identity(run, config, labels, step),
        changed=_changed(config),
        labels_file=" and the label file at its own"
        if config.noise.labels or config.noise.matrix
        else "",
        commands=_commands(config, is_evaluated=metrics is not None),
        config=json.dumps(to_plain(config), indent=2),
        version=__version__,
    )


def _judged(run: Run, config: Config) -> StoredScores | None:
    """Return what is known of the labels; None if nothing judges them."""
    anew = run.judged_file.exists()
    if not anew and CURRICULA[config.curriculum.name].source in ("none", "random"):
        return None
    return load_judged(run)


def _decided(
    stored: StoredScores | None, labels: NoisyLabels, checked: Checked | None
) -> StoredScores | None:
    """Return what is known of the labels with what a person said, and with what that teaches."""
    if stored is None or checked is None or stored.trust.classes is None:
        return stored
    trust = taught(stored.trust, labels.given, checked)
    return StoredScores(label_scores(trust, labels.given), trust)


def _newest(run: Run) -> Metrics | None:
    try:
        found = evaluations(run)
    except ValueError as error:
        raise DamagedError(str(error)) from error
    return found[-1].metrics if found else None


def _summary(config: Config, labels: NoisyLabels, estimated: float | None) -> str:
    words, count = noise_in_words(config, labels, estimated), f"{len(labels.given):,}"
    source = dataset_in_words(config.data.dataset)
    if config.data.whole:
        return f"An audit of {source}, without a model: {count} images, labels {words}."
    return (
        f"A class-conditional diffusion model of {source}: {count} training images, labels {words}."
    )


def _unjudged(run: Run, config: Config) -> str:
    """Say why nothing is known of the labels, and what mends that."""
    command = f"robustdiff audit {shlex.quote(str(run.path))}"
    if config.data.whole:
        return f"This audit has not judged the labels yet; {command} goes on with it."
    return (
        f"Curriculum {config.curriculum.name} judges no labels; {command} does, and this report "
        "shows what it found."
    )


def _commands(config: Config, *, is_evaluated: bool) -> str:
    """Return what repeats a run; an audit is repeated from Python, which knows every setting."""
    if config.data.whole:
        settings = {
            key: value for key, value in _changes(config).items() if key not in _OF_EVERY_AUDIT
        }
        return f"import robustdiff\n\nrobustdiff.audit_images({settings!r}, out='again')"
    evaluation = ["robustdiff eval again"] if is_evaluated else []
    return "\n".join(["robustdiff train --config config.json --out again", *evaluation])


def _facts(
    config: Config,
    labels: NoisyLabels,
    stored: StoredScores | None,
    metrics: Metrics | None,
    step: int,
) -> list[tuple[str, str]]:
    """Return the main figures, each with what it is."""
    facts = _what_was_done(config, labels, step)
    if stored is not None and not math.isnan(stored.trust.noise):
        facts.append((f"{stored.trust.noise:.1%}", "estimated share of wrong labels"))
    if labels.flipped.any():
        facts.append((f"{labels.realised_rate:.1%}", "truly wrong"))
    detected = None if stored is None else detect(stored.scores, labels)
    if detected is not None:
        facts.append((f"{detected['auroc']:.3f}", "AUROC of the score of labels"))
    if metrics is not None:
        for metric in METRICS:
            value, real = metrics.get(metric.key), metrics.get(metric.real)
            if metric.key in ("class_fid", "label_accuracy") and value is not None:
                beside = "" if real is None else f", real images {real:.3f}"
                facts.append((f"{value:.3f}", f"{metric.title}{beside}"))
    return facts


def _what_was_done(config: Config, labels: NoisyLabels, step: int) -> list[tuple[str, str]]:
    if config.data.whole:
        return [(f"{len(labels.given):,}", "audited labels")]
    steps = (f"{step:,}", f"steps of {config.train.batch_size} images")
    if config.objective.name != "plain":
        return [(config.objective.name, "objective"), steps]
    return [(config.curriculum.name, "curriculum"), steps]


def training_curves(entries: Sequence[dict[str, Any]], true_noise: float | None) -> list[Chart]:
    """Draw what a run logged: the loss, how its scores find wrong labels, the estimated noise.

    Args:
        entries: Its history.
        true_noise: Share of labels that are known to be wrong; None if that is not known.
    """

    def curve(name: str, key: str) -> list[Curve]:
        logged = [(e["step"], e[key]) for e in entries if e.get(key) is not None]
        # One point, such as that of scores that are made once, is among the facts.
        return [Curve(name, *map(list, zip(*logged, strict=True)))] if len(logged) > 1 else []

    charts = []
    if loss := curve("loss", "loss"):
        charts.append(line_chart("Training loss", loss, logarithmic=True))
    found = curve("AUROC", "auroc") + curve("average precision", "average_precision")
    if found:
        title = "How the scores find wrong labels"
        charts.append(line_chart(title, found, levels={"AUROC of chance": 0.5}, unit_interval=True))
    noise = curve("estimated share of wrong labels", "estimated_noise")
    used = curve("share of given labels in use", "labels_used")
    if noise or used:
        true = {} if true_noise is None else {"truly wrong": true_noise}
        title = "What the run makes of the labels"
        charts.append(line_chart(title, noise + used, levels=true, unit_interval=True))
    return charts


def sample_pictures(run: Run, most: int = 6) -> list[dict[str, Any]]:
    """Return grids of samples, each a "step" and an "image", evenly chosen; the last is there."""
    files = sample_grids(run)
    chosen = [*files][-1:] if most == 1 else [[*files][i] for i in spread(len(files), most)]
    return [{"step": step, "image": png_uri(files[step].read_bytes())} for step in chosen]


def _metrics(metrics: Metrics) -> dict[str, Any]:
    """Describe an evaluation: its rows, how it was made, and what to mind."""
    rows = []
    for metric in (*METRICS, *FURTHER):
        value, real = metrics.get(metric.key), metrics.get(metric.real)
        if metric.key in metrics and not (value is None and real is None):
            ends = metrics.get(f"{metric.key}_interval")
            marks = [] if real is None else [real]
            rows.append(
                {
                    "title": metric.title,
                    "ideal": metric.ideal,
                    "value": "too few images" if value is None else f"{value:.3f}",
                    "real": "too few images" if real is None else f"{real:.3f}",
                    "interval": "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}",
                    "bar": ""
                    if value is None
                    else range_bar(value, ends, marks, logarithmic=metric.logarithmic),
                }
            )
    accuracy, sample = metrics.get("label_accuracy_real"), metrics.get("sample", {})
    notes = [copies_in_words(metrics)]
    if accuracy is not None:
        notes.append(evaluator_in_words(accuracy, metrics.get("evaluator_corrected")))
    about = f"{metrics.get('num_samples', 'Some')} images"
    if sample:
        about += (
            f" by {sample['sampler']} in {sample['steps']} steps, "
            f"guidance weight {sample['guidance_weight']:g}"
            f"{guidance_in_words(sample)}"
        )
    return {"rows": rows, "notes": [note for note in notes if note], "about": f"{about}."}


def _labels(
    stored: StoredScores, labels: NoisyLabels, names: Sequence[str], checked: Checked | None
) -> dict[str, Any]:
    """Describe what was found about the labels."""
    trust, known = stored.trust, bool(labels.flipped.any())
    count = 0 if checked is None or trust.classes is None else int(checked.known.sum())
    judged = None if trust.classes is None else likeliest(trust.classes)
    issue = trust.right < 0.5 if judged is None else judged != labels.given
    apart, words = (labels.flipped, ("right label", "wrong label")) if known else (
        issue, ("trusted", "suspect")
    )  # fmt: skip
    parts = dict(zip(words, (stored.scores[~apart], stored.scores[apart]), strict=True))
    classes = _by_class(labels, issue, names)
    matrices = []
    if judged is not None:
        about = "Rows are the labels as given, columns the classes that the judge finds likeliest."
        title = "Given against judged labels"
        matrices.append(_matrix(title, about, labels.given, judged, names) | {"other": "judged"})
    if known:
        about = "The truth, which no judge has seen: rows are the labels as given."
        title = "Given against true labels"
        matrices.append(
            _matrix(title, about, labels.given, labels.clean, names) | {"other": "true"}
        )
    return {
        "about": f"{int(issue.sum()):,} of {len(issue):,} labels look wrong, "
        f"{estimate_in_words(trust.noise)}"
        f"{f'; {count:,} labels were checked by a person' if count else ''}.",
        "scores": histogram(
            "Scores of the labels, high is trusted", {n: v for n, v in parts.items() if len(v)}
        ),
        "known": known,
        "classes": classes[:_MOST_CLASSES],
        "left_out": max(0, len(classes) - _MOST_CLASSES),
        "doubts": doubts_in_words(trust, names),
        "matrices": matrices,
        "narrow": len(names) <= _NARROW,
    }


def _by_class(
    labels: NoisyLabels, issue: NDArray[np.bool_], names: Sequence[str]
) -> list[dict[str, Any]]:
    """Count the suspect labels of every class; of many classes the worst come first."""
    rows = []
    for label, name in enumerate(names):
        here = labels.given == label
        count, issues = int(here.sum()), int((here & issue).sum())
        wrong = int((here & labels.flipped).sum())
        share = issues / count if count else 0.0
        rows.append(
            {"name": name, "count": count, "issues": issues, "share": share, "wrong": wrong}
        )
    many = len(rows) > _MOST_CLASSES
    return sorted(rows, key=lambda row: -row["share"]) if many else rows


def _matrix(
    title: str,
    about: str,
    given: NDArray[np.int64],
    other: NDArray[np.int64],
    names: Sequence[str],
) -> dict[str, Any]:
    """Describe how often each given label goes with each other label: cells, or the pairs."""
    k = len(names)
    counts = np.bincount(given * k + other, minlength=k * k).reshape(k, k)
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    apart = counts * (1 - np.eye(k, dtype=int))
    order = np.argsort(-apart, axis=None, kind="stable")[:_MOST_PAIRS]
    pairs = [divmod(int(place), k) for place in order if apart.flat[place]]
    cells = [
        [
            # The scale is that of shares, and the rarest is to be seen.
            {"count": int(counts[i, j]), "same": i == j, "percent": 12 + 0.6 * shares[i, j]}
            for j in range(k)
        ]
        for i in range(k)
    ]
    small = k <= _MOST_CLASSES
    return {
        "title": title,
        "about": about,
        "names": names,
        "tall": max(map(len, names)) > _SHORT_NAME,
        "cells": cells if small else [],
        "pairs": [] if small else [(names[i], names[j], int(apart[i, j])) for i, j in pairs],
    }


def _identity(run: Run, config: Config, labels: NoisyLabels, step: int) -> list[tuple[str, str]]:
    """Return what tells a repetition from something else."""
    rows: list[tuple[str, str]] = [
        ("dataset", config.data.dataset),
        ("images" if config.data.whole else "training images", f"{len(labels.given):,}"),
        ("labels", noise_in_words(config, labels, None)),
    ]
    if config.data.whole:
        rows.append(("seed", str(config.seed)))
    else:
        rows += [
            ("steps", f"{step:,} of {config.train.batch_size} images, seed {config.seed}"),
            ("time", time_spent(run, config, len(labels.given))),
        ]
    rows.append(("digest of the labels", labels.sha256))
    if run.images_file.exists():
        rows.append(
            (
                "digest of the images",
                run.images_file.read_text(encoding="utf-8", errors="replace").strip(),
            )
        )
    if run.weights_file.exists():
        rows.append(("digest of the weights", sha256(run.weights_file)))
    return rows


def _changes(config: Config) -> dict[str, Any]:
    """Return the settings that are not the default, by dotted keys."""
    defaults = flat(to_plain(Config()))
    settings = flat(to_plain(config))
    return {key: value for key, value in settings.items() if value != defaults[key]}


def _changed(config: Config) -> list[tuple[str, str]]:
    """Return the settings that are not the default, as text."""
    return [
        (key, value if isinstance(value, str) else json.dumps(value))
        for key, value in _changes(config).items()
    ]
