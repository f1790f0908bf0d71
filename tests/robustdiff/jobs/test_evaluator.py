"""The labels that an evaluator learns: clean ones, or those of a judge that is not the run's."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from corruptions import NoisyLabels
from curricula import Trust
from robustdiff.config.layers import resolve
from robustdiff.jobs import evaluator as module
from robustdiff.jobs.evaluator import evaluator_of
from robustdiff.progress import Report

FOLDER = {"data": {"dataset": "folder"}}


@pytest.fixture
def published(digits):
    """Labels as published, of which nobody knows more."""
    given = digits.train_labels.numpy()
    return NoisyLabels(
        clean=given, given=given, nominal=np.eye(10), noise_type="none", rate=0.0, seed=0,
        mode="exact", convention="",
    )  # fmt: skip


@pytest.fixture
def judged(published, monkeypatch):
    """Configurations by which labels were judged: the first 27 of 1,347 are of the next class."""
    calls = []

    def findings(images, labels, config, report, folder):
        calls.append(config)
        classes = np.eye(10, dtype=np.float32)[labels.given]
        classes[:27] = np.roll(classes[:27], 1, axis=1)
        right = classes[np.arange(len(classes)), labels.given]
        return SimpleNamespace(trust=Trust(right, 0.02, classes, classes))

    monkeypatch.setattr(module, "crossfit_findings", findings)
    return calls


@pytest.fixture
def learnt(monkeypatch):
    """Labels that evaluators were trained on."""
    found = []

    def load_or_train(folder, images, labels, **_):
        found.append(labels)
        return None, "digest"

    monkeypatch.setattr(module, "load_or_train", load_or_train)
    return found


def test_clean_labels_are_learnt_as_they_are(digits, published, judged, learnt, tmp_path):
    given = np.roll(published.given, 1)
    for config, labels in (
        (resolve({}), published),
        (resolve(FOLDER), replace(published, given=given)),
    ):
        _, about = evaluator_of(config, digits, labels, tmp_path, Report())
        assert about == {"evaluator_sha256": "digest", "evaluator_corrected": None}
    assert all(torch.equal(labels, digits.train_labels) for labels in learnt)
    assert judged == []


def test_where_no_labels_are_known_to_be_clean_corrected_ones_are_learnt(
    digits, published, judged, learnt, tmp_path
):
    _, about = evaluator_of(resolve(FOLDER), digits, published, tmp_path, Report())
    assert about["evaluator_corrected"] == pytest.approx(27 / 1347)
    assert torch.equal(learnt[0][:27], (digits.train_labels[:27] + 1) % 10)
    assert torch.equal(learnt[0][27:], digits.train_labels[27:])


def test_runs_on_the_same_labels_share_one_judgement_whatever_they_do(
    digits, published, judged, learnt, tmp_path
):
    for layer in (
        {"curriculum": {"name": "crossfit"}, "seed": 3},
        {"judge": {"effort": "thorough", "folds": 5}},
        {"curriculum": {"name": "pmi"}},
    ):
        evaluator_of(resolve(FOLDER, layer), digits, published, tmp_path, Report())
    (config,) = judged
    assert (config.seed, config.judge.effort, config.judge.folds) == (0, "quick", None)
    assert all(torch.equal(labels, learnt[0]) for labels in learnt)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    evaluator_of(resolve(FOLDER), digits, published, tmp_path, Report())
    assert len(judged) == 2
    assert torch.equal(learnt[-1], learnt[0])
    other = np.roll(published.given, 1)
    corrected = replace(published, given=other, clean=other)
    evaluator_of(resolve(FOLDER), digits, corrected, tmp_path, Report())
    assert len(judged) == 2
    assert torch.equal(learnt[-1], learnt[0])
    others = replace(digits, train_labels=torch.from_numpy(other))
    evaluator_of(resolve(FOLDER), others, corrected, tmp_path, Report())
    assert len(judged) == 3
