"""Rows of images: folds that hold all classes alike, and what is said about some rows each."""

import numpy as np
import torch
from torch import Tensor

from curricula.sparse import MOST_DENSE, ClassValues, SparseClasses, compact, joined, unknown
from curricula.types import Ints
from robustdiff.classifiers.image import Lessons, predict
from robustdiff.classifiers.networks import ImageClassifier
from robustdiff.parallel import Workers
from robustdiff.progress import Progress, silent

# Images that a classifier is asked about at a time: some of its forward passes.
_AT_ONCE = 4_000


def spread_folds(given: Ints, folds: int, seed: int) -> Ints:
    """Return the fold of every image, (N,) int64 in [0, folds), in a random order.

    Every class is spread over the folds alike, so that what learns some folds learns all classes.

    Args:
        given: (N,) int64 labels.
        folds: How many.
        seed: Seed of the order.
    """
    order = np.random.default_rng(seed).permutation(len(given))
    fold = np.empty(len(given), dtype=np.int64)
    fold[order[np.argsort(given[order], kind="stable")]] = np.arange(len(given)) % folds
    return fold


def ask(
    classifier: ImageClassifier,
    images: Tensor,
    rows: Tensor,
    given: Ints,
    lessons: Lessons,
    progress: Progress = silent,
) -> ClassValues:
    """Return class probabilities of some images, (M, K) float32; sparse for many classes.

    Args:
        classifier: A trained one, in evaluation mode.
        images: (N, C, H, W) uint8.
        rows: (M,) int64, which images.
        given: (N,) int64 labels, which sparse rows keep.
        lessons: How the classifier was trained.
        progress: That of the work which this ends: called with (1, 1) before each piece.
    """
    found = []
    for part in torch.split(rows, _AT_ONCE):
        progress(1, 1)
        said = predict(classifier, images, part, flip=lessons.flip, dtype=lessons.dtype)
        found.append(compact(said.numpy(), given[part.numpy()]))
    return joined(found)


def nothing_said(rows: int, count: int) -> ClassValues:
    """Return (N, K) that every process fills in for some rows; see `all_said`."""
    if count <= MOST_DENSE:
        return np.zeros((rows, count), dtype=np.float32)
    return unknown(rows, count)


def all_said(workers: Workers, found: ClassValues) -> ClassValues:
    """Return what the processes have filled in, each in rows of its own."""
    if isinstance(found, SparseClasses):
        return merged_rows(workers, found, chosen=True)
    return workers.total(torch.from_numpy(found)).numpy()


def merged_rows(workers: Workers, found: SparseClasses, *, chosen: bool) -> SparseClasses:
    """Merge what the processes have measured; see `Workers.merged`.

    Args:
        workers: All of them.
        found: (N, K), NaN where this process has measured nothing.
        chosen: Whether each chose the classes of its rows, and left those of others at 0.
    """
    classes = found.classes
    if chosen:  # gloo adds no int16
        total = workers.total(torch.from_numpy(classes.astype(np.int32))).numpy()
        classes = total.astype(classes.dtype)
    values, rest = workers.merged(found.values), workers.merged(found.rest)
    return SparseClasses(values, classes, rest, found.count)
