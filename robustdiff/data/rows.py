"""From rows of a table, one an image, to how its images are used."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from corruptions.tables import first_few, is_missing, whole
from robustdiff.config.images import DataConfig
from robustdiff.data.layout import BY_NAME, Layout, Listed, hold_out
from robustdiff.data.listing import LeftOut
from robustdiff.data.parts import chosen_parts


class Rows(NamedTuple):
    """What a source says about its images.

    Attributes:
        where: The source, for people.
        names: N names of images.
        labels: N labels as written: words, numbers, None.
        splits: N words that say what each image is for; None where nothing does.
        class_names: K names that the source itself gives its classes; its labels number them.
        notes: What was chosen on the way, one line each.
        left_out: What the source holds besides.
        removed: Names of images that a person has removed; they are in no row.
    """

    where: str
    names: Sequence[str]
    labels: Sequence[object]
    splits: Sequence[str] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    left_out: Sequence[LeftOut] = ()
    removed: Sequence[str] = ()


def lay_out(rows: Rows, config: DataConfig) -> Layout:
    """Decide which rows are trained on and which held out, and what their labels mean.

    Args:
        rows: What the source says.
        config: Names of classes, if the source's own are not to be taken; how splits are read.

    Returns:
        The images in the order of the rows, the training part first.

    Raises:
        ValueError: If an image has several rows, no label or several, or its split is unknown; if
            there are fewer than two classes, or too few images of one to hold some out.
    """
    _refuse_repeated(rows)
    left_out = list(rows.left_out)
    words = [_word(label) for label in rows.labels]
    train, test, held_out = _parts(rows, words, config, left_out)
    used = [*train, *test]
    class_names, labels, notes = _classes(rows, words, used, config)
    if len(class_names) < 2:
        raise ValueError(
            f"{rows.where} must have labels of at least 2 classes, got {first_few(class_names)}"
        )
    listed = [
        Listed(rows.names[row], label, is_test=place >= len(train))
        for place, (row, label) in enumerate(zip(used, labels, strict=True))
    ]
    if not test and not config.whole:
        listed, held_out = hold_out(listed, class_names, left_out), BY_NAME
    said = [removed_in_words(len(rows.removed))] if rows.removed else []
    return Layout(class_names, listed, held_out, [], left_out, (*rows.notes, *said, *notes))


def removed_in_words(count: int) -> str:
    """Return how it is said that images were removed."""
    return f"{count} images were removed by a person, and are left out"


def _refuse_repeated(rows: Rows) -> None:
    if not rows.names:
        raise ValueError(f"{rows.where} holds no images")
    twice = [name for name, count in Counter(rows.names).items() if count > 1]
    if twice:
        raise ValueError(
            f"every image has one row, but {len(twice)} of {rows.where} have several: "
            f"{first_few(twice)}"
        )


def _word(label: object) -> str | None:
    """Return a label as a word, "" for a missing one, None for one that is no single word."""
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return ""
    if isinstance(label, bytes):
        label = label.decode(errors="surrogateescape")
    if isinstance(label, str | int | np.integer):
        return str(label).strip()
    if isinstance(label, float):
        return str(int(label)) if label.is_integer() else repr(label)
    return None


def _parts(
    rows: Rows, words: Sequence[str | None], config: DataConfig, left_out: list[LeftOut]
) -> tuple[list[int], list[int], str]:
    """Return the rows to train on, those held out, and where these come from."""
    everything = list(range(len(words)))
    if rows.splits is None or config.split == "none":
        return everything, [], ""
    if absent := [n for n, split in zip(rows.names, rows.splits, strict=True) if is_missing(split)]:
        raise ValueError(f"{len(absent)} rows of {rows.where} have no split: {first_few(absent)}")
    labelled = dict.fromkeys(s for s, word in zip(rows.splits, words, strict=True) if word != "")
    left_out += [
        LeftOut(name, "image", f"of split {split!r}, which has no labels")
        for name, split in zip(rows.names, rows.splits, strict=True)
        if split not in labelled
    ]
    train, test = chosen_parts(list(labelled), rows.where)
    if config.whole:
        return [row for row in everything if rows.splits[row] in labelled], [], ""
    left_out += [
        LeftOut(name, "image", f"of split {split!r}")
        for name, split in zip(rows.names, rows.splits, strict=True)
        if split in labelled and split not in (train, test)
    ]
    held = [row for row in everything if rows.splits[row] == test]
    return [r for r in everything if rows.splits[r] == train], held, f"split {test!r}"


def _classes(
    rows: Rows, words: Sequence[str | None], used: Sequence[int], config: DataConfig
) -> tuple[tuple[str, ...], list[int], list[str]]:
    """Return the classes, the label of each used row, and what was guessed about them."""
    named = named_classes(config)
    _refuse_several(rows, words, used, named or rows.class_names)
    said = [words[row] or "" for row in used]
    known = dict.fromkeys(named or ())
    absent = [r for r, w in zip(used, said, strict=True) if is_missing(w) and w not in known]
    if absent:
        raise ValueError(
            f"{len(absent)} labels are missing in {rows.where}: "
            f"{first_few(rows.names[row] for row in absent)}"
        )
    if rows.class_names is not None:
        if named is not None and len(named) != len(rows.class_names):
            raise ValueError(
                f"--class-names names {len(named)} classes, but {rows.where} has "
                f"{len(rows.class_names)}: {first_few(rows.class_names)}"
            )
        return named or rows.class_names, _as_numbers(said, len(rows.class_names), rows.where), []
    if named is not None:
        return named, *_by_names(said, named, rows.where)
    numbers = [whole(word) for word in said]
    if None in numbers:
        names = sorted(set(said))
        place = {name: number for number, name in enumerate(names)}
        return tuple(names), [place[word] for word in said], []
    values = sorted({number for number in numbers if number is not None})
    order = {value: number for number, value in enumerate(values)}
    return tuple(map(str, values)), [order[n] for n in numbers if n is not None], []


def named_classes(config: DataConfig) -> tuple[str, ...] | None:
    """Return the classes that the configuration names, in their order; None where it names none.

    Raises:
        ValueError: If its file cannot be read, or it names fewer than two, or one twice.
    """
    text = config.class_names
    if text is None:
        return None
    if text.endswith(".txt"):
        try:
            content = Path(text).expanduser().read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"cannot read the class names in {text}: {error}") from error
        names = [line.strip() for line in content.split("\n") if line.strip()]
    else:
        names = [name.strip() for name in text.split(",")]
    if len(names) < 2 or len(set(names)) < len(names) or "" in names:
        raise ValueError(f"--class-names takes at least 2 different names, got {first_few(names)}")
    return tuple(names)


def check_same_names(
    names: Sequence[str] | None, where: str, others: Sequence[str] | None, other: str
) -> None:
    """Refuse two parts that give the classes different names, or the same in another order.

    Args:
        names: Of the classes of one part; None where it has none.
        where: That part, for people.
        others: Of the classes of the other part.
        other: That one, for people.

    Raises:
        ValueError: If they differ, with both from where they do.
    """
    if names == others:
        return
    one, two = list(names or ()), list(others or ())
    pairs = enumerate(zip(one, two, strict=False))
    first = next((n for n, (a, b) in pairs if a != b), min(len(one), len(two)))
    raise ValueError(
        f"the classes must be the same in the same order, but from class {first} on {where} has "
        f"{first_few(one[first:]) or 'none'}, and {other} has {first_few(two[first:]) or 'none'}"
    )


def _refuse_several(
    rows: Rows,
    words: Sequence[str | None],
    used: Sequence[int],
    class_names: tuple[str, ...] | None,
) -> None:
    """Refuse labels that are several: lists, and words that are joined names of other labels."""
    known = set(class_names or ()) | {words[row] for row in used}
    for row in used:
        word, label = words[row], rows.labels[row]
        is_list = word is None or (word[:1] == "[" and word[-1:] == "]")
        joined = () if word is None else next((word.split(m) for m in "|;," if m in word), ())
        if is_list or (joined and known.issuperset(part.strip() for part in joined)):
            raise ValueError(
                f"every image must have one label, but {rows.names[row]} in {rows.where} "
                f"has {str(label)[:60]!r}; sets of labels are not supported"
            )


def _as_numbers(words: Sequence[str], count: int, where: str) -> list[int]:
    numbers = [whole(word) for word in words]
    bad = [w for w, n in zip(words, numbers, strict=True) if n is None or not 0 <= n < count]
    if bad:
        raise ValueError(
            f"the labels in {where} must number its {count} classes from 0 to {count - 1}, got "
            f"{first_few(dict.fromkeys(bad))}"
        )
    return [number for number in numbers if number is not None]


def _by_names(
    words: Sequence[str], named: tuple[str, ...], where: str
) -> tuple[list[int], list[str]]:
    """Return labels that are written as names of known classes, or as their numbers."""
    place = {name: number for number, name in enumerate(named)}
    unknown = list(dict.fromkeys(word for word in words if word not in place))
    numbers = [whole(word) for word in dict.fromkeys(words)]
    all_numbers = all(number is not None and 0 <= number < len(named) for number in numbers)
    if unknown and not all_numbers:
        raise ValueError(
            f"the labels in {where} must be names of classes, {first_few(named)}, or all of them "
            f"numbers from 0 to {len(named) - 1}, got {first_few(unknown)}"
        )
    if unknown:
        return _as_numbers(words, len(named), where), []
    labels = [place[word] for word in words]
    note = f"the labels in {where} are names and numbers of classes, and were taken as names"
    differs = all_numbers and any(whole(w) != n for w, n in zip(words, labels, strict=True))
    return labels, [note] if differs else []
