"""Corrected labels: a person first, then the judge; and their record."""

from dataclasses import replace

import numpy as np
import pytest
from correcting import corrected_at_random, given_labels

from corruptions import NoisyLabels, Samples, labels_from, read_labels
from corruptions.labels import CORRECTED
from curricula import Trust
from robustdiff.labels.checked import Checked
from robustdiff.labels.corrected import correct

GIVEN = np.array([0, 0, 1, 1, 2, 2])
# The judge would move images 1 and 3 to class 2.
CLASSES = np.eye(3)[[0, 2, 1, 2, 2, 2]] * 0.9 + np.full(3, 0.1 / 3)
NAMES = ("a", "b", "c")


def before():
    return given_labels([f"{NAMES[k]}/{i}.png" for i, k in enumerate(GIVEN)], NAMES)


def trust():
    return Trust(CLASSES[np.arange(6), GIVEN], 0.3, CLASSES, CLASSES, np.eye(3))


def said(classes, removed=()):
    checked = Checked(np.array(classes), np.zeros(6, dtype=bool))
    checked.removed[list(removed)] = True
    return checked


def test_the_judge_decides_where_nobody_else_has():
    found = correct(before(), trust(), None, decided_only=False)
    assert found.labels.tolist() == [0, 2, 1, 2, 2, 2]
    assert found.decided_by == ("given", "judge", "given", "judge", "given", "given")
    assert not found.removed.any()


def test_a_person_wins_over_the_judge():
    checked = said([1, 0, -1, -1, -1, -1], removed=[3])
    found = correct(before(), trust(), checked, decided_only=False)
    assert found.labels.tolist() == [1, 0, 1, 1, 2, 2]
    assert found.decided_by == ("person", "person", "given", "removed", "given", "given")
    assert found.likelihood[:2].tolist() == [1, 1]
    assert found.gain[[0, 1, 3]].tolist() == [0, 0, 0]


def test_only_decisions_count_if_asked_or_without_a_judge_of_classes():
    checked = said([1, -1, -1, -1, -1, -1])
    for judge in (trust(), None, Trust(np.ones(6), 0.1)):
        found = correct(before(), judge, checked, decided_only=True)
        assert found.labels.tolist() == [1, 0, 1, 1, 2, 2]
        assert found.decided_by == ("person", *["given"] * 5)


def samples(record, clean):
    return Samples(
        clean=clean, num_classes=len(record.nominal), class_names=record.class_names,
        paths=record.paths,
    )  # fmt: skip


@pytest.mark.parametrize("truth_known", [True, False])
def test_a_record_says_who_decided_and_comes_back_in_any_order(tmp_path, truth_known):
    corrected = corrected_at_random(before())
    record = corrected.record(truth_known=truth_known)
    record.save(tmp_path / "c.npz")
    assert NoisyLabels.load(tmp_path / "c.npz").decided_by == corrected.decided_by
    order = np.array([3, 1, 5, 0, 2, 4])
    moved = record.at(order)
    found = labels_from(read_labels(tmp_path / "c.npz"), samples(moved, GIVEN[order])).labels
    assert found.given.tolist() == corrected.labels[order].tolist()
    assert found.decided_by == tuple(corrected.decided_by[i] for i in order)
    assert (found.noise_type == CORRECTED) != truth_known


def test_a_record_with_other_words_is_damaged(tmp_path):
    record = corrected_at_random(before()).record(truth_known=False)
    object.__setattr__(record, "decided_by", ("me", *record.decided_by[1:]))
    record.save(tmp_path / "c.npz")
    with pytest.raises(ValueError, match="damaged or not a label file"):
        NoisyLabels.load(tmp_path / "c.npz")


def test_labels_that_were_corrected_twice_are_still_those_of_the_folder(tmp_path):
    once = corrected_at_random(before(), seed=1).record(truth_known=False)
    # A run on them takes them for the truth, since nobody knows it.
    run = replace(once, clean=once.given, decided_by=None)
    twice = corrected_at_random(run, seed=2)
    twice.record(truth_known=False).save(tmp_path / "c.npz")
    found = labels_from(read_labels(tmp_path / "c.npz"), samples(once, GIVEN)).labels
    assert found.given.tolist() == twice.labels.tolist()
    assert found.clean.tolist() == GIVEN.tolist()
