"""Values of every sample under every class, of which each row keeps a few where classes are many.

A judge tells the given class from its few rivals; of the hundreds of others only their mass
matters. So a row holds the given class and the likeliest others, and one value that stands for each
class left out: the mean of theirs. The mean keeps the sum of a row, so distributions still sum to
1, and it is linear, so smoothing and averaging over models are the same before and after.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from curricula.types import Floats, Ints

# Up to so many classes all values are held, 4 bytes each.
MOST_DENSE = 128
# Classes that a row keeps of more: the given one and four rivals.
KEPT = 5
# Entries of (N, K) arrays that are computed on at a time.
_PIECE = 1 << 21


@dataclass(frozen=True)
class SparseClasses:
    """An (N, K) array of which each row keeps R classes.

    Rows are read and written as dense ones, a few at a time: `sparse[rows]` is (M, K) float32, and
    `sparse[rows] = dense` keeps the values of the classes held and the mean of the others.

    Attributes:
        values: (N, R) float32.
        classes: (N, R) int16, or int32 for many classes: their numbers, ascending in each row.
        rest: (N,) float32, the value of each of the other K - R classes; 0 if there are none.
        count: K.
    """

    values: Floats
    classes: NDArray[np.integer]
    rest: Floats
    count: int

    @property
    def shape(self) -> tuple[int, int]:
        """(N, K)."""
        return len(self.values), self.count

    @property
    def left(self) -> int:
        """How many classes a row leaves out, K - R."""
        return int(self.count - self.values.shape[1])

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Ints | NDArray[np.bool_]) -> Floats:
        values = self.values[rows]
        dense = np.repeat(self.rest[rows][:, None], self.count, axis=1)
        np.put_along_axis(dense, self.classes[rows].astype(np.int64), values, axis=1)
        return dense

    def __setitem__(self, rows: slice | Ints | NDArray[np.bool_], dense: Floats) -> None:
        classes = self.classes[rows].astype(np.int64)
        self.values[rows] = np.take_along_axis(dense, classes, axis=1)
        if self.left:
            others = dense.astype(np.float64)
            np.put_along_axis(others, classes, 0.0, axis=1)
            self.rest[rows] = others.sum(axis=1) / self.left

    def at(self, rows: slice | Ints | NDArray[np.bool_]) -> Self:
        """Return some rows, sparse."""
        return replace(
            self, values=self.values[rows], classes=self.classes[rows], rest=self.rest[rows]
        )

    def plain(self) -> dict[str, Any]:
        """Return its parts, arrays and a number."""
        return {name: getattr(self, name) for name in ("values", "classes", "rest", "count")}

    @classmethod
    def of(cls, parts: Mapping[str, Any]) -> Self:
        """Build what `plain` returned; arrays may be tensors."""
        values, classes, rest = (np.asarray(parts[name]) for name in ("values", "classes", "rest"))
        return cls(values, classes, rest, int(parts["count"]))


ClassValues = Floats | SparseClasses


def held(values: ClassValues) -> Floats:
    """Return the values that are held one by one, (N, K) or (N, R)."""
    return values.values if isinstance(values, SparseClasses) else values


def unknown(rows: int, count: int, kept: int = KEPT) -> SparseClasses:
    """Return rows of NaN for K classes that keep class 0 alone, to be filled."""
    classes = np.zeros((rows, kept), dtype=np.int16 if count <= 1 << 15 else np.int32)
    values, rest = np.full(classes.shape, np.nan, np.float32), np.full(rows, np.nan, np.float32)
    return SparseClasses(values, classes, rest, count)


def keep_few(dense: Floats, given: Ints, kept: int = KEPT) -> SparseClasses:
    """Keep the given class of each row and those of the largest values.

    Args:
        dense: (N, K) finite.
        given: (N,) int64 in [0, K).
        kept: R in [1, K].
    """
    found = unknown(len(dense), dense.shape[1], kept)
    if not found.left:
        found.rest[:] = 0
    for where in pieces(*dense.shape):
        some = dense[where].astype(np.float64)
        some[np.arange(len(some)), given[where]] = np.inf
        best = np.argpartition(-some, kept - 1, axis=1)[:, :kept]
        found.classes[where] = np.sort(best, axis=1)
        found[where] = dense[where]
    return found


def compact(dense: Floats, given: Ints) -> ClassValues:
    """Return (N, K) values as they are held: all of few classes, a few of many."""
    return dense if dense.shape[1] <= MOST_DENSE else keep_few(dense, given)


def holding(values: SparseClasses, rows: Ints, classes: Ints) -> SparseClasses:
    """Return the same rows, of which some keep one class more than others, at the least's cost.

    Args:
        values: (N, K).
        rows: (M,) int64.
        classes: (M,) int64, what those rows keep.
    """
    missing = ~(values.classes[rows] == classes[:, None]).any(axis=1)
    rows, classes = rows[missing], classes[missing]
    if not len(rows):
        return values
    found = replace(values, values=values.values.copy(), classes=values.classes.copy())
    found = replace(found, rest=values.rest.copy())
    dense, least = values[rows], values.values[rows].argmin(axis=1)
    found.classes[rows, least] = classes
    found.classes[rows] = np.sort(found.classes[rows], axis=1)
    found[rows] = dense
    return found


def empty_like(values: ClassValues) -> ClassValues:
    """Return an array of the same shape to fill; a sparse one keeps the same classes."""
    if isinstance(values, SparseClasses):
        return replace(values, values=np.zeros_like(values.values), rest=np.zeros_like(values.rest))
    return np.zeros(values.shape, dtype=np.float32)


def certain(given: Ints, like: ClassValues) -> ClassValues:
    """Return the distributions that are sure of labels, (N,) int64, in the form of others."""
    found = empty_like(like)
    if isinstance(found, SparseClasses):
        found.values[:] = found.classes == given[:, None]
    else:
        found[np.arange(len(given)), given] = 1
    return found


def pieces(rows: int, columns: int) -> Iterator[slice]:
    """Yield slices of the rows of a (rows, columns) array, of a bounded number of entries each."""
    size = max(1, _PIECE // columns)
    return (slice(start, start + size) for start in range(0, rows, size))


def dense(values: ClassValues) -> Floats:
    """Return all of it, (N, K)."""
    return values[:] if isinstance(values, SparseClasses) else values


def some_rows(values: ClassValues, rows: slice | Ints | NDArray[np.bool_]) -> ClassValues:
    """Return some rows in the same form."""
    return values.at(rows) if isinstance(values, SparseClasses) else values[rows]


def joined(parts: Sequence[ClassValues]) -> ClassValues:
    """Return the rows of several arrays one after the other, all dense or all sparse."""
    some = [part for part in parts if isinstance(part, SparseClasses)]
    if not some:
        return np.concatenate([np.asarray(part) for part in parts])
    values, classes = ([getattr(part, name) for part in some] for name in ("values", "classes"))
    rest = np.concatenate([part.rest for part in some])
    return SparseClasses(np.concatenate(values), np.concatenate(classes), rest, some[0].count)


def picked(which: NDArray[np.bool_], one: ClassValues, two: ClassValues) -> ClassValues:
    """Return rows of one array where `which`, (N,), is true, else those of another one."""
    if not isinstance(one, SparseClasses):
        return np.where(which[:, None], one, dense(two))
    assert isinstance(two, SparseClasses)
    values = np.where(which[:, None], one.values, two.values)
    classes = np.where(which[:, None], one.classes, two.classes)
    return replace(two, values=values, classes=classes, rest=np.where(which, one.rest, two.rest))


def put_rows(to: ClassValues, rows: Ints | NDArray[np.bool_], values: ClassValues) -> None:
    """Write rows; sparse ones with the classes that they keep."""
    if isinstance(values, SparseClasses):
        assert isinstance(to, SparseClasses)
        to.values[rows], to.classes[rows], to.rest[rows] = (
            values.values,
            values.classes,
            values.rest,
        )
    else:
        to[rows] = values


def add_share(total: ClassValues, where: slice, values: ClassValues, parts: int) -> None:
    """Add one of several parts of a mean to some rows; sparse ones keep the same classes."""
    if isinstance(values, SparseClasses):
        assert isinstance(total, SparseClasses)
        total.values[where] += values.values / parts
        total.rest[where] += values.rest / parts
    else:
        total[where] += values / parts


def of_class(values: ClassValues, labels: Ints) -> Floats:
    """Return the value of one class of each row, (N,), by labels, (N,) int64."""
    if not isinstance(values, SparseClasses):
        return np.asarray(values[np.arange(len(labels)), labels])
    own = values.classes == labels[:, None]
    return np.where(own.any(axis=1), (values.values * own).sum(axis=1), values.rest)


def likeliest(values: ClassValues) -> Ints:
    """Return the class of the largest value of each row, (N,) int64; of those it keeps."""
    if not isinstance(values, SparseClasses):
        return np.asarray(values.argmax(axis=1))
    return _at_place(values, values.values.argmax(axis=1))


def second_likeliest(values: ClassValues) -> Ints:
    """Return the class of the next largest value of each row, (N,) int64; of those it keeps."""
    rows = np.arange(len(values))
    others = held(values).copy()
    others[rows, others.argmax(axis=1)] = -1
    found = others.argmax(axis=1)
    return _at_place(values, found) if isinstance(values, SparseClasses) else np.asarray(found)


def _at_place(values: SparseClasses, place: Ints) -> Ints:
    return values.classes[np.arange(len(values)), place].astype(np.int64)


def largest_other(values: ClassValues, labels: Ints) -> Floats:
    """Return the largest value of each row but that of a class, (N,), by labels, (N,) int64."""
    if isinstance(values, SparseClasses):
        own = values.classes == labels[:, None]
        found = np.where(own, -np.inf, values.values).max(axis=1)
        return np.asarray(np.maximum(found, values.rest if values.left > 0 else -np.inf))
    others = values.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    return np.asarray(others.max(axis=1))


def two_largest(values: ClassValues) -> Floats:
    """Return the second largest and the largest value of each row, (N, 2)."""
    known = held(values)
    if isinstance(values, SparseClasses):
        known = np.column_stack([known] + [values.rest] * min(2, values.left))
    return np.partition(known, -2, axis=1)[:, -2:]
