"""From a configuration to what a run works on: images, given labels, the task of training."""

from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from corruptions import NoisyLabels, load_matrix
from curricula import CURRICULA
from curricula.scores import treatment_of
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, LabelledImages
from robustdiff.data.registry import load_images
from robustdiff.device import keep_freed_memory, pick_device, set_precision
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.evaluate import classes_to_make
from robustdiff.labels.evidence import (
    dataset_of,
    in_words,
    is_given,
    probabilities_from,
    read_evidence,
)
from robustdiff.labels.given import check_given, prepare_labels, without_removed
from robustdiff.metrics.catalogue import METRICS
from robustdiff.metrics.report import out_of_reach
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.runs.folder import Run
from robustdiff.training.task import Task


class Material(NamedTuple):
    """What a run works on.

    Attributes:
        images: The dataset.
        labels: Its given labels, and which of them are wrong.
        task: What training works on; see `make_task`.
    """

    images: Images
    labels: NoisyLabels
    task: Task


def assemble(config: Config, report: Report, workers: Workers, run: Run | None = None) -> Material:
    """Load the images, take or make the labels, and put the task together.

    Args:
        config: The run's configuration.
        report: Receives progress and messages.
        workers: Those that train it.
        run: The run whose labels are taken; None to make new ones.

    Raises:
        ValueError: If the configuration cannot be used.
        DamagedError: If the run's labels are missing or damaged.
    """
    _check_part("train.batch_size", config.train.batch_size, workers)
    check_judge(config)
    if config.data.whole:
        raise ValueError(
            "data.whole leaves no image to evaluate with: such data can be audited, not trained on"
        )
    if run is None:
        images = workers.leader_first(lambda: load_images(config.data, report))
        labels = workers.from_leader(lambda: prepare_labels(config, images, report))
        images, labels = without_removed(images, labels, report)
    else:
        stored = workers.from_leader(run.labels)  # other hosts need not see the run's folder
        images, labels, _ = workers.leader_first(
            lambda: load_run_data(run, config, report, labels=stored, whole=True)
        )
    labels = workers.on_host(lambda: labels)
    check_given(config, images, labels)
    if run is None and is_given(config.judge):
        data = dataset_of(config, images, labels)
        workers.from_leader(lambda: read_evidence(config.judge, data, report))
    if run is None or config.eval != workers.from_leader(run.config).eval:
        _check_evaluation(config, images, report)
    return Material(images, labels, make_task(config, images, labels, report, workers))


def _check_part(name: str, count: int, workers: Workers) -> None:
    if count < workers.size:
        raise ValueError(
            f"{name} must be at least the number of processes, {workers.size}, got {count}"
        )


def _check_parts(config: Config, num_samples: int, workers: Workers) -> None:
    """Refuse images of which a process would get none: a network computes nothing of nothing."""
    curriculum = config.curriculum
    parts = {"the number of images": num_samples}
    if treatment_of(curriculum.name, curriculum.treatment) == "select":
        selected = max(1, round(curriculum.mk * num_samples))
        parts["the number of images that curriculum.mk selects"] = selected
    scored = num_samples // curriculum.rotate
    parts["the number of images that curriculum.rotate leaves a scoring round"] = scored
    for name, count in parts.items():
        _check_part(name, count, workers)


def check_judge(config: Config) -> None:
    """Refuse evidence about labels for a curriculum that has no use for it.

    Raises:
        ValueError: Naming the curriculum.
    """
    if is_given(config.judge) and CURRICULA[config.curriculum.name].source != "classifier":
        raise ValueError(
            f"{in_words(config.judge)} judge labels for curriculum 'crossfit' and for no other, "
            f"got {config.curriculum.name!r}"
        )


def _check_evaluation(config: Config, images: Images, report: Report) -> None:
    """Refuse settings that `evaluate` could not use, and say which figures it will not have."""
    counts = torch.bincount(classes_to_make(config, images), minlength=images.num_classes)
    if keys := out_of_reach(counts.tolist()):
        titles = [metric.title for metric in METRICS if metric.key in keys]
        report.message(f"too few images are held out for {', '.join(titles)}")


def make_task(
    config: Config,
    images: Images,
    labels: NoisyLabels,
    report: Report,
    workers: Workers = ALONE,
) -> Task:
    """Put together what training works on.

    Only for the oracle curriculum does the task hold which labels are right.

    Raises:
        ValueError: If the configuration does not fit the data or the number of processes.
    """
    _check_parts(config, len(labels.given), workers)
    device = pick_device(config.train.device)
    oracle = ~labels.flipped if config.curriculum.name == "oracle" else None
    matrix = config.objective.matrix
    transition = labels.nominal if matrix == "nominal" else None
    if matrix is not None and matrix != "nominal":
        transition = load_matrix(Path(matrix))
        if len(transition) != images.num_classes:
            raise ValueError(
                f"{images.name} has {images.num_classes} classes, but objective.matrix {matrix} "
                f"is {len(transition)} x {len(transition)}"
            )
    evidence = None
    if is_given(config.judge):
        data = dataset_of(config, images, labels)
        evidence = partial(probabilities_from, config, data, labels.given, report)
    keep_freed_memory()
    return Task(
        config=config,
        data=LabelledImages(images.train, torch.from_numpy(labels.given)).to(device),
        num_classes=images.num_classes,
        dtype=set_precision(config.train.precision, device),
        oracle=oracle,
        transition=transition,
        probabilities=evidence,
        report=report,
        workers=workers,
    )
