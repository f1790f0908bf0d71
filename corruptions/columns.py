"""Which column of a table holds the labels, which names the images, which holds the truth."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple

from corruptions.tables import Table, is_missing, whole

# Names in any case, with "_" for spaces and hyphens; of several the first that is there.
PATHS = (
    "path", "file_path", "filepath", "image_path", "img_path", "relative_path", "relpath", "paths",
    "file", "file_name", "filename", "fname", "files", "filenames", "image_file", "image_filename",
    "image_name", "img_file", "img_name", "image", "img", "images", "photo", "picture",
)  # fmt: skip
_INDICES = ("index", "idx", "row", "row_index", "image_index", "sample_index")
# Numbers of rows if all are whole numbers, else names of files; pandas leaves its index unnamed.
_EITHER = ("id", "image_id", "img_id", "sample_id", "row_id", "", "unnamed:_0")
_TRUTHS = (
    "true_label", "true_labels", "true_class", "clean_label", "clean_labels", "truth",
    "ground_truth", "gt_label", "gt",
)  # fmt: skip
GIVEN = ("given_label", "given_labels")
LABELS = (
    "label", "labels", "class", "classes", "class_name", "target", "targets", "category",
    "noisy_label", "noisy_labels", "y",
)  # fmt: skip
# Who decided about a label: a column of tables of corrected labels.
DECIDED = ("decided_by",)
_SHOWN = 20
_LONGEST = 40


class Columns(NamedTuple):
    """The columns of a table by what they are for.

    Attributes:
        label: Number of the column of given labels.
        truths: Those of true labels.
        paths: Those that name files, the best first.
        indices: Those that number the samples, the best first.
        either: Those of `indices` that may name files by numbers.
        others: The remaining ones that tell rows from rows, other than by fractions.
        guess: How the labels' column was found, if it has no usual name.
        decided: The one that says who decided about the labels, if any.
    """

    label: int
    truths: tuple[int, ...] = ()
    paths: tuple[int, ...] = ()
    indices: tuple[int, ...] = ()
    either: tuple[int, ...] = ()
    others: tuple[int, ...] = ()
    guess: str | None = None
    decided: int | None = None


def plain_name(name: str) -> str:
    """Return a column's name as the lists of usual names spell it."""
    return re.sub(r"[\s_-]+", "_", unicodedata.normalize("NFC", name).strip().casefold())


def name_single_column(table: Table, is_label: Callable[[str], bool]) -> tuple[Table, list[str]]:
    """Decide whether the first row of a file of one column is a header.

    Args:
        table: Without a header.
        is_label: Whether a word may be a label.

    Returns:
        The table with a header, "" where the file has none; what was guessed, one line each.

    Raises:
        ValueError: If the first row may as well be a header as a label.
    """
    first = table.rows[0][0]
    usual = plain_name(first) in (*GIVEN, *LABELS, *_TRUTHS)
    if not is_label(first):
        guess = f"the first row of {table.path}, {first!r}, is no class and was taken as a header"
        return Table(table.path, (first,), table.rows[1:]), [] if usual else [guess]
    if usual:
        raise ValueError(
            f"the first row of {table.path}, {first!r}, may be a header or the label of the first "
            f"image; add a column that names the images, such as index or path"
        )
    return Table(table.path, ("",), table.rows), []


def pick_columns(table: Table, key: str | None) -> Columns:
    """Find what the columns of a table are for.

    Args:
        table: With a header.
        key: Name of the labels' column; None to go by usual names.

    Raises:
        ValueError: If no column, or more than one, may hold the labels.
    """
    assert table.header is not None
    names = [plain_name(name) for name in table.header]
    label, guess = _label_column(table, names, key)
    free = [n for n in range(len(names)) if n != label]
    paths, indices, numbered = _naming(table, names, free)
    truths = _named(_TRUTHS, names, range(len(names)))
    decided = _named(DECIDED, names, free)
    known = {label, *truths, *paths, *indices, *decided, *_named(_EITHER, names, free)}
    others = tuple(n for n in free if n not in known and _tells_apart(table, n))
    by = decided[0] if decided else None
    return Columns(label, truths, paths, indices, numbered, others, guess, by)


def naming_columns(table: Table, values: Sequence[int]) -> Columns:
    """Find the columns that name the images in a table of numbers.

    Args:
        table: With a header.
        values: The columns of numbers, one or more.

    Raises:
        ValueError: If none of the others has a usual name of files or of indices.
    """
    names = [plain_name(name) for name in table.header or ()]
    free = [n for n in range(len(names)) if n not in set(values)]
    paths, indices, numbered = _naming(table, names, free)
    if not paths and not indices:
        left = _listed([(table.header or ())[n] for n in free]) or "no other column"
        raise ValueError(
            f"{table.path} needs a column file or index that says which image a row is of; "
            f"beside its numbers it has {left}"
        )
    return Columns(values[0], (), paths, indices, numbered)


def _naming(
    table: Table, names: list[str], free: list[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Return the columns that name files, those that number the images, and which may be both."""
    either = _named(_EITHER, names, free)
    numbered = tuple(n for n in either if _all_whole(table, n))
    indices = _named(_INDICES, names, free)
    paths = _named(PATHS, names, free)
    if not paths and not indices:
        paths = tuple(n for n in either if n not in numbered)
    return paths, indices + numbered, numbered


def _label_column(table: Table, names: list[str], key: str | None) -> tuple[int, str | None]:
    header = table.header or ()
    wanted = "given_label" if key is None else key
    found = [n for n, name in enumerate(header) if name == wanted]
    found = found or [n for n, name in enumerate(names) if name == plain_name(wanted)]
    if key is None and not found:
        found = [n for n, name in enumerate(names) if name in GIVEN]
        found = found or [n for n, name in enumerate(names) if name in LABELS]
    if len(found) == 1:
        return found[0], None
    have = _listed(header)
    if found:
        alike = _listed([header[n] for n in found])
        raise ValueError(
            f"{table.path} has several columns of labels, {alike}; name the one to read with "
            f"--labels-key, once in the header; it has {have}"
        )
    usual = (*PATHS, *_INDICES, *_EITHER, *_TRUTHS)
    left = [n for n, name in enumerate(names) if name not in usual]
    if key is None and len(left) == 1:
        return left[0], f"the labels were read from column {header[left[0]]!r}, the only one left"
    raise ValueError(
        f"{table.path} needs a column {wanted!r}; it has {have}; "
        f"name the one to read with --labels-key"
    )


def _listed(names: Sequence[str]) -> str:
    """Name columns on one line."""
    short = [" ".join(name.split())[:_LONGEST] or "''" for name in names[:_SHOWN]]
    return ", ".join([*short, "..."] if len(names) > _SHOWN else short)


def _named(usual: tuple[str, ...], names: list[str], among: range | list[int]) -> tuple[int, ...]:
    places = [n for n in among if names[n] in usual]
    return tuple(sorted(places, key=lambda n: usual.index(names[n])))


def _all_whole(table: Table, number: int) -> bool:
    return all(whole(word) is not None for word in table.column(number) if word.strip())


def _tells_apart(table: Table, number: int) -> bool:
    words = {word for word in table.column(number) if not is_missing(word)}
    return len(words) > 1 and any(whole(w) is not None or not is_number(w) for w in words)


def is_number(word: str) -> bool:
    """Return whether a cell holds a number, whole or not."""
    try:
        float(word)
    except ValueError:
        return False
    return True
