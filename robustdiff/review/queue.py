"""What a person has before them: suspects page by page, and what was decided about each."""

import math
import threading
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustdiff.review.decisions import Decisions, Entry, replay
from robustdiff.review.suspects import Suspects

SUSPECT, EVERY = "suspect", "every"
# Kinds of issues of images that are better removed than relabelled.
_REMOVED = {"off-topic", "near-duplicate"}


class Filter(NamedTuple):
    """Which labels are shown.

    Attributes:
        issue: One of `Suspects.kinds`, "suspect" for labels with any issue, or "every".
        pair: The given and the likeliest class; None for all.
        undecided: Whether decided ones are left out.
        below: Only labels of lower quality, or of equal one if it is 1.
    """

    issue: str = SUSPECT
    pair: tuple[int, int] | None = None
    undecided: bool = False
    below: float = 1.0


class Queue:
    """The suspects of a run with the decisions about them; threads may share it.

    A label's place is its position in the order of the suspects, 0 to M - 1. It stays, whatever is
    decided, so pages are asked for by places.

    Args:
        suspects: What an audit found.
        decisions: What was decided, by this process and by others.
    """

    def __init__(self, suspects: Suspects, decisions: Decisions) -> None:
        self.suspects, self.decisions = suspects, decisions
        self._places = {number: place for place, number in enumerate(suspects.numbers.tolist())}
        self._standing: dict[int, list[Entry]] = {}
        self._decided = np.zeros(len(suspects), dtype=np.bool_)
        self._seen = 0  # number of the newest entry of the log that is in the two above
        self._mutex = threading.Lock()
        self._is_suspect = suspects.issue > 0
        self._rising = np.sort(suspects.quality)
        wrong = np.nan_to_num(1 - self._rising)
        self._expected = np.concatenate([[0.0], np.cumsum(wrong)])
        self._pair_of, self._pairs = _pairs(suspects)

    def refresh(self) -> None:
        """Take in what was decided since, also by others."""
        with self._mutex:
            entries = self.decisions.history(after=self._seen)
            for sample in replay(entries, self._standing):
                if sample in self._places:
                    self._decided[self._places[sample]] = sample in self._standing
            if entries:
                self._seen = entries[-1].number

    def place(self, number: int) -> int | None:
        """Return the place of a sample; None if the audit has none of this number."""
        return self._places.get(number)

    def page(
        self, which: Filter, size: int, *, start: int = 0, end: int | None = None
    ) -> dict[str, Any]:
        """Return some labels of those that a filter shows.

        Args:
            which: The filter.
            size: The most labels.
            start: The first `size` labels at this place or later are returned.
            end: If given, it is the last `size` labels before this place instead.

        Returns:
            For JSON: the "items", the "total" that the filter shows, and how many of them come
            "before" the first item.
        """
        places = np.flatnonzero(self._shown(which))
        if end is None:
            first = int(np.searchsorted(places, start))
        else:
            last = int(np.searchsorted(places, end))
            first = max(0, last - size)
            size = last - first
        items = [self.item(place) for place in places[first : first + size].tolist()]
        return {"items": items, "total": len(places), "before": first}

    def _shown(self, which: Filter) -> NDArray[np.bool_]:
        suspects = self.suspects
        shown = np.ones(len(suspects), dtype=np.bool_)
        if which.issue == SUSPECT:
            shown &= self._is_suspect
        elif which.issue != EVERY:
            shown &= suspects.has(which.issue)
        if which.pair is not None:
            given, predicted = which.pair
            shown &= (suspects.given == given) & (suspects.predicted == predicted)
        if which.undecided:
            shown &= ~self._decided
        if which.below < 1:
            shown &= suspects.quality < which.below
        return shown

    def item(self, place: int) -> dict[str, Any]:
        """Describe the label at a place, for JSON."""
        suspects = self.suspects
        number, quality = int(suspects.numbers[place]), float(suspects.quality[place])
        with self._mutex:
            standing = self._standing.get(number)
            decision = standing[-1].decision if standing else None
        return {
            "place": place,
            "number": number,
            "given": int(suspects.given[place]),
            "predicted": int(suspects.predicted[place]),
            "second": int(suspects.second[place]),
            "quality": None if math.isnan(quality) else quality,
            "issue": suspects.issues[suspects.issue[place]],
            "suggestion": self._suggestion(place),
            "decision": decision and {"action": decision.action, "label": decision.label},
        }

    def _suggestion(self, place: int) -> dict[str, Any] | None:
        """Return what the audit would decide; None where it has no opinion."""
        suspects = self.suspects
        given, predicted = int(suspects.given[place]), int(suspects.predicted[place])
        if _REMOVED & set(suspects.issues[suspects.issue[place]].split(";")):
            return {"action": "remove", "label": None}
        if predicted in (-1, given):
            return None
        return {"action": "relabel", "label": predicted}

    def threshold(self, below: float) -> dict[str, Any]:
        """Count the labels on each side of a quality, and the mistakes expected among them.

        The expected number of mistakes is the sum of 1 - p(right), from sums made in advance.

        Args:
            below: The quality; of all labels at 1.

        Returns:
            For JSON: "below" and "above", each with "labels" and "wrong"; "wrong" is None where the
            quality is no probability.
        """
        count = len(self.suspects)
        cut = count if below >= 1 else int(np.searchsorted(self._rising, below))
        low, all_of_them = float(self._expected[cut]), float(self._expected[-1])
        sure = self.suspects.is_probability
        return {
            "below": {"labels": cut, "wrong": low if sure else None},
            "above": {"labels": count - cut, "wrong": all_of_them - low if sure else None},
        }

    def pairs(self, words: str = "", size: int = 50) -> list[dict[str, int]]:
        """Return the commonest pairs of a given and a likeliest class among the suspects.

        Args:
            words: Only pairs where the name of a class contains this, in any case.
            size: The most pairs.

        Returns:
            For JSON: the numbers of the "given" and the "predicted" class, how many "labels" there
            are, and how many of them are "left" to be decided.
        """
        names, wanted = self.suspects.class_names, words.casefold()
        matching = np.array([wanted in name.casefold() for name in names], dtype=np.bool_)
        chosen = np.flatnonzero(matching[self._pairs[:, :2]].any(axis=1))[:size]
        left = np.bincount(
            self._pair_of[(self._pair_of >= 0) & ~self._decided], minlength=len(self._pairs)
        )
        return [
            {"given": given, "predicted": predicted, "labels": labels, "left": int(left[i])}
            for i, (given, predicted, labels) in zip(
                chosen.tolist(), self._pairs[chosen].tolist(), strict=True
            )
        ]

    def progress(self) -> dict[str, int]:
        """Return how many labels were decided, of the suspects and of all, for JSON."""
        return {
            "decided": int(self._decided.sum()),
            "decided_suspects": int((self._decided & self._is_suspect).sum()),
            "suspects": int(self._is_suspect.sum()),
            "labels": len(self.suspects),
        }


def _pairs(suspects: Suspects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count suspects by given and likeliest class.

    Returns:
        (M,) the row of each label's pair, -1 if it is no suspect or has no other likeliest class;
        (P, 3) given class, likeliest class and number of labels, the commonest first.
    """
    classes = len(suspects.class_names)
    counted = (suspects.issue > 0) & (suspects.predicted >= 0)
    counted &= suspects.predicted != suspects.given
    codes = suspects.given[counted] * classes + suspects.predicted[counted]
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    pair_of = np.full(len(suspects), -1, dtype=np.int64)
    pair_of[counted] = rank[inverse]
    table = np.stack([found // classes, found % classes, counts], axis=1)[order]
    return pair_of, table
