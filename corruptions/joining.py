"""Label files joined to a dataset: a label belongs to an image, not to a row."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from corruptions.columns import Columns, name_single_column
from corruptions.labels import (
    CORRECTED,
    NoisyLabels,
    check_decided,
    check_labels,
    transition_of,
)
from corruptions.readers import LabelFile
from corruptions.readings import read_classes
from corruptions.records import join_record
from corruptions.rows import Claims, by_order, claims_of
from corruptions.samples import Samples
from corruptions.tables import Table, first_few
from corruptions.types import Ints
from corruptions.words import (
    Words,
    column_words,
    integers_of,
    may_be_label,
)


class Joined(NamedTuple):
    """Labels of a dataset's samples.

    Attributes:
        labels: The record of them.
        notes: What was guessed or left out, one line each.
    """

    labels: NoisyLabels
    notes: tuple[str, ...]


def labels_from(file: LabelFile, samples: Samples, labels_as: str = "auto") -> Joined:
    """Find the given label of every sample in a label file.

    Args:
        file: What the file says.
        samples: The dataset.
        labels_as: Whether words are "names" or "numbers" of classes. "auto" takes what all of them
            are; if they are both, what the file's true labels say; if it has none, names.

    Returns:
        The file's own record if it is of these samples as they are, or a new one; where the file is
        no record, its nominal matrix is the realised one.

    Raises:
        ValueError: If the file is of other samples, another order, or other classes, or if a sample
            has no label, or two.
    """
    check_labels(samples.clean, samples.num_classes)
    if file.record is not None:
        return Joined(*join_record(file.record, samples, str(file.path)))
    if file.table is not None:
        claims, given, truths = _of_table(file.table, file.columns, samples)
    else:
        claims, given, truths = _of_array(file, samples)
    classes = read_classes(given, truths, claims.images, samples, labels_as)
    labels, doubled = _one_each(classes.labels, claims, given, samples)
    notes = [*claims.notes, *classes.notes, *doubled]
    if claims.by_order and not truths:
        agree = np.count_nonzero(labels == samples.clean)
        notes.append(
            f"nothing in {file.path} names the images: its labels were taken in their order, and "
            f"{agree} of {len(labels)} agree with the dataset's"
        )
    record = _new_record(labels, samples, given.where)
    if file.table is not None and file.columns is not None and file.columns.decided is not None:
        by = _decided_by(file.table, file.columns.decided, claims, len(labels))
        # Without true labels in the file, nobody says which of the corrected ones are right.
        kind = record.noise_type if truths else CORRECTED
        record = replace(record, decided_by=by, noise_type=kind)
    return Joined(record, tuple(notes))


def _decided_by(table: Table, column: int, claims: Claims, count: int) -> tuple[str, ...]:
    """Return who decided about each label."""
    found = ["given"] * count
    words = table.column(column)
    check_decided((words[row] for row in claims.rows.tolist()), table.path)
    for row, image in zip(claims.rows.tolist(), claims.images.tolist(), strict=True):
        found[image] = words[row]
    return tuple(found)


def _of_array(file: LabelFile, samples: Samples) -> tuple[Claims, Words, list[Words]]:
    assert file.given is not None
    claims = by_order(len(file.given), samples, "the label file")
    given = integers_of(file.origin, file.given)
    if file.clean is None:
        return claims, given, []
    return claims, given, [integers_of(f"the clean labels of {file.path.name}", file.clean)]


def _of_table(
    table: Table, columns: Columns | None, samples: Samples
) -> tuple[Claims, Words, list[Words]]:
    notes: list[str] = []
    if columns is None:
        table, notes = name_single_column(table, lambda word: may_be_label(word, samples))
        columns = Columns(label=0)
    if not table.rows:
        raise ValueError(f"{table.path} holds no labels")
    claims = claims_of(table, columns, samples)
    guess = [] if columns.guess is None else [columns.guess]
    given, *truths = (
        column_words(table, column, claims.rows) for column in (columns.label, *columns.truths)
    )
    return claims._replace(notes=(*notes, *guess, *claims.notes)), given, truths


def _one_each(
    labels: Ints, claims: Claims, given: Words, samples: Samples
) -> tuple[Ints, tuple[str, ...]]:
    """Return the label of every sample; rows of one sample must agree."""
    images = claims.images
    chosen = np.empty(len(samples.clean), dtype=np.int64)
    chosen[images] = labels
    several = np.flatnonzero(np.bincount(images, minlength=len(chosen)) > 1).tolist()
    torn = np.unique(images[chosen[images] != labels]).tolist()
    if torn:
        raise ValueError(
            f"{len(torn)} images have several rows with different labels in {given.where}: "
            f"{first_few(samples.shown(number) for number in torn)}"
        )
    if not several:
        return chosen, ()
    named = first_few(samples.shown(number) for number in several)
    return chosen, (f"{len(several)} images have several rows with equal labels: {named}",)


def _new_record(given: Ints, samples: Samples, origin: str) -> NoisyLabels:
    clean = check_labels(samples.clean, samples.num_classes)
    return NoisyLabels(
        clean=clean,
        given=given,
        nominal=transition_of(clean, given, samples.num_classes),
        noise_type="file",
        rate=float((given != clean).mean()),
        seed=None,
        mode="as given",
        convention=origin,
        class_names=samples.class_names,
        paths=samples.paths,
        digests=samples.digests,
    )
