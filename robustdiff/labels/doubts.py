"""What cannot be known from the given labels, in sentences.

`{3}` in a sentence stands for the name of class 3: `sentence.format(*names)` can be shown.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curricula.sparse import ClassValues, likeliest

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Two names are in doubt where they make up most labels of images that are classified alike, and
# their shares differ by less than this. If 45 % of a class bear another's name the shares differ by
# .1, and two classes that swap 40 % differ by .2.
_CLOSE, _MOST = 0.25, 0.7
# Labels that a share is estimated from at least, and labels a class below which it is called small.
_ENOUGH, _SMALL = 30, 20
# Share of the entropy of the labels that classifiers must explain, else they are called weak. Two
# classes with 40 % of wrong labels leave .03 to explain, ten with 60 % leave .13, with 80 % .02.
WEAK = 0.05
_LISTED = 5


class Names(NamedTuple):
    """Two names for images that are classified alike.

    Attributes:
        first: The commoner label.
        second: The other one.
        more: How much greater the share of wrong labels in the dataset is if the latter is right.
    """

    first: int
    second: int
    more: float


def unclear_names(probabilities: ClassValues, given: Ints) -> list[Names]:
    """Return names of which the labels do not say which is right.

    Where at most half of the labels of every kind of image are wrong, the commoner name is right.
    Nothing in the labels shows whether that holds: a class of which 55 % bear the name of the next
    one gives the same data as one of which 45 % do, with the names exchanged.

    Args:
        probabilities: (N, K), out of sample.
        given: (N,) int64.
    """
    k = probabilities.shape[1]
    counts = np.zeros((k, k))
    np.add.at(counts, (likeliest(probabilities), given), 1)
    found = []
    for row in counts[counts.sum(axis=1) >= _ENOUGH]:
        first, second = np.argsort(-row, kind="stable")[:2]
        apart, both = row[first] - row[second], row[first] + row[second]
        if apart < _CLOSE * row.sum() and both >= _MOST * row.sum():
            found.append(Names(int(first), int(second), float(apart / len(given))))
    return found


def sentences(unclear: list[Names], given: Ints, k: int, explained: float) -> tuple[str, ...]:
    """Return the doubts.

    Args:
        unclear: See `unclear_names`.
        given: (N,) int64.
        k: Number of classes.
        explained: Share of the entropy of the labels that the probabilities explain.
    """
    doubts = []
    if explained < WEAK:
        doubts.append(
            f"the given labels are predicted hardly better than by their frequencies "
            f"({max(explained, 0):.1%} of their entropy is explained): too much noise, too few "
            f"images or too weak a classifier to tell how many are wrong"
        )
    if unclear:
        pairs = _listed([f"{{{names.first}}} and {{{names.second}}}" for names in unclear])
        doubts.append(
            f"images that look alike are almost equally often labelled {pairs}: if more than half "
            f"of these labels are wrong, no method can tell which name is right"
        )
    counts = np.bincount(given, minlength=k)
    small = np.flatnonzero((counts > 0) & (counts < _SMALL))
    if len(small):
        classes = _listed([f"{{{label}}}" for label in small])
        doubts.append(
            f"fewer than {_SMALL} labels a class ({classes}) are too few to be sure which are wrong"
        )
    return tuple(doubts)


def _listed(words: list[str]) -> str:
    more = len(words) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {more} more" if more > 0 else "")
