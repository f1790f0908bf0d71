"""Which image a written path means: the paths of a label file against those of a dataset."""

import posixpath
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from corruptions.types import Ints

_Parts = tuple[str, ...]
_SEVERAL = -1
_NONE = -2


class Match(NamedTuple):
    """Which rows are about which images.

    Attributes:
        rows: (C,) int64 rows that name a training image.
        images: (C,) int64 number of that image.
        held_out: Rows that name a held-out image.
        several: Rows that fit more than one image.
        unknown: Rows that fit none.
    """

    rows: Ints
    images: Ints
    held_out: Ints
    several: Ints
    unknown: Ints


def match_paths(words: Sequence[str], paths: Sequence[str], held_out: Sequence[str]) -> Match:
    """Find the images that a column of paths names.

    Paths are compared by their parts, with "/" for backslashes and composed Unicode. The first of
    these ways that fits any row is taken for all of them, so that a row about another image never
    stands in for a missing one: the written path ends with the image's, below one folder for all;
    the image's ends with the written one; the names of the files agree; they agree but for the
    image's suffix. A written path must fit one image only, held-out ones included.

    Args:
        words: The written paths, one a row.
        paths: (N,) paths of the training images.
        held_out: Paths of the images held out.
    """
    known = [*paths, *held_out]
    exact = {path: number for number, path in enumerate(known)}
    found = np.array([exact.get(word, _NONE) for word in words], dtype=np.int64)
    if (found == _NONE).any():
        loose = _match_loosely([_parts(word) for word in words], known, len(paths))
        # Two files whose names differ in their Unicode only are told apart by the exact name.
        found = np.where((loose == _SEVERAL) & (found != _NONE), found, loose)
    rows = np.arange(len(words))
    training = (found >= 0) & (found < len(paths))
    return Match(
        rows=rows[training],
        images=found[training],
        held_out=rows[found >= len(paths)],
        several=rows[found == _SEVERAL],
        unknown=rows[found == _NONE],
    )


def stem_of(path: str) -> str:
    """Return a file's name without its folder and its last suffix."""
    return _stem(_parts(path)[-1])


def _stem(name: str) -> str:
    return name[: name.rindex(".")] if "." in name[1:] else name


def _parts(path: str) -> _Parts:
    clean = posixpath.normpath(path.strip().replace("\\", "/"))
    return tuple(unicodedata.normalize("NFC", clean).split("/"))


def _match_loosely(rows: list[_Parts], known: Sequence[str], count: int) -> Ints:
    known_parts = [_parts(path) for path in known]
    found = _below_one_folder(rows, known_parts, count)
    if found is not None:
        return found
    for keys, key in _WAYS:
        table = _unique((k, n) for n, parts in enumerate(known_parts) for k in keys(parts))
        found = np.array([table.get(key(parts), _NONE) for parts in rows], dtype=np.int64)
        if (found != _NONE).any():
            return _one_path_each(found, rows)
    return np.full(len(rows), _NONE)


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    table: dict[str, int] = {}
    for key, number in pairs:
        table[key] = number if table.get(key, number) == number else _SEVERAL
    return table


def _below_one_folder(rows: list[_Parts], known: list[_Parts], count: int) -> Ints | None:
    """Match rows that end with the path of an image; None if there are none.

    If the rows below one folder cover the training images, all rows count, and may contradict each
    other; otherwise those below the folder that covers most.
    """
    table = _unique(("/".join(parts), number) for number, parts in enumerate(known))
    found = np.full(len(rows), _NONE, dtype=np.int64)
    folders: dict[_Parts, list[int]] = {}
    for row, parts in enumerate(rows):
        for start in range(len(parts)):
            number = table.get("/".join(parts[start:]))
            if number is not None:
                found[row] = number
                folders.setdefault(parts[:start], []).append(row)
                break
    if not folders:
        return None

    def covered(members: list[int]) -> int:
        return len({int(found[row]) for row in members if 0 <= found[row] < count})

    most = max(folders.values(), key=covered)
    if covered(most) < count:
        others = [row for members in folders.values() if members is not most for row in members]
        found[others] = _NONE
    return found


def _one_path_each(found: Ints, rows: list[_Parts]) -> Ints:
    """Take back images that rows of different paths fit."""
    paths: dict[int, set[_Parts]] = {}
    for number, parts in zip(found.tolist(), rows, strict=True):
        paths.setdefault(number, set()).add(parts)
    several = [number for number, fitting in paths.items() if number >= 0 and len(fitting) > 1]
    return np.where(np.isin(found, several), _SEVERAL, found)


def _ends(parts: _Parts) -> list[str]:
    return ["/".join(parts[start:]) for start in range(1, len(parts))]


# The keys by which an image is known, and the key that a written path asks for.
_WAYS: list[tuple[Callable[[_Parts], list[str]], Callable[[_Parts], str]]] = [
    (_ends, "/".join),
    (lambda parts: [parts[-1]], lambda parts: parts[-1]),
    (lambda parts: [_stem(parts[-1])], lambda parts: parts[-1]),
]
