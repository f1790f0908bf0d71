"""Which image each row of a table is about: by path, else by index, else by order."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from corruptions.columns import Columns
from corruptions.paths import Match, match_paths, stem_of
from corruptions.samples import Samples
from corruptions.tables import Table, first_few, whole
from corruptions.types import Ints

_RENAME = "call the column path if it names files, index if it counts images from 0"


class Claims(NamedTuple):
    """Rows that say labels of samples; every sample has one or more.

    Attributes:
        rows: (C,) int64 in [0, R).
        images: (C,) int64 in [0, N), the sample that each is about.
        notes: What was guessed or left out, one line each.
        by_order: Whether nothing but their order joins rows and samples.
        unknown: Words that should name an image and fit none of the dataset, or several.
    """

    rows: Ints
    images: Ints
    notes: tuple[str, ...] = ()
    by_order: bool = False
    unknown: tuple[str, ...] = ()


def claims_of(table: Table, columns: Columns, samples: Samples) -> Claims:
    """Find the sample that each row of a table is about.

    Raises:
        ValueError: If a sample has no row, or the rows cannot be told apart.
    """
    has_paths = samples.paths is not None
    if columns.paths and has_paths:
        return _by_path(table, columns.paths, samples)
    if columns.indices:
        column = columns.indices[0]
        if column in columns.either:
            _refuse_file_numbers(table, column, samples)
        unused = [f"{table.path}: the images have no paths; its rows were found by their index"]
        return _by_index(table, column, samples, unused if columns.paths else [])
    if columns.paths:
        raise ValueError(
            f"{_where(table, columns.paths[0])} names files, but the images of the dataset do not "
            f"come as files; add a column index"
        )
    return _by_other(table, columns.others, samples)


def by_order(count: int, samples: Samples, whose: str) -> Claims:
    """Take labels in the order of the samples.

    Raises:
        ValueError: If there are more or fewer.
    """
    total = len(samples.clean)
    if count != total:
        raise ValueError(f"{whose} has {count} labels, but there are {total} samples")
    return Claims(np.arange(count), np.arange(count), by_order=True)


def check_covered(match: Match, samples: Samples, words: Sequence[str], whose: str) -> None:
    """Refuse a file that leaves images without a label.

    Raises:
        ValueError: Naming how many and the first three.
    """
    total = len(samples.clean)
    absent = np.flatnonzero(np.bincount(match.images, minlength=total) == 0)
    if not absent.size:
        return
    why = ""
    if match.several.size:
        fits = first_few(words[row] for row in match.several.tolist())
        why = (
            f"; {match.several.size} rows fit several images or share one, {fits}: write the paths "
            f"from the dataset's folder on"
        )
    elif match.unknown.size:
        fits = first_few(words[row] for row in match.unknown.tolist())
        why = f"; {match.unknown.size} of its rows name no image: {fits}"
    raise ValueError(
        f"{whose} has no row for {absent.size} of {total} images: "
        f"{first_few(samples.shown(number) for number in absent.tolist())}{why}"
    )


def left_out(match: Match, words: Sequence[str], whose: str) -> list[str]:
    """Say which rows are about no sample."""
    notes = []
    if match.held_out.size:
        notes.append(f"{match.held_out.size} rows of {whose} are of held-out images; left out")
    numbers = np.sort(np.concatenate([match.several, match.unknown])).tolist()
    rest = [words[row] for row in numbers if words[row].strip()]
    if rest:
        named = first_few(rest)
        notes.append(f"{len(rest)} rows of {whose} name no image of the dataset: {named}; left out")
    return notes


def _where(table: Table, column: int) -> str:
    assert table.header is not None
    return f"column {table.header[column]!r} of {table.path}"


def _by_path(table: Table, columns: tuple[int, ...], samples: Samples) -> Claims:
    for column in columns:
        words = table.column(column)
        match = match_paths(words, samples.paths or (), samples.held_out)
        if match.unknown.size < len(words):
            return _of_match(table, column, match, samples)
    words = table.column(columns[0])
    raise ValueError(
        f"{_where(table, columns[0])} names none of the dataset's files: it has "
        f"{first_few(words)}, the dataset {first_few(samples.paths or ())}"
    )


def _of_match(table: Table, column: int, match: Match, samples: Samples) -> Claims:
    words = table.column(column)
    _refuse_blank(table, column)
    check_covered(match, samples, words, str(table.path))
    notes = tuple(left_out(match, words, str(table.path)))
    unknown = [words[row] for row in (*match.unknown.tolist(), *match.several.tolist())]
    return Claims(match.rows, match.images, notes, unknown=tuple(unknown))


def _refuse_blank(table: Table, column: int) -> None:
    blank = [n for n, row in enumerate(table.rows, 1) if any(row) and not row[column].strip()]
    if blank:
        raise ValueError(
            f"{len(blank)} rows name no image in {_where(table, column)}: "
            f"data row {first_few(blank)}"
        )


def _by_index(table: Table, column: int, samples: Samples, notes: Sequence[str]) -> Claims:
    total, where = len(samples.clean), _where(table, column)
    _refuse_blank(table, column)
    rows = np.array([n for n, row in enumerate(table.rows) if row[column].strip()], dtype=np.int64)
    words = table.column(column)
    numbers = [whole(words[row]) for row in rows.tolist()]
    pairs = zip(rows.tolist(), numbers, strict=True)
    bad = [words[row] for row, number in pairs if number is None or not 0 <= number < total]
    if bad:
        from_one = total in numbers and 0 not in numbers
        hint = "they seem to count from 1: subtract 1" if from_one else _RENAME
        raise ValueError(
            f"{len(bad)} rows have no index in [0, {total}) in {where}: {first_few(bad)}; {hint}"
        )
    images = np.array(numbers, dtype=np.int64)
    none = np.empty(0, dtype=np.int64)
    check_covered(Match(rows, images, none, none, none), samples, words, str(table.path))
    return Claims(rows, images, tuple(notes))


def _refuse_file_numbers(table: Table, column: int, samples: Samples) -> None:
    """Refuse numbers that may as well be names of files, such as 7 of 7.png."""
    if samples.paths is None:
        return
    called: dict[int | None, set[int]] = {}
    for image, path in enumerate((*samples.paths, *samples.held_out)):
        called.setdefault(whole(stem_of(path)), set()).add(image)
    numbers = [whole(word) for word in table.column(column) if word.strip()]
    if not all(number is not None and number in called for number in numbers):
        return
    if any(called[number] != {number} for number in numbers):
        raise ValueError(
            f"{_where(table, column)} may name files, such as {samples.paths[0]!r}, or count "
            f"images; {_RENAME}"
        )


def _by_other(table: Table, others: tuple[int, ...], samples: Samples) -> Claims:
    """Join by a column of no usual name; by order only if there is none that may name images."""
    total = len(samples.clean)
    for column in others:
        note = f"{_where(table, column)} was taken for"
        words = table.column(column)
        numbers = {whole(word) for word in words}
        if numbers == set(range(total)):
            _refuse_file_numbers(table, column, samples)
            return _by_index(table, column, samples, [f"{note} the images' index"])
        match = match_paths(words, samples.paths or (), samples.held_out)
        if match.rows.size and None in numbers:
            claims = _of_match(table, column, match, samples)
            return claims._replace(notes=(f"{note} the images' files", *claims.notes))
        if match.unknown.size < len(words) or 2 * len(set(words)) > len(words):
            raise ValueError(
                f"{_where(table, column)} may name the images, but fits neither all of their files "
                f"nor their index; {_RENAME}; take it out if it does neither"
            )
    return by_order(len(table.rows), samples, "the label file")
