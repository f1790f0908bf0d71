"""Text tables of any origin: their encoding, their delimiter, their rows, their header."""

import csv
import io
import re
from collections.abc import Iterable
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import NamedTuple

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}

_SHOWN = 3
_LONGEST = 60
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_UTF32 = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}(\.0*)?", re.ASCII)
_EXPONENT = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{0,30})?[eE][+-]?[0-9]{1,2}", re.ASCII)
_LARGEST = 10**18
_MISSING = {"", "nan", "na", "n/a", "none", "null", "nil", "<na>", "nat"}


class Table(NamedTuple):
    """The cells of a text file, as written.

    Attributes:
        path: The file.
        header: Names of the columns; None for one column, whose first row may be its name.
        rows: The rows below the header, all as long as the header.
    """

    path: Path
    header: tuple[str, ...] | None
    rows: list[list[str]]

    def column(self, number: int) -> list[str]:
        """Return the cells of a column."""
        return [row[number] for row in self.rows]


def read_table(path: Path) -> Table:
    """Read a table whose delimiter is a comma, a semicolon, a tab or a bar.

    Args:
        path: UTF-8, or UTF-16 with its mark; bytes of other encodings are kept as surrogates, as in
            names of files.

    Raises:
        ValueError: If the file is not such a table, or can be read as two.
        OSError: If it cannot be read.
    """
    rows = _split(_decode(path), path)
    if not any(cell.strip() for row in rows for cell in row):
        raise ValueError(f"{path} is empty")
    if len(rows[0]) == 1:
        return Table(path, None, rows)
    kept = [n for n in range(len(rows[0])) if any(row[n].strip() for row in rows)]
    rows = [[row[n] for n in kept] for row in rows]
    return Table(path, tuple(name.strip() for name in rows[0]), rows[1:])


def _decode(path: Path) -> str:
    content = path.read_bytes()
    try:
        if content.startswith(_UTF16) and not content.startswith(_UTF32):
            text = content.decode("utf-16")
        else:
            text = content.decode("utf-8-sig", errors="surrogateescape")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: it begins as UTF-16 does") from error
    if "\0" in text:
        raise ValueError(f"{path} is not a text file of UTF-8, or UTF-16 with its mark")
    # All lines of a Windows text file that was written with "\r\n" once more end so; some do where
    # a name in quotes holds these characters.
    twice = text.count("\r\r\n") == text.count("\n")
    return text.replace("\r\r\n", "\n") if twice else text


def _split(text: str, path: Path) -> list[list[str]]:
    """Return the rows by the delimiter that gives all of them the same length."""
    parsed = {mark: _parse(text, mark) for mark in DELIMITERS if mark in text}
    tables = {mark: rows for mark, rows in parsed.items() if rows}
    wide = {m: rows for m, rows in tables.items() if len(rows[0]) > 1 and not _uneven(rows)}
    if len(wide) > 1:
        named = " and by ".join(DELIMITERS[mark] for mark in wide)
        raise ValueError(f"{path} can be split into columns by {named}; quote its cells")
    if wide:
        return next(iter(wide.values()))
    begun = {mark: rows for mark, rows in tables.items() if len(rows[0]) > 1}
    if begun:
        raise ValueError(f"{path} {_uneven(max(begun.values(), key=lambda rows: len(rows[0])))}")
    absent = next((mark for mark in DELIMITERS if mark not in text), None)
    narrow = [_parse(text, absent)] if absent else [*tables.values()]
    for rows in narrow:
        if rows is not None and not _uneven(rows):
            return rows
    raise ValueError(
        f"{path} is not a text file of columns: tried {', '.join(DELIMITERS.values())}, and none "
        f"gives every row as many cells as the first; cells that hold one go into quotes"
    )


def _parse(text: str, delimiter: str) -> list[list[str]] | None:
    """Return the rows without empty lines; None if quotes do not enclose whole cells."""
    try:
        rows = [*csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)]
    except csv.Error:
        return None
    while rows and not rows[-1]:
        rows.pop()
    if all(len(row) <= 1 for row in rows):
        # Of one column an empty line may be a missing label; it must not move the others.
        return [row or [""] for row in rows]
    return [row for row in rows if row]


def _uneven(rows: list[list[str]]) -> str:
    """Name the first row that is not as long as the header; "" if there is none."""
    width = len(rows[0]) if rows else 0
    for number, row in enumerate(rows):
        if len(row) != width:
            few = "few" if len(row) < width else "many"
            return (
                f"has too {few} columns in data row {number}: {len(row)}, its first row has {width}"
            )
    return ""


def whole(word: str) -> int | None:
    """Return the whole number that a word is, "3", "3.0" and "3e0" alike; None for other words."""
    word = word.strip()
    if _WHOLE.fullmatch(word):
        return int(word.partition(".")[0])
    if _EXPONENT.fullmatch(word):
        value = Decimal(word)
        return int(value) if abs(value) < _LARGEST and value == int(value) else None
    return None


def is_missing(word: str) -> bool:
    """Return whether a word stands for a value that is not there."""
    return word.strip().casefold() in _MISSING


def first_few(items: Iterable[object]) -> str:
    """Name the first three of many, shortened, on one line."""
    items = iter(items)
    shown = [repr(item)[:_LONGEST] for item in islice(items, _SHOWN)]
    return ", ".join([*shown, "..."] if next(items, None) is not None else shown)
