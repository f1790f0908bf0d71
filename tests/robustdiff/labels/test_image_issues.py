"""From copies and strange looks to what a person does about each image."""

import dataclasses

import numpy as np
import pytest
import torch

from robustdiff.labels import image_issues as module
from robustdiff.labels.image_issues import NEAR, OFF_TOPIC, OTHER, copies_of, find_image_issues
from robustdiff.progress import Report


@pytest.fixture
def images(digits):
    """100 digits; 100 to 102 repeat 0 to 2, the last of them under another label; 103 is noise."""
    noise = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8), np.uint8)
    labels = digits.train_labels[:100]
    more = torch.tensor([labels[0], labels[1], (labels[2] + 1) % 10, 7])
    return dataclasses.replace(
        digits,
        train=torch.cat([digits.train[:100], digits.train[:3], torch.from_numpy(noise)]),
        train_labels=torch.cat([labels, more]),
    )


def look(images, classes=None):
    return find_image_issues(images, images.train_labels.numpy(), classes, Report())


def found(issues, kind):
    return np.flatnonzero(issues.kinds[kind]).tolist()


def test_copies_are_told_apart_by_their_labels(images):
    issues = look(images)
    assert found(issues, NEAR) == [100, 101]
    assert found(issues, OTHER) == [2, 102]
    assert issues.duplicate_of[[0, 1, 2, 100, 101, 102]].tolist() == [100, 101, 102, 0, 1, 2]
    assert (np.delete(issues.duplicate_of, [0, 1, 2, 100, 101, 102]) == -1).all()
    assert (issues.near_duplicate_score[[0, 1, 2, 100, 101, 102]] == 1).all()
    assert issues.across_parts == 0
    assert issues.notes == ()


def test_one_of_many_copies_remains(digits):
    many = dataclasses.replace(
        digits, train=digits.train[:50][[*range(50), 3, 3, 3]],
        train_labels=digits.train_labels[:50][[*range(50), 3, 3, 3]],
    )  # fmt: skip
    assert found(look(many), NEAR) == [50, 51, 52]


def test_noise_is_off_topic_unless_its_label_is_predicted(images):
    classes = np.full((104, 10), 0.01)
    classes[np.arange(104), images.train_labels.numpy()] = 0.91
    assert found(look(images, classes), OFF_TOPIC) == []
    classes[103] = 0.1
    assert found(look(images, classes), OFF_TOPIC) == [103]


def test_copies_in_the_held_out_part_are_found(images):
    count, wrong = len(images.test), (images.train_labels[6:7] + 1) % 10
    both = dataclasses.replace(
        images,
        test=torch.cat([images.test, images.train[5:7]]),
        test_labels=torch.cat([images.test_labels, images.train_labels[5:6], wrong]),
    )
    issues = look(both)
    assert issues.across_parts == 2
    assert issues.duplicate_of[5:7].tolist() == [104 + count, 105 + count]
    assert copies_of(both, issues)[5:7] == [f"held-out {count}", f"held-out {count + 1}"]
    assert found(issues, NEAR) == [5, 100, 101]
    assert found(issues, OTHER) == [2, 6, 102]


def test_the_parts_of_a_folder_are_known_by_their_paths(images):
    def paths(first, rest):
        return tuple(f"{first if i < 50 else rest}/x/{i}.png" for i in range(104))

    parts = dataclasses.replace(images, paths=paths("train", "test"))
    assert look(parts).across_parts == 6
    assert copies_of(parts, look(parts))[100] == "train/x/0.png"
    classes = dataclasses.replace(images, paths=paths("0", "1"))
    assert look(classes).across_parts == 0


def test_what_is_too_much_to_compare_is_said(images, monkeypatch):
    monkeypatch.setattr(module, "MOST", 50)
    monkeypatch.setattr(module, "SURE", 0)
    issues = look(images)
    assert "not looked for among more than 50" in issues.notes[0]
    assert found(issues, NEAR) == [100, 101]
