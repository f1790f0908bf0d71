"""What is written for people where samples are many: statistics of some of them, and the suspects.

Every score stays in scores.npz; what would take a sort, a line of text or a picture a sample does
not grow with the dataset.
"""

import numpy as np

from curricula.permutation import Permutation
from curricula.types import Ints

# Up to so many samples everything is written about all of them.
MOST = 1_000_000


def is_many(count: int) -> bool:
    """Return whether so many samples are too many to write something about each."""
    return count > MOST


def sampled(count: int) -> Ints:
    """Return the samples that statistics are of, ascending: all, or of many a million at random.

    Equal numbers give equal samples.
    """
    if not is_many(count):
        return np.arange(count)
    return np.sort(Permutation.of(count, 0)[:MOST]).astype(np.int64)
