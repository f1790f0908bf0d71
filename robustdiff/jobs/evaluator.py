"""The evaluator of a run's dataset: on which labels it is trained, and its training or its file."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from corruptions import NoisyLabels
from corruptions.labels import check_labels
from corruptions.types import Ints
from curricula import TREATMENTS
from robustdiff.classifiers.networks import ImageClassifier
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, on_device
from robustdiff.data.likeness import pieces
from robustdiff.device import pick_device
from robustdiff.files.atomic import write_atomic
from robustdiff.jobs.audit import crossfit_findings
from robustdiff.labels.given import known_noise
from robustdiff.metrics.evaluator import load_or_train
from robustdiff.progress import Report

# All runs on a dataset share one evaluator, so neither its seed nor its judge is the run's.
_SEED = 0
_JUDGE = JudgeConfig(effort="quick")


def evaluator_of(
    config: Config, images: Images, labels: NoisyLabels, folder: Path, report: Report
) -> tuple[ImageClassifier, dict[str, Any]]:
    """Return the evaluator of a dataset, from the folder of evaluators if it is there.

    It learns the clean labels. Where nobody knows them it learns the labels as published, corrected
    by classifiers that were not trained on them: always the same ones, whatever the run did about
    its labels, so that runs compare, and none is measured by its own corrections.

    Args:
        config: Of the run.
        images: Its dataset.
        labels: Of the training images.
        folder: Keeps evaluators and corrected labels.
        report: Receives progress.

    Returns:
        The evaluator, and what metrics.json says of it: the SHA-256 of its weights, and the share
        of labels that were corrected, None where clean ones are known.
    """
    learnt, corrected = images.train_labels, None
    if known_noise(config.data, labels) is None:
        learnt = _corrected(config, images, labels, folder, report)
        corrected = float((learnt != images.train_labels).double().mean())
    progress = report.stage("training the evaluator")
    near = on_device(images, pick_device(config.train.device))
    evaluator, digest = load_or_train(folder, near, learnt, seed=_SEED, progress=progress)
    return evaluator, {"evaluator_sha256": digest, "evaluator_corrected": corrected}


def _corrected(
    config: Config, images: Images, labels: NoisyLabels, folder: Path, report: Report
) -> Tensor:
    """Return published labels as classifiers correct them, (N,) int64; kept in a file.

    Not those that the run was given: somebody may have corrected them.
    """
    published = images.train_labels.numpy()
    labels = replace(labels, clean=published, given=published)
    digest = hashlib.sha256(f"{_JUDGE} {_SEED} {images.num_classes}".encode())
    for part in (images.train, torch.from_numpy(labels.given)):
        digest.update(f"{tuple(part.shape)}".encode())
        for piece in pieces(part):
            digest.update(piece.cpu().numpy().tobytes())
    path = folder / f"{images.name}-{digest.hexdigest()[:12]}.labels.npy"
    kept = _read(path, images)
    if kept is not None:
        return torch.from_numpy(kept)
    judging = replace(config, seed=_SEED, judge=_JUDGE)
    found = crossfit_findings(images, labels, judging, report, path.with_suffix(".unfinished"))
    treated = TREATMENTS["relabel"](found.trust, labels.given, images.num_classes).labels
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: np.save(file, treated))
    return torch.from_numpy(treated)


def _read(path: Path, images: Images) -> Ints | None:
    """Return kept labels; None where there are none, or the file is damaged."""
    try:
        kept = check_labels(np.load(path, allow_pickle=False), images.num_classes)
    except Exception:  # noqa: BLE001 damaged files fail in many ways; the labels are judged anew
        return None
    return kept if len(kept) == len(images.train) else None
