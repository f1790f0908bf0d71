"""What the words of a label file mean, names or numbers, and what speaks against it."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from corruptions.samples import Samples
from corruptions.tables import first_few, whole
from corruptions.types import Ints
from corruptions.words import ABSENT, READINGS, UNKNOWN, Words, as_names, check_present

_SHOWN_NAMES = 8
_SETTLE = "settle it with --labels-as numbers or --labels-as names"


class Classes(NamedTuple):
    """What the words mean.

    Attributes:
        labels: (C,) int64 in [0, K).
        notes: What was guessed, one line each.
    """

    labels: Ints
    notes: tuple[str, ...]


def read_classes(
    given: Words, truths: Sequence[Words], images: Ints, samples: Samples, labels_as: str
) -> Classes:
    """Read given labels, and check the true labels beside them.

    Args:
        given: Given labels of C rows.
        truths: True labels of the same rows, where the file has them; may be missing.
        images: (C,) int64 sample that each row is about.
        samples: The dataset.
        labels_as: "names" or "numbers"; "auto" decides by what all words are, then by the true
            labels, and then for names.

    Raises:
        ValueError: If a word is no class, or the true labels are not the dataset's.
    """
    order = [*READINGS] if given.names_first else [*reversed(READINGS)]
    read = {kind: READINGS[kind](given.distinct, samples)[given.codes] for kind in order}
    fits = [k for k in order if labels_as in ("auto", k) and (read[k] >= 0).all()]
    if not fits:
        raise ValueError(_why_unreadable(given, samples, labels_as))
    known = samples.clean[images]
    fits = _best(fits, given, truths, known, samples)
    kind = fits[0]
    notes = []
    if labels_as == "auto" and not truths:
        _check_elsewhere(given, kind, samples)
        if kind == "numbers":
            _check_numbers(given, read, known)
            notes += _other_numbers(given, read[kind], known, samples)
    if len(fits) > 1 and (read["names"] != read["numbers"]).any():
        notes.append(_two_readings(given, read, known, kind))
    if kind == "names":
        notes += _written_otherwise(given, samples)
    return Classes(read[kind], tuple(notes))


def _best(
    fits: list[str], given: Words, truths: Sequence[Words], known: Ints, samples: Samples
) -> list[str]:
    """Return the readings under which the most fits: true labels first, then other rows' words."""
    wrong = {kind: [_differing(t, kind, known, samples) for t in truths] for kind in fits}
    right = [kind for kind in fits if not any(w.rows.size for w in wrong[kind])]
    if not right:
        raise ValueError(_other_truth(truths, wrong[fits[0]]))
    alike = [kind for kind in right if all(w.kind == kind for w in wrong[kind])] or right

    def fits_elsewhere(kind: str) -> bool:
        return bool((READINGS[kind](given.elsewhere, samples) != UNKNOWN).all())

    return [kind for kind in alike if fits_elsewhere(kind)] or alike


class _Wrong(NamedTuple):
    """Rows whose true label is not the dataset's, and how the true labels were read."""

    rows: Ints
    kind: str


def _differing(truth: Words, kind: str, known: Ints, samples: Samples) -> _Wrong:
    """Compare true labels, read like the given ones if they can be."""
    for reading in (kind, *(other for other in READINGS if other != kind)):
        labels = READINGS[reading](truth.distinct, samples)[truth.codes]
        if (labels != UNKNOWN).all():
            return _Wrong(truth.rows[(labels >= 0) & (labels != known)], reading)
    raise ValueError(f"the true labels must be classes: {_why_unreadable(truth, samples, 'auto')}")


def _other_truth(truths: Sequence[Words], wrong: Sequence[_Wrong]) -> str:
    truth, rows = next((t, w.rows) for t, w in zip(truths, wrong, strict=True) if w.rows.size)
    return (
        f"the label file's own clean labels differ from the dataset's in {rows.size} of "
        f"{len(truth.rows)} places: it is of other data or of another order "
        f"({truth.where}, data row {first_few(rows.tolist())})"
    )


def _check_elsewhere(given: Words, kind: str, samples: Samples) -> None:
    """Refuse numbers for labels if those of other rows cannot be read alike."""
    if any(whole(word) is None for word in given.distinct):
        return
    read = READINGS[kind](given.elsewhere, samples)
    pairs = zip(given.elsewhere, read.tolist(), strict=True)
    odd = [word for word, n in pairs if n == UNKNOWN and whole(word) is not None]
    if odd:
        raise ValueError(
            f"{given.where} holds no {kind} of the dataset's {samples.num_classes} classes in rows "
            f"of other images, {first_few(odd)}; {_SETTLE}"
        )


