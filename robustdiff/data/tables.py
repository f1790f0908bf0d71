"""Tables about images: text, JSON lines or parquet; which column is for what."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from corruptions.columns import GIVEN, LABELS, PATHS, plain_name
from corruptions.tables import first_few, read_table

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")
# Names of columns that need no word; other usual ones are taken, and named in a note.
_PLAIN = ("file", "file_name", "image", "label", "split")
_USUAL = {"image": PATHS, "label": (*GIVEN, *LABELS), "split": ("split",)}
_WHAT = {"image": "images or their files", "label": "labels", "split": "splits"}


class Columns(NamedTuple):
    """The columns of a table by what they are for.

    Attributes:
        image: Images, or their files.
        label: Labels.
        split: What each image is for; None if nothing says it.
        notes: Which columns of less usual names were taken.
    """

    image: str
    label: str
    split: str | None
    notes: tuple[str, ...]


def pick_columns(header: Sequence[str], where: str, asked: dict[str, str | None]) -> Columns:
    """Find what the columns of a table are for, by what was asked, else by usual names.

    Args:
        header: Names of its columns.
        where: The table, for people.
        asked: "image", "label" and "split", each with the column that was asked for, or None.

    Raises:
        ValueError: If none, or more than one, may be meant, naming the columns that there are.
    """
    found = {kind: _picked(header, where, kind, column) for kind, column in asked.items()}
    image, label, split = found["image"], found["label"], found["split"]
    for kind, column in (("image", image), ("label", label)):
        if column is None:
            raise ValueError(
                f"{where} needs a column of {_WHAT[kind]}, and has {first_few(header)}; name it "
                f"with --{kind}-column"
            )
    assert image is not None
    assert label is not None
    chosen = [
        f"{_WHAT[kind]} from column {column!r}"
        for kind, column in found.items()
        if column is not None and asked[kind] is None and plain_name(column) not in _PLAIN
    ]
    return Columns(image, label, split, (f"{where}: {', '.join(chosen)}",) if chosen else ())


def _picked(header: Sequence[str], where: str, kind: str, asked: str | None) -> str | None:
    if asked is not None:
        if asked not in header:
            raise ValueError(
                f"{where} has no column {asked!r} for --{kind}-column; it has {first_few(header)}"
            )
        return asked
    found = [name for name in header if plain_name(name) in _USUAL[kind]]
    if len(found) > 1:
        raise ValueError(
            f"{where} has several columns that may hold {_WHAT[kind]}, {first_few(found)}; name "
            f"the one to read with --{kind}-column"
        )
    return found[0] if found else None


def read_columns(path: Path) -> dict[str, list[object]]:
    """Read a table.

    Args:
        path: .csv or .tsv (see `corruptions.tables.read_table`), .jsonl (an object a line), or
            .parquet.

    Returns:
        The cells of each column, by its name; None where a JSON object or parquet has no value.

    Raises:
        ValueError: If it is missing, damaged or something else.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"tables of images are {', '.join(SUFFIXES)}, got {path}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if suffix == ".jsonl":
            return _of_json_lines(path)
        return _of_parquet(path) if suffix == ".parquet" else _of_text(path)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def _of_text(path: Path) -> dict[str, list[object]]:
    table = read_table(path)
    if table.header is None:
        raise ValueError(f"{path} has one column, and needs those of files and of labels")
    twice = sorted({name for name in table.header if table.header.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has several columns {first_few(twice)}")
    return {name: [*table.column(number)] for number, name in enumerate(table.header)}


def _of_json_lines(path: Path) -> dict[str, list[object]]:
    try:
        # Not splitlines(): the text of JSON may hold what Unicode has for line breaks besides "\n".
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file of UTF-8") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} of {path} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} of {path} must be an object, got {line[:40]!r}")
        rows.append(row)
    header = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in header}


def _of_parquet(path: Path) -> dict[str, list[object]]:
    arrow = pyarrow()
    with undamaged(path):
        columns: dict[str, list[object]] = arrow.parquet.read_table(path).to_pydict()
    return columns


@contextmanager
def undamaged(path: Path) -> Iterator[None]:
    """Name a parquet file whose content pyarrow cannot read.

    Raises:
        ValueError: If the file is something else, or damaged.
        OSError: If the system does not give it.
    """
    try:
        yield
    except (pyarrow().ArrowException, OSError) as error:
        if getattr(error, "errno", None) is not None:
            raise
        # pyarrow raises errors without a number for what a file holds, of both kinds.
        raise ValueError(f"{path} is not a parquet file, or is damaged") from error


def pyarrow() -> Any:  # noqa: ANN401 it has no types
    """Import pyarrow with its parts that are used here.

    Raises:
        ValueError: If it is not installed, saying how to get it.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ValueError(
            f"parquet and arrow files are read by pyarrow; get it with: "
            f"pip install 'robustdiff[parquet]' ({error})"
        ) from error
    return pyarrow
