"""Words as classes: the names of the dataset first, class numbers second."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from corruptions.samples import Samples
from corruptions.tables import Table, first_few, is_missing, whole
from corruptions.types import Ints

UNKNOWN = -1
ABSENT = -2


class Words(NamedTuple):
    """What a column says, one word for each of C rows.

    Attributes:
        where: The column, for people.
        distinct: D different words.
        codes: (C,) int64 in [0, D).
        rows: (C,) int64 number of each row among the file's data, from 1.
        names_first: Whether words that are names and numbers are names.
        elsewhere: Different words of the column's other rows.
    """

    where: str
    distinct: tuple[str, ...]
    codes: Ints
    rows: Ints
    names_first: bool = True
    elsewhere: tuple[str, ...] = ()


def column_words(table: Table, column: int, rows: Ints) -> Words:
    """Return what a column says in some of its rows."""
    assert table.header is not None
    name = table.header[column]
    where = f"column {name!r} of {table.path.name}" if name else table.path.name
    cells = [table.rows[row][column] for row in rows.tolist()]
    numbers = {cell: number for number, cell in enumerate(dict.fromkeys(cells))}
    codes = np.array([numbers[cell] for cell in cells], dtype=np.int64)
    elsewhere = tuple(dict.fromkeys(c for c in table.column(column) if c not in numbers))
    return Words(where, tuple(numbers), codes, rows + 1, elsewhere=elsewhere)


def integers_of(where: str, values: Ints) -> Words:
    """Make `Words` of an array of integers, which are class numbers if they can be."""
    distinct, codes = np.unique(values, return_inverse=True)
    words = tuple(str(value) for value in distinct.tolist())
    rows = np.arange(1, len(values) + 1)
    return Words(where, words, codes.astype(np.int64), rows, names_first=False)


def as_names(words: Sequence[str], names: Sequence[str]) -> Ints:
    """Read words as names of classes; -1 for a word that is none, -2 for a missing value.

    A word that is no name as it stands is one that differs only in case, in surrounding space, in
    composed Unicode or in how a whole number is written, if it is the only such name.
    """
    exact = {name: number for number, name in enumerate(names)}
    loose: dict[str | int, int] = {}
    for number, name in enumerate(names):
        for key in _loose_keys(name):
            loose[key] = number if key not in loose else UNKNOWN

    def read(word: str) -> int:
        if word in exact:
            return exact[word]
        if is_missing(word):
            return ABSENT
        return next((loose[key] for key in _loose_keys(word) if key in loose), UNKNOWN)

    return np.array([read(word) for word in words], dtype=np.int64)


def as_numbers(words: Sequence[str], num_classes: int) -> Ints:
    """Read words as class numbers; -1 for a word that is none in [0, K), -2 for a missing value."""

    def read(word: str) -> int:
        number = whole(word)
        if number is None:
            return ABSENT if is_missing(word) else UNKNOWN
        return number if 0 <= number < num_classes else UNKNOWN

    return np.array([read(word) for word in words], dtype=np.int64)


READINGS: dict[str, Callable[[Sequence[str], Samples], Ints]] = {
    "names": lambda words, samples: as_names(words, samples.class_names or ()),
    "numbers": lambda words, samples: as_numbers(words, samples.num_classes),
}


def may_be_label(word: str, samples: Samples) -> bool:
    """Return whether a word is a class of the dataset, or a missing value."""
    return any(read([word], samples)[0] != UNKNOWN for read in READINGS.values())


def check_present(words: Words, what: str = "labels are") -> None:
    """Refuse words that stand for missing values, as `is_missing` says.

    Raises:
        ValueError: Naming the rows.
    """
    absent = np.array([is_missing(word) for word in words.distinct], dtype=bool)[words.codes]
    if absent.any():
        raise ValueError(
            f"{int(absent.sum())} {what} missing in {words.where}: "
            f"data row {first_few(words.rows[absent].tolist())}"
        )


def _loose_keys(word: str) -> list[str | int]:
    plain = unicodedata.normalize("NFC", word.strip()).casefold()
    number = whole(word)
    return [unicodedata.normalize("NFC", plain), *([] if number is None else [number])]
