"""Training a classifier of images on clean or on doubtful labels, and what it sees then."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.sparse import SparseClasses
from robustdiff.classifiers.augment import augmented
from robustdiff.classifiers.class_rows import plain, restore, target_rows, zero_rows
from robustdiff.classifiers.fit import Fit, Recipe, early_learning
from robustdiff.classifiers.networks import ImageClassifier, is_natural, make_classifier, whiten
from robustdiff.data.arrays import to_float
from robustdiff.data.checks import check_images, check_labels
from robustdiff.files.unfinished import Unfinished
from robustdiff.progress import Progress, silent

# Metrics cache trained weights: whoever changes one of these changes `RECIPE` in metrics/evaluator.
_SMALL = Recipe("adamw", learning_rate=1e-2, weight_decay=1e-2, batch_size=128)
_NATURAL = Recipe("sgd", learning_rate=0.1, weight_decay=5e-4, batch_size=125)
# Share of the memory of earlier predictions that a new one leaves.
_MEMORY = 0.6
# Initial weights come from the global generator, which threads would draw from in turn.
_SEEDING = threading.Lock()


@dataclass(frozen=True)
class Lessons:
    """How a classifier is trained.

    Attributes:
        seed: Seed of the initial weights and of the order; the global generators stay untouched.
        passes: Over the images.
        flip: Whether images are mirrored at random.
        smoothing: Share of each target that is spread over all classes.
        early: Weight of the early-learning regulariser; see `early_learning`.
        dtype: Precision of products.
    """

    seed: int
    passes: int
    flip: bool = False
    smoothing: float = 0.0
    early: float = 0.0
    dtype: torch.dtype = torch.float32


class Trained(NamedTuple):
    """A classifier and what it predicted while it learnt.

    Attributes:
        classifier: In evaluation mode.
        margins: (N,) float32, mean over all passes of the logit of the class that its target
            favours less the largest other one: the area under the margin (Pleiss et al. 2020).
    """

    classifier: ImageClassifier
    margins: Tensor


class _Diary:
    """What a network predicted of its training images, (N, K) and (N,) on their device."""

    def __init__(self, rows: int, num_classes: int, device: torch.device) -> None:
        self.learnt = zero_rows(rows, num_classes, device)
        self.margins = torch.zeros(rows, device=device)

    def remember(self, places: Tensor, probabilities: Tensor) -> Tensor:
        """Return running means of the probabilities of some images, (B, K)."""
        mixed = _MEMORY * self.learnt[places] + (1 - _MEMORY) * probabilities
        self.learnt[places] = mixed
        return mixed

    def note(self, places: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Add the logits of some images, (B, K)."""
        own = targets.argmax(1, keepdim=True)  # no boolean mask: a GPU's host would wait for it
        others = logits.scatter(1, own, -torch.inf).amax(1)
        self.margins[places] += logits.gather(1, own)[:, 0] - others

    def state(self) -> dict[str, Any]:
        return {"learnt": plain(self.learnt), "margins": self.margins}

    def load(self, state: dict[str, Any]) -> None:
        restore(self.learnt, state["learnt"])
        self.margins.copy_(state["margins"])


