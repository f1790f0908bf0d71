"""The evaluator: a small classifier, trained on clean labels, whose features the metrics use.

Numbers that rest on a learned feature space can only be compared when that space is the same, so
the weights are cached under a hash of everything that determines them and their sha256 is reported.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from robustdiff.data.arrays import to_float
from robustdiff.data.checks import check_images, check_labels
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.files.weights import load_weights, save_weights

# Part of the cache key: change it with the architecture or the training recipe.
RECIPE = "evaluator-1"

_BATCH_SIZE = 128
_MIN_EPOCHS = 3
_MIN_IMAGES_SEEN = 80_000
# Fewer than 200 images are repeated no more often than this: of 40 and of 100 digits, 800 to 2,000
# passes made no better classifier.
_MAX_PASSES = 400
# Images are shifted at random by up to this share of their size. Without it the features of a small
# training set are tighter than those of unseen images, and real images fail the density test.
_MAX_SHIFT = 1 / 8
_MAX_LEARNING_RATE = 1e-2
_WEIGHT_DECAY = 1e-2
_SMALLEST = 1e-9


class Evaluator(nn.Module):
    """Classify images of any size from 8 x 8 on, and expose a small feature space.

    The features are the batch-normalised inputs of the last hidden layer: over the training images
    each has mean 0 and variance 1, so that distances in this space have one scale for all datasets.
    There are few of them because a class-wise Frechet distance must estimate their covariance from
    the samples of one class.

    Attributes:
        num_classes: K.
        num_features: D.
    """

    def __init__(self, channels: int, num_classes: int, num_features: int = 32) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        self.stages = nn.Sequential(
            *_stage(channels, 24),
            nn.MaxPool2d(2),
            *_stage(24, 48),
            nn.MaxPool2d(2),
            *_stage(48, 64),
        )
        # 2 x 2 cells keep a coarse position at every image size.
        self.project = nn.Linear(64 * 4, num_features, bias=False)
        self.normalise = nn.BatchNorm1d(num_features, affine=False)
        self.classify = nn.Linear(num_features, num_classes)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and logits.

        Args:
            images: (B, C, H, W) float32 in [-1, 1].

        Returns:
            (B, D) features and (B, K) logits.
        """
        cells = F.adaptive_avg_pool2d(self.stages(images), 2).flatten(1)
        features = self.normalise(self.project(cells))
        return features, self.classify(F.relu(features))


