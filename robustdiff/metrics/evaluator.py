"""The evaluator: a small classifier, trained on clean labels, whose features the metrics use.

Numbers that rest on a learned feature space can only be compared when that space is the same, so
the weights are cached under a hash of everything that determines them and their sha256 is reported.
"""

import hashlib
from pathlib import Path

from torch import Tensor

from robustdiff.classifiers.image import Lessons, passes_for, train_image_classifier
from robustdiff.classifiers.networks import ImageClassifier, is_natural, make_classifier
from robustdiff.data.checks import check_images, check_labels
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.progress import Progress, silent

# Part of the cache key: change it with the network or its training.
RECIPE = "evaluator-2"

# Images that the small and the deeper network see.
_SEEN = {False: 80_000, True: 400_000}
_SMOOTHING = 0.1
# Fewer than 200 images are repeated no more often than this: 800 to 2,000 passes over 40 and over
# 100 digits made no better classifier.
_MAX_PASSES = 400


def train_evaluator(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Progress = silent,
) -> ImageClassifier:
    """Train an evaluator on clean labels; see `train_image_classifier`."""
    natural = is_natural(images.shape[1:])
    seen = min(_MAX_PASSES * len(images), _SEEN[natural])
    lessons = Lessons(
        seed=seed,
        passes=passes_for(len(images), seen),
        flip=natural and images.shape[1] == 3,
        smoothing=_SMOOTHING if natural else 0.0,
    )
    return train_image_classifier(
        images, labels, num_classes, lessons=lessons, progress=progress
    ).classifier


def load_or_train(
    cache_dir: Path,
    name: str,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[ImageClassifier, str]:
    """Return the evaluator of a dataset, from the cache if it is there and whole.

    The file is `cache_dir/<name>-<hash>.safetensors`; the hash covers images, labels, number of
    classes, seed and recipe. A damaged file is trained again and replaced.

    Args:
        cache_dir: Folder of the cache, made when missing.
        name: Name of the dataset, first part of the file name.
        images: (N, C, H, W) uint8, N >= 2; training runs on their device.
        labels: (N,) int64 in [0, num_classes), clean.
        num_classes: K.
        seed: Seed of the training.
        progress: Called with (steps done, steps in all); not on a cache hit.

    Returns:
        Evaluator in evaluation mode on the device of the images, and the sha256 of its file.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_images(images, "training images")
    check_labels(labels, len(images), num_classes, "training labels")
    key = _training_hash(images, labels, num_classes, seed)
    path = cache_dir / f"{name}-{key[:12]}.safetensors"
    evaluator = make_classifier(images.shape[1:], num_classes).to(images.device).eval()
    try:
        load_weights(path, evaluator)
    except DamagedError:  # or not there yet
        evaluator = train_evaluator(images, labels, num_classes, seed=seed, progress=progress)
        cache_dir.mkdir(parents=True, exist_ok=True)
        save_weights(path, evaluator)
    return evaluator, sha256(path)


def _training_hash(images: Tensor, labels: Tensor, num_classes: int, seed: int) -> str:
    described = f"{RECIPE} {tuple(images.shape)} {num_classes} {seed}"
    if _MAX_PASSES * len(images) <= _SEEN[is_natural(images.shape[1:])]:
        described += f" {_MAX_PASSES} passes"
    digest = hashlib.sha256(described.encode())
    digest.update(images.cpu().numpy().tobytes())
    digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()
