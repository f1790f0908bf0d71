"""The card of a run, README.md: what was trained, on which labels, with which result."""

import math
import shlex
from collections.abc import Sequence
from importlib.metadata import version

from corruptions import NoisyLabels
from robustdiff import __version__
from robustdiff.config.images import dataset_in_words
from robustdiff.config.sections import Config
from robustdiff.files.atomic import write_text
from robustdiff.labels.given import known_noise
from robustdiff.metrics.catalogue import (
    FURTHER,
    METRICS,
    copies_in_words,
    evaluator_in_words,
    figure_in_words,
)
from robustdiff.reports.markdown import plain_text
from robustdiff.runs.evaluations import Metrics
from robustdiff.runs.folder import Run
from robustdiff.runs.history import seconds_spent

_EVALUATION = "\n## Evaluation\n\n"


def write_card(
    run: Run,
    config: Config,
    labels: NoisyLabels,
    *,
    detected: dict[str, float] | None,
    estimated: float | None,
    doubts: Sequence[str] = (),
    step: int,
) -> None:
    """Write the card.

    Args:
        run: The run.
        config: The run's configuration.
        labels: Its labels.
        detected: Detection metrics of the final scores, None where there are none.
        estimated: Share of wrong labels by the final scores, None where they judge no labels.
        doubts: What cannot be known about the labels, in sentences.
        step: Optimiser steps made.
    """
    model = config.model
    lines = [
        f"# {plain_text(run.path.name)}",
        "",
        f"A class-conditional diffusion model of {dataset_in_words(config.data.dataset)}, "
        f"trained by robustdiff {__version__} (torch {version('torch')}).",
        "",
        f"- labels: {plain_text(noise_in_words(config, labels, estimated))}",
        f"- curriculum: {config.curriculum.name}",
        f"- class embedding: {plain_text(model.cen)}, channels {list(model.channels)}",
        f"- steps: {step} of {config.train.batch_size} images, seed {config.seed}",
        f"- time: {time_spent(run, config, len(labels.given))}",
    ]
    if detected:
        lines.append(
            f"- wrong labels found by the score: AUROC {detected['auroc']:.3f}, "
            f"precision at the true rate {detected['precision_at_rate']:.3f}"
        )
    lines += [f"- in doubt: {plain_text(doubt)}" for doubt in doubts]
    command = plain_text(f"robustdiff eval {shlex.quote(str(run.path))}")
    lines += ["", f"Evaluate with {command}; figures go to metrics.json.", ""]
    write_text(run.path / "README.md", "\n".join(lines))


def add_evaluation(run: Run, metrics: Metrics) -> None:
    """Write the figures of the newest evaluation at the end of the card, if there is a card.

    Args:
        run: The run.
        metrics: Content of metrics.json.
    """
    path = run.path / "README.md"
    if not path.exists():
        return
    card, _, _ = path.read_text(encoding="utf-8", errors="surrogateescape").partition(_EVALUATION)
    figures = [
        f"- {metric.title}: {words}"
        for metric in (*METRICS, *FURTHER)
        if (words := figure_in_words(metrics, metric))
    ]
    if (copied := copies_in_words(metrics)) is not None:
        figures.append(f"- {copied}")
    if metrics["sample"].get("undo_label_noise"):
        figures.append("- of images for which the noise of the labels was undone while sampling")
    trust = evaluator_in_words(metrics["label_accuracy_real"], metrics["evaluator_corrected"])
    write_text(path, "\n".join([card + _EVALUATION, *figures, f"- {trust}", ""]))


def noise_in_words(config: Config, labels: NoisyLabels, estimated: float | None) -> str:
    """Return how many labels are known and estimated to be wrong, in words.

    Args:
        config: The run's configuration.
        labels: Its labels.
        estimated: Share of wrong labels by the final scores, NaN where they have no evidence; None
            where they judge no labels.
    """
    known = known_noise(config.data, labels)
    text = "as published"
    if known is None:
        text = "as they are, how many are wrong is not known"
    elif known:
        text = f"{known:.2%} wrong, {labels.noise_type} ({labels.convention})"
    if estimated is None:
        return text
    if math.isnan(estimated):
        return f"{text}; the scores have no evidence about them"
    return f"{text}; estimated by the scores {estimated:.2%}"


def time_spent(run: Run, config: Config, num_samples: int) -> str:
    """Return how long training took, and scoring and preparation if there were any, in words."""
    training, *rest = seconds_spent(run, min(config.train.batch_size, num_samples))
    whole = training + sum(rest)
    parts = [
        f"{name} {seconds:.1f} s ({seconds / whole:.0%} of all)"
        for name, seconds in zip(("scoring", "preparation"), rest, strict=True)
        if seconds
    ]
    return ", ".join([f"training {training:.1f} s", *parts])