def passes_for(count: int, images_seen: int, least: int = 3) -> int:
    """Return the passes over `count` images in which so many are seen; `least` at least."""
    return max(least, -(-images_seen // count))


def train_image_classifier(
    images: Tensor,
    targets: Tensor | SparseClasses,
    num_classes: int,
    *,
    lessons: Lessons,
    rows: Tensor | None = None,
    unfinished: Unfinished | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a classifier of images; equal arguments give equal weights on one machine.

    Args:
        images: (M, C, H, W) uint8; training runs on their device.
        targets: (N,) int64 labels in [0, num_classes), or (N, num_classes) probabilities, dense or
            sparse.
        num_classes: K.
        lessons: How it is trained.
        rows: (N,) int64, N >= 2, which images are learnt from; None for all.
        unfinished: Where an interrupted training goes on from, after its last whole pass.
        progress: Called with (steps done, steps in all) after each step.

    Returns:
        The classifier and what it predicted.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_images(images, "training images")
    rows = torch.arange(len(images)) if rows is None else rows
    if isinstance(targets, Tensor) and targets.ndim == 1:
        check_labels(targets, len(rows), num_classes, "training labels")
    if len(rows) < 2:
        raise ValueError(f"training a classifier takes at least 2 images, got {len(rows)}")
    taught, natural = (
        target_rows(targets, num_classes, images.device),
        is_natural(images.shape[1:]),
    )
    classifier = _new_classifier(images, rows, num_classes, lessons.seed)
    recipe = _NATURAL if natural else _SMALL
    size = min(recipe.batch_size, len(rows))
    steps = len(rows) // size
    fit = Fit(classifier, recipe, steps * lessons.passes, lessons.dtype)
    diary = _Diary(len(rows), num_classes, images.device)
    for number in range(_resumed(unfinished, fit, diary), lessons.passes):
        batches = _batches(images, rows, size, (lessons.seed, number), flip=lessons.flip)
        for step, (places, inputs) in enumerate(batches, start=1):
            _lesson(fit, inputs, taught[places], places, diary, lessons)
            progress(number * steps + step, lessons.passes * steps)
        if unfinished is not None:
            state = {"passes": number + 1, "fit": fit.state_dict(), "diary": diary.state()}
            unfinished.save(state)
    classifier.to(memory_format=torch.contiguous_format).eval()
    return Trained(classifier, diary.margins / lessons.passes)


def _new_classifier(images: Tensor, rows: Tensor, num_classes: int, seed: int) -> ImageClassifier:
    with _SEEDING, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = make_classifier(images.shape[1:], num_classes)
    classifier.to(images.device).to(memory_format=torch.channels_last)
    whiten(classifier, images, rows)
    return classifier


def _resumed(unfinished: Unfinished | None, fit: Fit, diary: _Diary) -> int:
    """Take up an interrupted training; return the passes that it has done."""
    state = None if unfinished is None else unfinished.load()
    if state is None:
        return 0
    fit.load_state_dict(state["fit"])
    diary.load(state["diary"])
    return int(state["passes"])


def _lesson(
    fit: Fit, inputs: Tensor, targets: Tensor, places: Tensor, diary: _Diary, lessons: Lessons
) -> None:
    """Take one step on (B, C, H, W) images, by (B, K) targets."""

    def loss(logits: Tensor) -> Tensor:
        found = F.cross_entropy(logits, targets, label_smoothing=lessons.smoothing)
        if lessons.early:
            learnt = diary.remember(places, logits.detach().softmax(1))
            found = found + early_learning(logits, learnt, lessons.early)
        return found

    diary.note(places, fit.step((inputs,), loss), targets)


def _batches(
    images: Tensor, rows: Tensor, size: int, seed: tuple[int, int], *, flip: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield places in `rows` and augmented images of one pass, whose order is its own."""
    generator = torch.Generator().manual_seed(
        int(np.random.SeedSequence(seed).generate_state(1)[0])
    )
    order = torch.randperm(len(rows), generator=generator)
    # A short last batch is left out: batch norm needs company.
    for places in order[: len(rows) - len(rows) % size].reshape(-1, size):
        some = to_float(images[rows[places].to(images.device)])
        yield places.to(images.device), augmented(some, generator, flip=flip)


@torch.no_grad()
def embed(
    classifier: ImageClassifier, images: Tensor, batch_size: int = 1000
) -> tuple[Tensor, Tensor]:
    """Compute features and logits in float32, in evaluation mode, whatever the classifier's mode.

    Args:
        classifier: A trained one; its mode is left as it was.
        images: (N, C, H, W) uint8.
        batch_size: Images per forward pass; changes memory and time, not the result.

    Returns:
        (N, D) features and (N, K) logits, both float64 on the CPU.

    Raises:
        ValueError: If the images have a wrong type or shape.
    """
    check_images(images, "images")
    device = classifier.classify.weight.device
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            features = [
                classifier.features(to_float(part.to(device)))
                for part in torch.split(images, batch_size)
            ]
            logits = [classifier.logits(part) for part in features]
    finally:
        classifier.train(was_training)
    return torch.cat(features).double().cpu(), torch.cat(logits).double().cpu()


@torch.no_grad()
def predict(
    classifier: ImageClassifier,
    images: Tensor,
    rows: Tensor,
    *,
    flip: bool,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 500,
) -> Tensor:
    """Return class probabilities of some images, (N, K) float32 on the CPU.

    Args:
        classifier: A trained one, in evaluation mode.
        images: (M, C, H, W) uint8.
        rows: (N,) int64, which images.
        flip: Average the logits of each image and of its mirror image.
        dtype: Precision of products.
        batch_size: Images per forward pass.
    """
    device = classifier.classify.weight.device
    found = []
    for part in torch.split(rows, batch_size):
        some = to_float(images[part.to(images.device)].to(device))
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = classifier(some).float()
            if flip:
                logits = (logits + classifier(some.flip(3)).float()) / 2
        found.append(logits.softmax(1).cpu())
    return torch.cat(found)
