"""Images that fit no class, or that are there twice, as columns of a table and parts of a page."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curricula.types import Ints
from robustdiff.data.arrays import Images
from robustdiff.labels.image_issues import (
    NEAR,
    OFF_TOPIC,
    OTHER,
    ImageIssues,
    copies_of,
    copy_images,
)
from robustdiff.reports.pictures import picture_uri

_SHOWN = 64
_ABOUT = {
    OFF_TOPIC: "Images that look unlike the others and whose label is not what the image alone "
    "speaks for. They are to be removed, not relabelled.",
    NEAR: "Images that are there twice, the same pixels or nearly so: moved, brighter, compressed "
    "again. Each stands beside the image that it is a copy of. Where all of these are removed, one "
    "of each remains.",
    OTHER: "Images that are there twice under different labels, each beside its copy. At most one "
    "of the two labels is right.",
}


def issue_column(label: NDArray[np.bool_], issues: ImageIssues | None) -> list[str]:
    """Return what is wrong with each image: kinds joined by ";", N words.

    Args:
        label: (N,) which labels are likely wrong; of an image that fits no class, none is right.
        issues: What else is wrong.
    """
    kinds = {"label": label} | ({} if issues is None else issues.kinds)
    names = [np.where(found, kind, "").tolist() for kind, found in kinds.items()]
    return [";".join(filter(None, words)) for words in zip(*names, strict=True)]


def score_columns(images: Images, issues: ImageIssues) -> dict[str, Any]:
    """Return the scores of the kinds, and what images are copies of, name -> N values."""
    return {
        "off_topic_score": issues.off_topic_score,
        "near_duplicate_score": issues.near_duplicate_score,
        "duplicate_other_label_score": issues.other_label_score,
        "duplicate_of": copies_of(images, issues),
    }


def issue_counts(issues: ImageIssues) -> dict[str, int]:
    """Return how many images have each kind of issue, and how many are in two parts."""
    counts = {kind: int(found.sum()) for kind, found in issues.kinds.items()}
    return counts | {"across parts": issues.across_parts}


def issue_tabs(
    images: Images, given: Ints, numbers: Ints, issues: ImageIssues
) -> list[dict[str, Any]]:
    """Describe the kinds of issues for the page, each with its surest images.

    Args:
        images: The dataset.
        given: (N,) int64 labels.
        numbers: (N,) the images' numbers for people.
        issues: What is wrong.
    """
    scores = {
        OFF_TOPIC: issues.off_topic_score,
        NEAR: issues.near_duplicate_score,
        OTHER: issues.other_label_score,
    }
    copies = copies_of(images, issues)
    tabs = []
    for kind, found in issues.kinds.items():
        rows = np.flatnonzero(found)
        rows = rows[np.argsort(-scores[kind][rows], kind="stable")][:_SHOWN]
        beside: list[str | None] = [None] * len(rows)
        if kind != OFF_TOPIC:
            beside = [picture_uri(image) for image in copy_images(images, issues, rows)]
        entries = [
            {
                "image": picture_uri(images.train[row]),
                "beside": other,
                "given": images.class_names[given[row]],
                "other": _label_of_copy(images, given, int(issues.duplicate_of[row]))
                if kind == OTHER
                else None,
                "name": f"#{numbers[row]}" if images.paths is None else images.paths[row],
                "copy_of": copies[row] if kind != OFF_TOPIC else None,
                "score": float(scores[kind][row]),
            }
            for row, other in zip(rows.tolist(), beside, strict=True)
        ]
        tabs.append(
            {"kind": kind, "about": _ABOUT[kind], "count": int(found.sum()), "shown": entries}
        )
    return tabs


def _label_of_copy(images: Images, given: Ints, number: int) -> str:
    count = len(given)
    label = given[number] if number < count else int(images.test_labels[number - count])
    return images.class_names[label]
