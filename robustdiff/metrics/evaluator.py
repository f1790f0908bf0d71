"""The evaluator: a classifier, trained on clean labels, whose features the metrics use.

Numbers that rest on a learned feature space can only be compared when that space is the same, so
the weights are cached under a hash of everything that determines them and their sha256 is reported.
"""

import hashlib
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from robustdiff.classifiers.image import Lessons, embed, passes_for, train_image_classifier
from robustdiff.classifiers.networks import ImageClassifier, is_natural, make_classifier
from robustdiff.data.arrays import Images
from robustdiff.data.checks import check_images, check_labels
from robustdiff.data.likeness import pieces
from robustdiff.device import native_precision
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.progress import Progress, silent

# Part of the cache key: change it with the network or its training.
RECIPE = {False: "evaluator-2", True: "evaluator-4"}

# Images that the small and the deeper network see.
_SEEN = {False: 80_000, True: 400_000}
# Fewer than 200 images are repeated no more often than this: 800 to 2,000 passes over 40 and over
# 100 digits made no better classifier.
_MAX_PASSES = 400
# The deeper network is too sure of itself, the more so the oftener it has seen its images. No
# temperature is below 1: a few held-out images, all of them right, would ask for certainty.
_TEMPERATURES = torch.logspace(0, 1, 200, dtype=torch.float64)


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
        flip=natural,
        dtype=native_precision(images.device) if natural else torch.float32,
    )
    return train_image_classifier(
        images, labels, num_classes, lessons=lessons, progress=progress
    ).classifier


@torch.no_grad()
def calibrate(evaluator: ImageClassifier, images: Tensor, labels: Tensor) -> None:
    """Divide the logits by the temperature of least NLL (Guo et al. 2017), from 1 to 10.

    The largest logit, and so the label accuracy, stays the same; so do the features.

    Args:
        evaluator: Its last layer is changed in place.
        images: (M, C, H, W) uint8, not trained on.
        labels: (M,) int64.
    """
    _, logits = embed(evaluator, images)
    losses = torch.stack([F.cross_entropy(logits / t, labels) for t in _TEMPERATURES])
    temperature = float(_TEMPERATURES[losses.argmin()])
    for part in (evaluator.classify.weight, evaluator.classify.bias):
        part.div_(temperature)


def load_or_train(
    cache_dir: Path,
    images: Images,
    labels: Tensor,
    *,
    seed: int,
    progress: Progress = silent,
) -> tuple[ImageClassifier, str]:
    """Return the evaluator of a dataset, from the cache if it is there and whole.

    The file is `cache_dir/<name>-<hash>.safetensors`; the hash covers all that decides the weights.
    A damaged file is trained again and replaced. The deeper network is calibrated on the held-out
    images.

    Args:
        cache_dir: Folder of the cache, made when missing.
        images: The dataset, at least 2 images to train on; training runs on their device.
        labels: (N,) int64 in [0, K), the labels of the training images that are learnt.
        seed: Seed of the training.
        progress: Called with (steps done, steps in all); not on a cache hit.

    Returns:
        Evaluator in evaluation mode on the device of the images, and the sha256 of its file.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    train, num_classes = images.train, images.num_classes
    check_images(train, "training images")
    check_labels(labels, len(train), num_classes, "training labels")
    path = cache_dir / f"{images.name}-{_training_hash(images, labels, seed)[:12]}.safetensors"
    evaluator = make_classifier(train.shape[1:], num_classes).to(train.device).eval()
    try:
        load_weights(path, evaluator)
    except DamagedError:  # or not there yet
        evaluator = train_evaluator(train, labels, num_classes, seed=seed, progress=progress)
        if is_natural(train.shape[1:]):
            calibrate(evaluator, images.test, images.test_labels)
        cache_dir.mkdir(parents=True, exist_ok=True)
        save_weights(path, evaluator)
    return evaluator, sha256(path)


def _training_hash(images: Images, labels: Tensor, seed: int) -> str:
    shape = tuple(images.train.shape)
    natural = is_natural(shape[1:])
    described = f"{RECIPE[natural]} {shape} {images.num_classes} {seed}"
    if _MAX_PASSES * shape[0] <= _SEEN[natural]:
        described += f" {_MAX_PASSES} passes"
    digest = hashlib.sha256(described.encode())
    for part in (images.train, labels, *([images.test, images.test_labels] if natural else [])):
        for piece in pieces(part):
            digest.update(piece.cpu().numpy().tobytes())
    return digest.hexdigest()
