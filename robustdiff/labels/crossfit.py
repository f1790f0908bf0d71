"""Class probabilities of images from small classifiers that were not trained on them.

Round one trains on the labels as given; its predictions give the transition matrix (confident
joint). Round two trains anew under that matrix (forward correction, Patrini et al. 2017), so that
it predicts clean classes. A label's trust follows by Bayes from both (`robustdiff.labels.judge`).
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from corruptions import confident_joint
from curricula.types import Doubles, Ints
from robustdiff.classifiers.image import embed, train_image_classifier
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Progress
from robustdiff.rng import Stream, stream_seed

_FOLDS = 2
# Enough to learn the classes, not enough to learn the wrong labels by heart. Measured on the digits
# and on 12,000 MNIST images under 30 to 70 % noise.
_PASSES, _LEAST_SEEN, _MOST_SEEN = 14, 12_000, 80_000


class CrossfitResult(NamedTuple):
    """What the classifiers predict.

    Attributes:
        image_classes: (N, K) float64, rows sum to 1: p(class | image), whatever its label.
        transition: (K, K) float64, T[clean, given].
    """

    image_classes: Doubles
    transition: Doubles


def images_to_see(count: int) -> int:
    """Return how many images a classifier of `count` noisily labelled ones trains on."""
    return min(max(_PASSES * count, _LEAST_SEEN), _MOST_SEEN)


def crossfit(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Progress,
    workers: Workers = ALONE,
) -> CrossfitResult:
    """Predict the classes of images by classifiers that were not trained on them.

    Args:
        images: (N, C, H, W) uint8.
        given: (N,) int64 in [0, K).
        num_classes: K.
        seed: Seed of the run.
        progress: Called with (steps done, steps in all).
        workers: Those that share the work.

    Raises:
        ValueError: If a class is never given.
    """
    transition = estimate_transition(
        images,
        given,
        num_classes,
        seed=seed,
        progress=lambda done, total: progress(done, 2 * total),
        workers=workers,
    )

    def second(done: int, total: int) -> None:
        progress(total + done, 2 * total)

    image_classes = _round(images, given, num_classes, transition, seed, second, workers)
    return CrossfitResult(image_classes, transition)


def estimate_transition(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Progress,
    workers: Workers = ALONE,
) -> Doubles:
    """Return the transition matrix that `crossfit` finds, (K, K), in half its time."""
    first = _round(images, given, num_classes, None, seed, progress, workers)
    return confident_joint(given.cpu().numpy(), first).transition


def _round(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    transition: Doubles | None,
    seed: int,
    progress: Progress,
    workers: Workers,
) -> Doubles:
    """Return (N, K) probabilities by the classifiers of the other folds; see `crossfit`.

    Without a transition matrix this is round one.
    """
    number = 0 if transition is None else 1
    fold = _folds(given.cpu().numpy(), seed)
    predicted = np.full((len(given), num_classes), np.nan)
    for part in range(workers.rank, _FOLDS, workers.size):
        train, test = (torch.from_numpy(np.flatnonzero(w)) for w in (fold != part, fold == part))
        classifier = train_image_classifier(
            images[train],
            given[train],
            num_classes,
            seed=stream_seed(seed, Stream.CROSSFIT) % 2**32 + number * _FOLDS + part,
            images_seen=images_to_see(len(train)),
            transition=transition,
            progress=_part_of_all(progress, part),
        )
        _, logits = embed(classifier, images[test])
        predicted[test.numpy()] = logits.softmax(1).numpy()
    return workers.merged(predicted)


def _folds(labels: Ints, seed: int) -> Ints:
    """Spread every class over the folds alike, so that each learns all classes."""
    order = np.random.default_rng(stream_seed(seed, Stream.CROSSFIT)).permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[by_class] = np.arange(len(labels)) % _FOLDS
    return fold


def _part_of_all(progress: Progress, part: int) -> Progress:
    """Report the steps of one fold's classifier as part of those of all folds."""
    return lambda step, steps: progress(part * steps + step, _FOLDS * steps)
