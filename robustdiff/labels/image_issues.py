"""What is wrong with images beside their labels: they fit no class, or are there twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curricula.sparse import ClassValues
from curricula.types import Doubles, Ints
from robustdiff.data.arrays import Images
from robustdiff.data.stored import chosen
from robustdiff.labels.duplicates import SURE, digests, first_of_kind, near_copies
from robustdiff.labels.outliers import off_topic, strangeness
from robustdiff.progress import Report

OFF_TOPIC, NEAR, OTHER = "off-topic", "near-duplicate", "duplicate-other-label"
"""Kinds of issues."""

MOST = 100_000
"""Among more different images no near copies are looked for: the work grows with the square."""


@dataclass(frozen=True)
class ImageIssues:
    """What is wrong with N images.

    Attributes:
        off_topic_score: (N,) float64 in [0, 1]; over 0.5 the image fits no class.
        near_duplicate_score: (N,) float64 in [0, 1], 1 for the same pixels: how sure it is that
            the image is there a second time.
        other_label_score: (N,) float64, the same where the second one has another label, else 0.
        duplicate_of: (N,) int64, the image that it is a copy of; N + i for held-out image i, -1
            for none.
        is_copy: (N,) bool, the images to remove so that one of each remains: those whose copy with
            the same label comes earlier, or is held out.
        across_parts: How many images are also in another part of the dataset, pixel by pixel.
        notes: What was not looked for, in sentences.
    """

    off_topic_score: Doubles
    near_duplicate_score: Doubles
    other_label_score: Doubles
    duplicate_of: Ints
    is_copy: NDArray[np.bool_]
    across_parts: int
    notes: tuple[str, ...] = ()

    @property
    def off_topic(self) -> NDArray[np.bool_]:
        """Which images fit no class, (N,) bool."""
        return np.asarray(self.off_topic_score > 0.5)

    @property
    def kinds(self) -> dict[str, NDArray[np.bool_]]:
        """Which images have an issue, kind -> (N,) bool; an image may have several."""
        other = self.other_label_score >= SURE
        return {OFF_TOPIC: self.off_topic, NEAR: self.is_copy, OTHER: other}


class _Pair(NamedTuple):
    """Two images that are copies: training images, or N + i for held-out image i."""

    first: int
    second: int
    score: float


def find_image_issues(
    images: Images, given: Ints, image_classes: ClassValues | None, report: Report
) -> ImageIssues:
    """Find training images that fit no class, or that are there twice.

    Args:
        images: A dataset. Copies in the held-out part are found where they are exact.
        given: (N,) int64 labels of the training part.
        image_classes: (N, K) their class probabilities by the image alone; None where there are
            none.
        report: Receives progress.
    """
    strange = strangeness(images.train, report.stage("looking for images that fit no class"))
    contents = digests(images.train) + digests(images.test)
    first = first_of_kind(contents)
    count = len(given)
    different = np.flatnonzero(first[:count] == np.arange(count))
    notes: tuple[str, ...] = ()
    if len(different) > MOST:
        notes = (f"near-duplicates are not looked for among more than {MOST:,} images",)
        different = different[:0]
    some = images.train
    if len(different) < count:
        some = chosen(some, torch.from_numpy(different))
    found = near_copies(some, report.stage("looking for near-duplicates"))
    score = np.zeros(count)
    score[different] = found.score
    repeated = np.flatnonzero(first != np.arange(len(first))).tolist()
    pairs = [_Pair(int(first[i]), i, 1.0) for i in repeated]
    pairs += [
        _Pair(int(different[found.nearest[i]]), int(different[i]), float(found.score[i]))
        for i in np.flatnonzero(found.score >= SURE)
    ]
    labels = np.concatenate([given, images.test_labels.numpy()])
    return _paired(
        pairs,
        labels,
        off_topic(strange, given, image_classes),
        score,
        across_parts=_across_parts(contents, images),
        notes=notes,
    )


def _paired(
    pairs: list[_Pair],
    labels: Ints,
    off_topic_score: Doubles,
    near_score: Doubles,
    *,
    across_parts: int,
    notes: tuple[str, ...],
) -> ImageIssues:
    """Judge images by their copies; (N,) scores, and labels of all parts."""
    count = len(near_score)
    near, other = near_score.copy(), np.zeros(count)
    partner, is_copy = np.full(count, -1), np.zeros(count, dtype=bool)
    best = np.zeros(count)
    for mine, its, score in _both_ways(pairs, count):
        near[mine] = max(near[mine], score)
        differs = bool(labels[mine] != labels[its])
        if differs:
            other[mine] = max(other[mine], score)
        elif its < mine or its >= count:
            is_copy[mine] = True
        # A copy with another label tells more than one with the same.
        if score + differs > best[mine]:
            best[mine], partner[mine] = score + differs, its
    return ImageIssues(off_topic_score, near, other, partner, is_copy, across_parts, notes)


def _both_ways(pairs: list[_Pair], count: int) -> Iterator[_Pair]:
    """Yield each pair as seen from each of its training images."""
    for one, two, score in pairs:
        if one < count:
            yield _Pair(one, two, score)
        if two < count:
            yield _Pair(two, one, score)


def _across_parts(contents: list[bytes], images: Images) -> int:
    """Count training images that are also in another part, pixel by pixel."""
    paths = images.paths or ()
    tops = [path.partition("/")[0] for path in paths]
    # In DIR/train/cat/1.png the first folder is a part, in DIR/cat/1.png a class.
    whole = len(set(tops)) > 1 and set(tops).isdisjoint(images.class_names)
    count = len(images.train)
    parts = [*(tops if whole else [""] * count), *["held out"] * (len(contents) - count)]
    places: dict[bytes, set[str]] = {}
    for content, part in zip(contents, parts, strict=True):
        places.setdefault(content, set()).add(part)
    return sum(len(places[content]) > 1 for content in contents[:count])


def copies_of(images: Images, issues: ImageIssues) -> list[str]:
    """Return what each training image is a copy of: a file, a number, or nothing, N words."""
    count = len(images.train)
    held = images.test_paths

    def name(number: int) -> str:
        if number < 0:
            return ""
        if number >= count:
            return f"held-out {number - count}" if held is None else held[number - count]
        return str(number) if images.paths is None else images.paths[number]

    return [name(number) for number in issues.duplicate_of.tolist()]


def copy_images(images: Images, issues: ImageIssues, rows: Ints) -> list[Tensor]:
    """Return the images that some are copies of, M of (C, H, W) uint8."""
    count, chosen = len(images.train), issues.duplicate_of[rows].tolist()
    return [images.train[i] if i < count else images.test[i - count] for i in chosen]
