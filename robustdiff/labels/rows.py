"""Rows of images: folds that hold all classes alike."""

import numpy as np

from curricula.types import Ints


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
