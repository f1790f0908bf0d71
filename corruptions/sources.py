"""A label file as a dataset of its own: its rows are the samples, its labels are the truth."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from corruptions.columns import Columns, name_single_column
from corruptions.readers import LabelFile
from corruptions.samples import Samples
from corruptions.tables import Table, first_few, whole
from corruptions.types import Ints
from corruptions.words import Words, check_present, column_words

# A (K, K) matrix of more does not fit in the memory of most machines: of so many it takes 0.8 GB.
_MOST_CLASSES = 10_000


def samples_from(
    file: LabelFile, num_classes: int | None = None, labels_as: str = "auto"
) -> tuple[Samples, tuple[str, ...]]:
    """Take a label file for the truth about its own samples.

    Args:
        file: What the file says.
        num_classes: K; None for the number of names, or for the largest class number plus one.
        labels_as: Whether words are "names" or "numbers" of classes; "auto" takes numbers where all
            of them are.

    Returns:
        The samples, in the order of their index where a table has one and no paths, else of its
        rows; what was guessed, one line each.

    Raises:
        ValueError: If the file does not give every sample one label, or the numbers of a table
            leave some out and nothing says how many classes there are.
    """
    if file.table is not None:
        return _of_table(file.table, file.columns, num_classes, labels_as)
    assert file.given is not None
    if not len(file.given):
        raise ValueError(f"{file.path} holds no labels")
    if labels_as != "auto":
        raise ValueError(
            f"{file.path} holds numbers of classes and no words; it needs no --labels-as"
        )
    record = file.record
    names = None if record is None else record.class_names
    count = _count(file.given, names, num_classes, str(file.path))
    absent = sorted(set(range(count)) - set(file.given.tolist()))
    notes = []
    if record is None and num_classes is None and absent:
        notes.append(
            f"{file.path} holds no label {first_few(absent)} of {count} classes that count from 0; "
            f"labels may move to these, too"
        )
    return Samples(
        clean=file.given,
        num_classes=count,
        class_names=names,
        paths=None if record is None else record.paths,
        digests=None if record is None else record.digests,
    ), tuple(notes)


def _of_table(
    table: Table, columns: Columns | None, num_classes: int | None, labels_as: str
) -> tuple[Samples, tuple[str, ...]]:
    notes: list[str] = []
    if columns is None:
        words = table.column(0)
        table, notes = name_single_column(table, lambda word: _like_the_rest(word, words[1:]))
        columns = Columns(label=0)
    elif columns.guess is not None:
        notes = [columns.guess]
    if not table.rows:
        raise ValueError(f"{table.path} holds no labels")
    if columns.others and not (columns.paths or columns.indices):
        notes.append(
            f"no column of {table.path} is called path or index: its rows are numbered in their "
            f"order"
        )
    rows = _order(table, columns)
    paths = _paths(table, columns.paths[0], rows) if columns.paths else None
    given = column_words(table, columns.label, rows)
    labels, names = _classes(given, labels_as)
    if names is None and num_classes is None:
        _refuse_gaps(labels, given.where)
    count = _count(labels, names, num_classes, given.where)
    return Samples(clean=labels, num_classes=count, class_names=names, paths=paths), tuple(notes)


def _like_the_rest(word: str, rest: Sequence[str]) -> bool:
    """Return whether the first word of a column may be a label like the others."""
    return not word.strip() or whole(word) is not None or word in rest


def _order(table: Table, columns: Columns) -> Ints:
    """Return the rows in the order of their index; as they come if only their paths matter."""
    count = len(table.rows)
    for column in columns.indices:
        words = table.column(column)
        numbers = [whole(word) for word in words]
        if set(numbers) == set(range(count)):
            return np.argsort(np.array(numbers, dtype=np.int64))
        if not columns.paths:
            wrong = [w for w, n in zip(words, numbers, strict=True) if n not in range(count)]
            assert table.header is not None
            raise ValueError(
                f"column {table.header[column]!r} of {table.path} must number the {count} rows "
                f"from 0 to {count - 1}, each once, got {first_few(wrong) or 'some twice'}; call "
                f"the column path if it names files"
            )
    return np.arange(count)


def _paths(table: Table, column: int, rows: Ints) -> tuple[str, ...]:
    paths = [table.rows[row][column] for row in rows.tolist()]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if twice:
        raise ValueError(
            f"every file has one label, but {len(twice)} of {table.path} have several rows: "
            f"{first_few(twice)}"
        )
    return tuple(paths)


def _classes(given: Words, labels_as: str) -> tuple[Ints, tuple[str, ...] | None]:
    """Return labels, and the names of the classes if the words are names."""
    check_present(given)
    numbers = [whole(word) for word in given.distinct]
    if labels_as != "names" and None not in numbers:
        return np.array(numbers, dtype=np.int64)[given.codes], None
    if labels_as == "numbers":
        odd = [w for w, n in zip(given.distinct, numbers, strict=True) if n is None]
        raise ValueError(f"the labels in {given.where} are not all numbers: {first_few(odd)}")
    names = sorted({word.strip() for word in given.distinct})
    places = np.array([names.index(word.strip()) for word in given.distinct], dtype=np.int64)
    return places[given.codes], tuple(names)


def _refuse_gaps(labels: Ints, where: str) -> None:
    """Refuse numbers that leave some out: labels would move to classes that do not exist."""
    present = np.unique(labels).tolist()
    missing = next((n for n, label in enumerate(present) if label > n), None)
    if missing is not None:
        raise ValueError(
            f"{where} has {len(present)} numbers up to {present[-1]}, but no {missing}: give "
            f"--labels-as names if the numbers are names of classes, or --classes if they count "
            f"classes from 0"
        )


def _count(labels: Ints, names: tuple[str, ...] | None, num_classes: int | None, where: str) -> int:
    if names is not None and num_classes not in (None, len(names)):
        raise ValueError(
            f"the classes of {where} have {len(names)} names, {first_few(names)}, so that there "
            f"are no {num_classes}"
        )
    asked = len(names or ()) or num_classes
    count = max(2, int(labels.max()) + 1) if asked is None else asked
    if count > _MOST_CLASSES:
        raise ValueError(
            f"at most {_MOST_CLASSES} classes are supported, and {where} has {count}; its labels "
            f"have {len(np.unique(labels))} values up to {int(labels.max())}"
        )
    return count
