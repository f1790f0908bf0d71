"""scores.npz: what is saved comes back, also from files of earlier versions."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from corruptions import corrupt
from curricula import Trust
from curricula.sparse import keep_few
from robustdiff.errors import DamagedError
from robustdiff.metrics.detection import detection
from robustdiff.runs import many
from robustdiff.runs.folder import Run
from robustdiff.runs.history import append_entry
from robustdiff.runs.scores import (
    detect,
    estimated_transition,
    label_score,
    load_scores,
    save_scores,
)

SCORES = np.array([0.5, -1.0, 2.0], dtype=np.float32)
RIGHT = np.array([0.6, 0.1, 0.9])
USED = RIGHT >= 0.5
CLASSES = np.array([[0.6, 0.4], [0.9, 0.1], [0.1, 0.9]])


def test_scores_and_trust_come_back(tmp_path):
    run = Run(tmp_path)
    assert load_scores(run) is None
    save_scores(run, SCORES, Trust(RIGHT, 0.25, CLASSES, CLASSES, np.eye(2), 0.1), USED)
    scores, trust = load_scores(run)
    np.testing.assert_array_equal(scores, SCORES)
    np.testing.assert_array_equal(trust.right, RIGHT)
    assert (trust.noise, trust.temperature) == (0.25, 0.1)
    for part in (trust.classes, trust.image_classes):
        np.testing.assert_array_equal(part, CLASSES.astype(np.float32))
    np.testing.assert_array_equal(trust.transition, np.eye(2))
    with np.load(run.scores_file) as content:
        np.testing.assert_array_equal(content["label_used"], USED)
        np.testing.assert_array_equal(content["label_score"], [2 / 3, 1 / 3, 1])


def test_the_arrays_that_the_readme_names_are_those_of_the_files(tmp_path):
    run = Run(tmp_path)
    save_scores(run, SCORES, Trust(RIGHT, 0.25), USED)
    names = (("0", "1"), ("a.png", "b.png", "c.png"))
    labels = corrupt(np.array([0, 1, 1]), num_classes=2, noise_type="symmetric", rate=0.3, seed=0)
    replace(labels, class_names=names[0], paths=names[1]).save(run.labels_file)
    text = (Path(__file__).parents[3] / "README.md").read_text()
    for file, whole in ((run.labels_file, True), (run.scores_file, False)):
        (named,) = re.findall(rf"`{file.name}` \((.*?)\)", text.replace("(0, 1]", ""), re.DOTALL)
        with np.load(file) as content:
            assert set(re.findall("`(.*?)`", named)) <= set(content)
            assert not whole or set(re.findall("`(.*?)`", named)) == set(content)


def test_a_score_without_classes_has_neither_these_nor_a_temperature(tmp_path):
    run = Run(tmp_path)
    save_scores(run, SCORES, Trust(RIGHT, float("nan")), USED)
    trust = load_scores(run).trust
    assert np.isnan(trust.noise)
    assert trust[2:] == (None, None, None, None, ())
    with np.load(run.scores_file) as content:
        assert set(content) == {
            "index", "score", "label_score", "label_right", "estimated_noise", "label_used",
        }  # fmt: skip


def test_earlier_versions_kept_the_temperature_in_the_log_alone(tmp_path):
    run = Run(tmp_path)
    for step, temperature in enumerate((0.5, 0.25)):
        append_entry(run, {"step": step, "temperature": temperature})
    append_entry(run, {"step": 3, "loss": 1.0})
    save_scores(run, SCORES, Trust(RIGHT, 0.25, CLASSES, CLASSES, np.eye(2)), USED)
    assert load_scores(run).trust.temperature == 0.25
    save_scores(run, SCORES, Trust(RIGHT, 0.25, CLASSES, CLASSES, np.eye(2), 0.125), USED)
    assert load_scores(run).trust.temperature == 0.125


@pytest.mark.parametrize("name", ["score", "label_right", "estimated_noise", "temperature"])
def test_an_array_of_another_shape_is_damage(tmp_path, name):
    content = {"score": SCORES, "label_right": RIGHT, "estimated_noise": 0.1, "temperature": 0.1}
    content[name] = np.zeros((3, 2))
    np.savez(tmp_path / "scores.npz", **content)
    with pytest.raises(DamagedError, match=r"scores\.npz is damaged"):
        load_scores(Run(tmp_path))


def test_the_newest_report_says_what_the_label_noise_is(tmp_path):
    run, early, late = Run(tmp_path), np.full((2, 2), 0.5), np.eye(2)
    assert estimated_transition(run) is None
    save_scores(run, SCORES, Trust(RIGHT, 0.25), USED)
    assert estimated_transition(run) is None
    save_scores(run, SCORES, Trust(RIGHT, 0.25, CLASSES, CLASSES, early), USED)
    np.testing.assert_array_equal(estimated_transition(run), early)
    save_scores(run, SCORES, Trust(RIGHT, 0.25, CLASSES, CLASSES, late), USED, anew=True)
    np.testing.assert_array_equal(estimated_transition(run), late)
    unknown = Trust(RIGHT, float("nan"), CLASSES, CLASSES, late)
    save_scores(run, SCORES, unknown, USED, anew=True)
    assert estimated_transition(run) is None


@pytest.mark.parametrize("content", [{}, {"estimated_noise": np.zeros(2)}])
def test_a_report_that_does_not_say_how_much_noise_is_damaged(tmp_path, content):
    np.savez(tmp_path / "judged.npz", transition=np.eye(2), **content)
    with pytest.raises(DamagedError, match=r"judged\.npz is damaged"):
        estimated_transition(Run(tmp_path))


def test_doubts_are_kept(tmp_path):
    doubts = ("class {1} was not learnt", "{0} or {1}?")
    trust = Trust(RIGHT, float("nan"), doubts=doubts)
    save_scores(Run(tmp_path), SCORES, trust, USED)
    assert load_scores(Run(tmp_path)).trust.doubts == doubts


def test_label_score_is_the_rank():
    np.testing.assert_array_equal(label_score(np.array([3.0, 1.0, 1.0, 9.0])) * 4, [3, 1, 2, 4])


def test_what_is_sparse_comes_back_sparse(tmp_path):
    run = Run(tmp_path)
    few = keep_few(np.random.default_rng(0).random((len(SCORES), 6)), np.zeros(len(SCORES), int), 3)
    save_scores(run, SCORES, Trust(RIGHT, 0.25, few, few, np.eye(6), 0.1), USED)
    found = load_scores(run).trust
    for stored in (found.classes, found.image_classes):
        np.testing.assert_array_equal(stored[:], few[:])
        np.testing.assert_array_equal(stored.classes, few.classes)
    assert found.transition.shape == (6, 6)


def test_of_many_scores_numbers_and_ranks_are_left_out_and_some_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(many, "MOST", 300)
    run, rng = Run(tmp_path), np.random.default_rng(0)
    labels = corrupt(rng.integers(4, size=1000), num_classes=4, rate=0.4, seed=0)
    scores = np.where(labels.flipped, -1.0, 1.0) + rng.normal(size=1000)
    save_scores(run, scores, Trust(scores > 0, 0.4), scores > 0)
    with np.load(run.scores_file) as content:
        assert {"index", "label_score"}.isdisjoint(content.files)
    np.testing.assert_array_equal(load_scores(run).scores, scores)
    rows = many.sampled(1000)
    assert len(np.unique(rows)) == 300
    some = detection(torch.from_numpy(scores[rows]), torch.from_numpy(labels.flipped[rows]))
    assert detect(scores, labels) == some
    monkeypatch.setattr(many, "MOST", 1000)
    assert detect(scores, labels)["auroc"] == pytest.approx(some["auroc"], abs=0.06)