def _stage(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


def train_evaluator(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    transition: NDArray[np.float64] | None = None,
    images_seen: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluator:
    """Train an evaluator; equal arguments give equal weights on one machine.

    Args:
        images: (N, C, H, W) uint8, N >= 2; training runs on their device.
        labels: (N,) int64 in [0, num_classes), meant to be clean, or noisy under `transition`.
        num_classes: K.
        seed: Seed of the initial weights and of the order; the global generators stay untouched.
        transition: (K, K), T[clean, given]: the softmax then predicts the clean class (forward
            correction, Patrini et al. 2017).
        images_seen: Small sets are repeated until this many images have been seen; None for the
            number that suits clean labels, but no more than 400 passes.
        progress: Called with (steps done, steps in all) after each step.

    Returns:
        Evaluator in evaluation mode.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_images(images, "training images")
    check_labels(labels, len(images), num_classes, "training labels")
    if len(images) < 2:
        raise ValueError("training an evaluator takes at least 2 images, got 1")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        evaluator = Evaluator(images.shape[1], num_classes)
    evaluator.to(images.device).to(memory_format=torch.channels_last)
    passes = _passes(len(images)) if images_seen is None else -(-images_seen // len(images))
    epochs = max(_MIN_EPOCHS, passes)
    batch_size = min(_BATCH_SIZE, len(images))
    total = epochs * (len(images) // batch_size)
    optimiser = torch.optim.AdamW(evaluator.parameters(), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _MAX_LEARNING_RATE, total)
    noise = None if transition is None else torch.from_numpy(transition).float().to(images.device)
    order = torch.Generator().manual_seed(seed)
    shift = torch.Generator().manual_seed(seed)
    for step, batch in enumerate(_batches(len(images), batch_size, epochs, order), start=1):
        where = batch.to(images.device)
        inputs = _shifted(to_float(images[where]), shift)
        loss = _loss(evaluator(inputs)[1], labels[where], noise)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, total)
    return evaluator.to(memory_format=torch.contiguous_format).eval()


def _passes(count: int) -> int:
    return min(_MAX_PASSES, -(-_MIN_IMAGES_SEEN // count))


def _loss(logits: Tensor, labels: Tensor, transition: Tensor | None) -> Tensor:
    if transition is None:
        return F.cross_entropy(logits, labels)
    given = logits.softmax(1) @ transition
    return F.nll_loss(given.clamp_min(_SMALLEST).log(), labels)


def _batches(
    count: int, batch_size: int, epochs: int, generator: torch.Generator
) -> Iterator[Tensor]:
    for _ in range(epochs):
        order = torch.randperm(count, generator=generator)
        # A short last batch is left out: batch norm needs company.
        yield from order[: count - count % batch_size].reshape(-1, batch_size)


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image at random, repeating its border; the result is channels-last in memory."""
    size = images.shape[2:]
    reach = int(min(size) * _MAX_SHIFT)
    padded = F.pad(images, (reach,) * 4, mode="replicate").permute(0, 2, 3, 1).contiguous()
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
    down, right = offsets.to(images.device)
    rows = (down[:, None] + torch.arange(size[0], device=images.device))[:, :, None]
    columns = (right[:, None] + torch.arange(size[1], device=images.device))[:, None, :]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2)


@torch.no_grad()
def embed(evaluator: Evaluator, images: Tensor, batch_size: int = 1000) -> tuple[Tensor, Tensor]:
    """Compute features and logits in float32, in evaluation mode whatever mode the evaluator is in.

    Args:
        evaluator: Trained evaluator.
        images: (N, C, H, W) uint8.
        batch_size: Images per forward pass; changes memory and time, not the result.

    Returns:
        (N, D) features and (N, K) logits, both float64 on the CPU.

    Raises:
        ValueError: If the images have a wrong type or shape.
    """
    check_images(images, "images")
    device = evaluator.classify.weight.device
    was_training = evaluator.training
    evaluator.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            parts = [
                evaluator(to_float(part.to(device))) for part in torch.split(images, batch_size)
            ]
    finally:
        evaluator.train(was_training)
    features, logits = (torch.cat(part).double().cpu() for part in zip(*parts, strict=True))
    return features, logits


def load_or_train(
    cache_dir: Path,
    name: str,
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Evaluator, str]:
    """Return the evaluator of a dataset, from the cache if it is there and whole.

    The file is `cache_dir/<name>-<hash>.safetensors`; the hash covers images, labels, number of
    classes, seed and recipe. A damaged file is trained again and replaced.

    Args:
        cache_dir: Folder of the cache, made when missing.
        name: Name of the dataset, first part of the file name.
        images: As for `train_evaluator`.
        labels: As for `train_evaluator`.
        num_classes: K.
        seed: As for `train_evaluator`.
        progress: As for `train_evaluator`; not called on a cache hit.

    Returns:
        Evaluator in evaluation mode on the device of the images, and the sha256 of its file.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_images(images, "training images")
    check_labels(labels, len(images), num_classes, "training labels")
    key = _training_hash(images, labels, num_classes, seed)
    path = cache_dir / f"{name}-{key[:12]}.safetensors"
    evaluator = Evaluator(images.shape[1], num_classes).to(images.device).eval()
    try:
        load_weights(path, evaluator)
    except DamagedError:  # or not there yet
        evaluator = train_evaluator(images, labels, num_classes, seed=seed, progress=progress)
        cache_dir.mkdir(parents=True, exist_ok=True)
        save_weights(path, evaluator)
    return evaluator, sha256(path)


def _training_hash(images: Tensor, labels: Tensor, num_classes: int, seed: int) -> str:
    described = f"{RECIPE} {tuple(images.shape)} {num_classes} {seed}"
    if _passes(len(images)) == _MAX_PASSES:
        described += f" {_MAX_PASSES} passes"
    digest = hashlib.sha256(described.encode())
    digest.update(images.cpu().numpy().tobytes())
    digest.update(labels.cpu().numpy().tobytes())
    return digest.hexdigest()
