import time

import numpy as np
import pytest
from deciding import make_run

from robustdiff.review.decisions import Decision, Decisions
from robustdiff.review.queue import EVERY, SUSPECT, Filter, Queue
from robustdiff.review.suspects import Suspects

ISSUES = ("", "label", "off-topic")


def make_suspects(count, classes, seed=0):
    rng = np.random.default_rng(seed)
    given = np.arange(count) % classes
    predicted = np.where(rng.random(count) < 0.4, rng.integers(0, classes, count), given)
    issue = np.where(predicted != given, 1, np.where(rng.random(count) < 0.05, 2, 0))
    quality = np.sort(np.round(rng.random(count), 2))
    return Suspects(
        numbers=rng.permutation(count),
        given=given,
        predicted=predicted,
        second=(predicted + 1) % classes,
        quality=quality,
        is_probability=True,
        issues=ISSUES,
        issue=issue,
        class_names=tuple(f"Class {k}" for k in range(classes)),
    )


@pytest.fixture
def queue(tmp_path):
    with Decisions(make_run(tmp_path / "run", samples=300, classes=6)) as decisions:
        yield Queue(make_suspects(300, 6), decisions)


def shown_by(queue, which):
    """The places that a filter shows, found one by one."""
    found = []
    for place in range(len(queue.suspects)):
        item = queue.item(place)
        fits = [
            which.issue in (EVERY, item["issue"]) or (which.issue == SUSPECT and item["issue"]),
            which.pair in (None, (item["given"], item["predicted"])),
            not (which.undecided and item["decision"]),
            which.below == 1 or item["quality"] < which.below,
        ]
        found += [place] * all(fits)
    return found


@pytest.mark.parametrize(
    "which",
    [
        Filter(),
        Filter(EVERY),
        Filter("off-topic"),
        Filter("none such"),
        Filter(pair=(1, 2)),
        Filter(EVERY, (1, 1)),
        Filter(undecided=True, below=0.3),
        Filter(EVERY, undecided=True),
        Filter(below=0.0),
    ],
)
def test_pages_forwards_and_backwards_show_what_fits_and_nothing_else(queue, which):
    for number in range(0, 300, 3):
        queue.decisions.record(Decision(number, "keep"))
    queue.refresh()
    wanted = shown_by(queue, which)
    forwards, start = [], 0
    while (page := queue.page(which, 7, start=start))["items"]:
        assert page["total"] == len(wanted)
        assert page["before"] == len(forwards)
        forwards += [item["place"] for item in page["items"]]
        start = forwards[-1] + 1
    assert forwards == wanted
    backwards, end = [], 300
    while (page := queue.page(which, 7, end=end))["items"]:
        backwards = [item["place"] for item in page["items"]] + backwards
        end = backwards[0]
    assert backwards == wanted


@pytest.mark.parametrize("below", [0.0, 0.01, 0.25, 0.5, 0.505, 0.99, 1.0])
def test_sums_on_both_sides_of_a_threshold_equal_brute_force(queue, below):
    quality = queue.suspects.quality
    low = quality < below if below < 1 else quality >= 0
    found = queue.threshold(below)
    for side, chosen in (("below", low), ("above", ~low)):
        assert found[side]["labels"] == chosen.sum()
        assert found[side]["wrong"] == pytest.approx((1 - quality[chosen]).sum(), abs=1e-9)


def test_pairs_count_suspects_and_what_is_left_and_are_found_by_name(queue):
    suspects = queue.suspects
    counts = {}
    for given, predicted in zip(suspects.given, suspects.predicted, strict=True):
        if given != predicted:
            counts[given, predicted] = counts.get((given, predicted), 0) + 1
    pairs = queue.pairs()
    assert {(one["given"], one["predicted"]): one["labels"] for one in pairs} == counts
    assert [one["labels"] for one in pairs] == sorted(counts.values(), reverse=True)
    assert all(one["left"] == one["labels"] for one in pairs)
    first = pairs[0]
    which = Filter(pair=(first["given"], first["predicted"]))
    number = queue.page(which, 1)["items"][0]["number"]
    queue.decisions.record(Decision(number, "unsure"))
    queue.refresh()
    assert queue.pairs()[0] == first | {"left": first["left"] - 1}
    assert len(queue.pairs(size=3)) == 3
    assert all(4 in (one["given"], one["predicted"]) for one in queue.pairs("CLASS 4"))
    assert queue.pairs("nowhere") == []


def test_decisions_of_others_are_seen_after_a_refresh_and_undone_ones_are_gone(queue, tmp_path):
    number = int(queue.suspects.numbers[5])
    with Decisions(make_run(tmp_path / "run", samples=300, classes=6)) as other:
        other.record(Decision(number, "relabel", 2))
        assert queue.item(5)["decision"] is None
        queue.refresh()
        assert queue.item(5)["decision"] == {"action": "relabel", "label": 2}
        assert queue.progress()["decided"] == 1
        queue.decisions.record(Decision(number, "remove"))
        assert other.undo() == Decision(number, "remove")
        queue.refresh()
        assert queue.item(5)["decision"] == {"action": "relabel", "label": 2}
        other.undo()
        queue.refresh()
        assert queue.item(5)["decision"] is None
        assert queue.progress()["decided"] == 0


def test_what_fits_no_class_is_suggested_to_be_removed_and_the_rest_relabelled(queue):
    for place in range(300):
        item = queue.item(place)
        wanted = {
            "": None,
            "label": {"action": "relabel", "label": item["predicted"]},
            "off-topic": {"action": "remove", "label": None},
        }
        assert item["suggestion"] == wanted[item["issue"]]


def test_a_hundred_thousand_labels_of_a_thousand_classes_are_no_burden(tmp_path):
    run = make_run(tmp_path / "run", samples=100_000, classes=1000)
    with Decisions(run) as decisions:
        queue = Queue(make_suspects(100_000, 1000), decisions)
        begin = time.perf_counter()
        for number in range(20):
            decisions.record(Decision(number, "keep"))
            queue.refresh()
            queue.page(Filter(undecided=True, below=0.5), 60, start=40_000)
            queue.threshold(0.5)
            queue.pairs("class 77")
        assert (time.perf_counter() - begin) / 20 < 0.25