def _check_numbers(given: Words, read: dict[str, Ints], known: Ints) -> None:
    """Refuse numbers that may be names, or may count from 1."""
    names, numbers = read["names"], read["numbers"]
    both = (names >= 0) & (names != numbers)
    if (names < 0).any() and both.any():
        word, other = (given.distinct[given.codes[np.argmax(w)]] for w in (both, names < 0))
        raise ValueError(
            f"{given.where} mixes names of classes, such as {word!r}, with other numbers, such as "
            f"{other!r}; {_SETTLE}"
        )
    from_one = np.count_nonzero(numbers - 1 == known)
    agree = np.count_nonzero(numbers == known)
    if numbers.size and numbers.min() > 0 and from_one > agree:
        raise ValueError(
            f"{given.where} seems to number the classes from 1: {from_one} of {numbers.size} "
            f"labels agree with the dataset's so, {agree} if they count from 0; write them from 0 "
            f"or as names, or take them as they are with --labels-as numbers"
        )


def _other_numbers(given: Words, numbers: Ints, known: Ints, samples: Samples) -> list[str]:
    """Say if numbers seem to count the classes in another order than the dataset does."""
    k = samples.num_classes
    counts = np.bincount(known * k + numbers, minlength=k * k).reshape(k, k)
    agree = int(np.trace(counts))
    if 2 * agree >= numbers.size or 2 * int(counts.max(axis=1).sum()) <= numbers.size:
        return []
    order = ", ".join(f"{n} {name!r}" for n, name in enumerate(samples.names[:_SHOWN_NAMES]))
    return [
        f"{agree} of {numbers.size} numbers in {given.where} are the dataset's labels; if they "
        f"count the classes otherwise than it does, write names: {order}"
        f"{', ...' if k > _SHOWN_NAMES else ''}"
    ]


def _two_readings(given: Words, read: dict[str, Ints], known: Ints, kind: str) -> str:
    other = "numbers" if kind == "names" else "names"
    agree = {k: np.count_nonzero(read[k] == known) for k in READINGS}
    return (
        f"every word in {given.where} is a class's name and a class's number; read as {kind} "
        f"{agree[kind]} of {known.size} agree with the dataset's labels, as {other} "
        f"{agree[other]}; settle it with --labels-as {kind} or --labels-as {other}"
    )


def _written_otherwise(given: Words, samples: Samples) -> list[str]:
    names = samples.class_names or ()
    pairs = zip(given.distinct, as_names(given.distinct, names).tolist(), strict=True)
    loose = [f"{word!r} for {names[k]!r}" for word, k in pairs if word not in names]
    if not loose:
        return []
    more = ", ..." if len(loose) > 1 else ""
    return [f"{given.where} writes names of classes otherwise than the dataset: {loose[0]}{more}"]


def _why_unreadable(given: Words, samples: Samples, labels_as: str) -> str:
    """Say which words are no classes; missing values are raised first."""
    names = READINGS["names"](given.distinct, samples)
    numbers = READINGS["numbers"](given.distinct, samples)
    if (ABSENT in numbers) and not (names >= 0)[numbers == ABSENT].all():
        check_present(given)
    k = samples.num_classes
    wholes = [whole(word) for word in given.distinct]
    plain = labels_as == "numbers" or samples.class_names is None or not (names >= 0).any()
    if plain and labels_as != "names" and all(number is not None for number in wholes):
        bad = numbers[given.codes] < 0
        low, high = (f(n for n in wholes if n is not None) for f in (min, max))
        from_one = "; they seem to count from 1" if (low, high) == (1, k) else ""
        return (
            f"labels must be in [0, {k}), got {given.distinct[given.codes[np.argmax(bad)]]} in "
            f"data row {first_few(given.rows[bad].tolist())} of {given.where}: the dataset has "
            f"{k} classes, numbered from 0{from_one}"
        )
    unknown = (numbers if labels_as == "numbers" else names) < 0
    words = [word for word, is_unknown in zip(given.distinct, unknown, strict=True) if is_unknown]
    allowed = samples.names if labels_as != "numbers" else tuple(map(str, range(k)))
    near = difflib.get_close_matches(words[0], allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    bytes_too = any("\udc80" <= letter <= "\udcff" for word in words for letter in word)
    more = ", ..." if k > _SHOWN_NAMES else ""
    return (
        f"{np.count_nonzero(unknown[given.codes])} labels in {given.where} are no classes of the "
        f"dataset: {first_few(words)}; {hint}its {k} classes are "
        f"{', '.join(map(repr, allowed[:_SHOWN_NAMES]))}{more}"
        f"{'; the file is not UTF-8' if bytes_too else ''}"
    )
