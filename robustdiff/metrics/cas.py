"""The classification accuracy score: what a classifier learns from generated images."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustdiff.classifiers.image import Lessons, embed, passes_for, train_image_classifier
from robustdiff.classifiers.networks import is_natural
from robustdiff.data.arrays import Images
from robustdiff.data.checks import check_labels
from robustdiff.device import native_precision
from robustdiff.files.atomic import write_atomic
from robustdiff.progress import Progress, part_of, silent

# Of the small and of the deeper network: images seen in a training, most passes, trainings.
_SEEN = {False: 40_000, True: 100_000}
_MAX_PASSES = {False: 400, True: 40}
_TRAININGS = {False: 3, True: 1}


def classification_accuracy(
    images: Tensor,
    labels: Tensor,
    heldout: Tensor,
    heldout_labels: Tensor,
    num_classes: int,
    *,
    trainings: int | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Train classifiers on images and test them on real ones (Ravuri & Vinyals 2019).

    The score is the mean of what is returned. It falls with wrong labels, bad images and lost
    variety, so it is to be read beside that of as many real images. Classifiers are the
    evaluator's networks, trained for a shorter time; equal arguments give equal results.

    Args:
        images: (M, C, H, W) uint8, M >= 2; training runs on their device.
        labels: (M,) int64 in [0, num_classes), the classes that were asked for.
        heldout: (H, C, H, W) uint8 real images that the generator was not trained on.
        heldout_labels: (H,) int64.
        num_classes: K.
        trainings: S, how many classifiers; None for 3 of small images and 1 of natural ones.
        progress: Called with (steps done, steps in all).

    Returns:
        (S, H) bool on the CPU: which held-out images each classifier is right on.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_labels(heldout_labels, len(heldout), num_classes, "held-out labels")
    natural, hits = is_natural(images.shape[1:]), []
    trainings = trainings or _TRAININGS[natural]
    for seed in range(trainings):
        lessons = Lessons(
            seed=seed,
            passes=min(passes_for(len(images), _SEEN[natural]), _MAX_PASSES[natural]),
            flip=natural,
            dtype=native_precision(images.device) if natural else torch.float32,
        )
        classifier = train_image_classifier(
            images,
            labels,
            num_classes,
            lessons=lessons,
            progress=part_of(progress, seed, trainings),
        ).classifier
        _, logits = embed(classifier, heldout)
        hits.append(logits.argmax(dim=1) == heldout_labels.cpu())
    return torch.stack(hits)


def real_accuracy(
    folder: Path, images: Images, rows: Tensor, *, progress: Progress = silent
) -> Tensor:
    """Return `classification_accuracy` of some training images; kept in a file beside evaluators.

    Args:
        folder: Keeps it, made when missing; a damaged file is replaced.
        images: The dataset.
        rows: (M,) int64, which training images.
        progress: See `classification_accuracy`; not where it is kept.
    """
    learnt, labels = images.train[rows], images.train_labels[rows]
    shape, k = tuple(learnt.shape), images.num_classes
    described = f"cas {_SEEN} {_MAX_PASSES} {_TRAININGS} {shape} {k}"
    digest = hashlib.sha256(described.encode())
    for part in (learnt, labels, images.test, images.test_labels):
        digest.update(part.cpu().numpy().tobytes())
    path = folder / f"{images.name}-{digest.hexdigest()[:12]}.cas.npy"
    kept = _read(path, (_TRAININGS[is_natural(shape[1:])], len(images.test)))
    if kept is not None:
        return kept
    hits = classification_accuracy(
        learnt, labels, images.test, images.test_labels, k, progress=progress
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: np.save(file, hits.numpy()))
    return hits


def _read(path: Path, shape: tuple[int, int]) -> Tensor | None:
    """Return what is kept; None where there is nothing, or the file is damaged."""
    try:
        kept = np.load(path, allow_pickle=False)
    except Exception:  # noqa: BLE001 damaged files fail in many ways
        return None
    return torch.from_numpy(kept) if (kept.dtype, kept.shape) == (np.bool_, shape) else None
