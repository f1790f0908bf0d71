"""Records of label noise joined to a dataset that may have been sorted, moved or extended since."""

import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from corruptions.labels import CORRECTED, NoisyLabels
from corruptions.paths import Match, match_paths
from corruptions.rows import by_order, check_covered, left_out
from corruptions.samples import Samples
from corruptions.tables import first_few
from corruptions.types import Ints
from corruptions.words import as_names


class _Rows(NamedTuple):
    """The row of a record for each sample, (N,), and what was noticed."""

    rows: Ints
    notes: list[str]


def join_record(
    record: NoisyLabels, samples: Samples, whose: str
) -> tuple[NoisyLabels, tuple[str, ...]]:
    """Return a record of a dataset's samples.

    Samples are found by path, then by content; classes by name. A record without paths is of the
    samples in their order.

    Args:
        record: Of these samples, or of more, or in another order.
        samples: The dataset.
        whose: The record's file, for people.

    Returns:
        The record itself if nothing differs, else one whose rows are the samples; notes, one line
        each.

    Raises:
        ValueError: If a sample has no row, a class has another name, or a clean label differs.
    """
    found = _rows_of(record, samples, whose)
    mapping = _classes_of(record, samples, found.rows, whose)
    clean, given = mapping[record.clean[found.rows]], mapping[record.given[found.rows]]
    if record.noise_type == CORRECTED:
        clean = samples.clean  # nobody knows the right labels, whatever was corrected before
    differ = np.flatnonzero(clean != samples.clean)
    if differ.size:
        raise ValueError(
            f"the label file's own clean labels differ from the dataset's in {differ.size} of "
            f"{len(clean)} places: it is of other data or of another order "
            f"({whose}, {first_few(samples.shown(number) for number in differ.tolist())})"
        )
    same = np.array_equal(mapping, np.arange(len(mapping))) and np.array_equal(clean, record.clean)
    if same and np.array_equal(found.rows, np.arange(len(record.clean))):
        return record, tuple(found.notes)
    nominal = np.empty_like(record.nominal)
    nominal[np.ix_(mapping, mapping)] = record.nominal
    joined = replace(
        record,
        clean=clean,
        given=given,
        nominal=nominal,
        class_names=samples.class_names,
        paths=samples.paths,
        digests=samples.digests,
        decided_by=record.decided_by and tuple(record.decided_by[row] for row in found.rows),
        kept=None,
    )
    return joined, tuple(found.notes)


def _rows_of(record: NoisyLabels, samples: Samples, whose: str) -> _Rows:
    if record.paths is None or samples.paths is None:
        return _Rows(by_order(len(record.given), samples, "the label file").rows, [])
    match = match_paths(record.paths, samples.paths, samples.held_out)
    rows = np.full(len(samples.clean), -1, dtype=np.int64)
    rows[match.images] = match.rows
    torn = record.given[rows[match.images]] != record.given[match.rows]
    if torn.any():
        raise ValueError(
            f"{int(torn.sum())} rows of {whose} give an image another label than another row: "
            f"{first_few(samples.shown(number) for number in match.images[torn].tolist())}"
        )
    notes: list[str] = []
    if record.digests is not None and samples.digests is not None:
        rows, notes = _by_content(rows, record.digests, samples)
    used = rows[rows >= 0]
    left = np.setdiff1d(match.unknown, used)
    match = Match(used, np.flatnonzero(rows >= 0), match.held_out, match.several, left)
    check_covered(match, samples, record.paths, whose)
    return _Rows(rows, notes + left_out(match, record.paths, whose))


def _by_content(rows: Ints, digests: Sequence[str], samples: Samples) -> tuple[Ints, list[str]]:
    """Follow images to other paths by what they hold, where only one image holds it."""
    assert samples.digests is not None
    of_row, of_image = _only(digests), _only(samples.digests)
    moved, changed, taken = [], [], set()
    found = rows.copy()
    for image, (row, digest) in enumerate(zip(rows.tolist(), samples.digests, strict=True)):
        if row >= 0 and digests[row] == digest:
            continue
        if digest in of_row and digest in of_image:
            found[image] = of_row[digest]
            taken.add(of_row[digest])
            moved.append(image)
        elif row >= 0:
            changed.append(image)
    # What lies at the old path of a moved image is another one.
    others = [image for image in changed if rows[image] in taken]
    found[others] = -1
    changed = [image for image in changed if rows[image] not in taken]
    notes = []
    for images, what in ((moved, "moved, and were found by their content"), (changed, "changed")):
        if images:
            named = first_few(samples.shown(image) for image in images)
            notes.append(f"since the labels were recorded {len(images)} images {what}: {named}")
    return found, notes


def _only(digests: Sequence[str]) -> dict[str, int]:
    """Return the place of every digest that occurs once."""
    places: dict[str, int] = {}
    several = set()
    for place, digest in enumerate(digests):
        if places.setdefault(digest, place) != place:
            several.add(digest)
    return {digest: place for digest, place in places.items() if digest not in several}


def _classes_of(record: NoisyLabels, samples: Samples, rows: Ints, whose: str) -> Ints:
    """Return the dataset's number of each class of a record, (K,)."""
    count, names = len(record.nominal), samples.class_names
    as_they_are = np.arange(count)
    if record.class_names is not None and names is not None:
        return _by_name(record.class_names, names, whose)
    if count != samples.num_classes:
        raise ValueError(f"the label file has {count} classes, the dataset {samples.num_classes}")
    # Of bare numbers the clean labels say whether they are the names of the classes.
    called = as_names([str(number) for number in range(count)], names or ())
    if (called >= 0).all() and len(set(called.tolist())) == count:
        clean = record.clean[rows]
        if (clean != samples.clean).any() and (called[clean] == samples.clean).all():
            return called
    return as_they_are


def _by_name(recorded: Sequence[str], names: Sequence[str], whose: str) -> Ints:
    exact = {name: number for number, name in enumerate(names)}
    composed = {unicodedata.normalize("NFC", name): number for name, number in exact.items()}
    places = [exact.get(n, composed.get(unicodedata.normalize("NFC", n), -1)) for n in recorded]
    if sorted(places) != list(range(len(names))):
        gone = [name for name, place in zip(recorded, places, strict=True) if place < 0]
        new = [name for number, name in enumerate(names) if number not in places]
        raise ValueError(
            f"the classes of {whose} are not the dataset's: {first_few(gone) or 'none'} only in "
            f"the file, {first_few(new) or 'none'} only in the dataset"
        )
    return np.array(places, dtype=np.int64)
