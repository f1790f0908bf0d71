"""Rows of images: folds that hold all classes alike, and pieces that fit into memory."""

from collections.abc import Iterator

import numpy as np

from curricula.types import Ints

# Entries of (N, K) arrays that are computed on at a time.
_PIECE = 1 << 21


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


def pieces(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of the rows of a (rows, columns) array, of a bounded number of entries each."""
    size = max(1, _PIECE // columns)
    return (slice(start, start + size) for start in range(0, rows, size))
