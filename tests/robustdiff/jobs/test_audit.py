"""Where the findings of an audit come from: a run's own scores, or classifiers."""

import dataclasses
import sys
from unittest.mock import Mock

import numpy as np
import pytest

from corruptions import corrupt
from curricula import Trust
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.layers import resolve
from robustdiff.errors import LockedError
from robustdiff.jobs import audit as module
from robustdiff.jobs.audit import audit_images, audit_run, stored_findings
from robustdiff.jobs.correct import corrected_labels
from robustdiff.jobs.dataset import RunData
from robustdiff.labels.crossfit import Crossfitted
from robustdiff.labels.decision import decide
from robustdiff.progress import Report
from robustdiff.reports.audit import issue_columns
from robustdiff.runs.making import create_run
from robustdiff.runs.scores import save_scores


@pytest.fixture
def images(digits):
    return dataclasses.replace(
        digits, train=digits.train[:50], train_labels=digits.train_labels[:50]
    )


@pytest.fixture
def labels(images):
    return corrupt(images.train_labels.numpy(), num_classes=10, rate=0.4, seed=0)


@pytest.fixture
def run(tmp_path, labels):
    return create_run(tmp_path / "run", resolve(), labels)


def sure(labels):
    """Trust of somebody who knows the truth."""
    classes = np.eye(10)[labels.clean] * 0.91 + 0.009
    right = classes[np.arange(len(classes)), labels.given]
    return Trust(right, float(labels.realised_rate), classes, classes, labels.realised, 0.5)


@pytest.mark.parametrize(
    ("name", "treatment", "weights"),
    [
        ("margin", None, lambda right: right >= 0.5),
        ("margin", "none", lambda right: np.ones(50)),
        ("small-loss", None, lambda right: np.ones(50)),
        ("margin", "soft", lambda right: right),
        ("crossfit", None, lambda right: right >= 0.5),
    ],
)
def test_the_table_holds_the_weights_of_training(run, images, labels, name, treatment, weights):
    trust = sure(labels)
    save_scores(run, trust.right, trust, ~labels.flipped)
    config = resolve({"curriculum": {"name": name, "treatment": treatment}})
    stored = stored_findings(run, config, labels)
    # None of these classes has less than a tenth of its labels right.
    shares = np.bincount(labels.given, ~labels.flipped) / np.bincount(labels.given)
    assert (shares >= 0.1).all()
    column = issue_columns(images, labels, stored)["sample_weight"]
    np.testing.assert_allclose(column, weights(trust.right))
    assert stored.in_sample == (name != "crossfit")
    assert stored.trust.temperature == 0.5


def test_findings_come_back_from_a_run(run, labels):
    config = resolve({"curriculum": {"name": "margin"}})
    assert stored_findings(run, config, labels) is None
    trust = sure(labels)
    save_scores(run, trust.right, trust, ~labels.flipped)
    again = stored_findings(run, config, labels)
    np.testing.assert_allclose(again.trust.classes, trust.classes, rtol=1e-6)
    np.testing.assert_allclose(again.trust.transition, trust.transition, rtol=1e-6)
    assert (again.issue == labels.flipped).all()
    assert stored_findings(run, resolve({"curriculum": {"name": "random"}}), labels) is None


def test_probabilities_of_a_file_judge_in_place_of_the_run(
    run, images, labels, tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    np.save(
        tmp_path / "p.npy", np.eye(10)[labels.clean] + rng.uniform(0, 0.2, (len(labels.given), 10))
    )
    rows = np.arange(len(labels.given))
    monkeypatch.setattr(module, "load_run_data", lambda *_: RunData(images, labels, rows))
    config = resolve({"judge": {"probabilities": str(tmp_path / "p.npy")}})
    findings, summary = audit_run(run, config, Report())
    assert "the probabilities in p.npy" in findings.source
    assert summary["issues"] == pytest.approx(labels.flipped.sum(), abs=0.05 * len(labels.given))
    with run.locked(), pytest.raises(LockedError, match="in use by another process"):
        audit_run(run, config, Report())
    np.save(tmp_path / "p.npy", np.ones((3, 10)))
    with pytest.raises(ValueError, match="must hold one array of shape"):
        audit_run(run, config, Report())


CLASSIFIERS = "4 classifiers in 2 rounds, none of which learnt a label that it judges"


@pytest.mark.parametrize(
    ("name", "by", "source"),
    [
        ("margin", "run", "curriculum margin, last scoring round"),
        ("margin", "crossfit", CLASSIFIERS),
        ("random", "run", CLASSIFIERS),
    ],
)
def test_classifiers_find_what_the_run_did_not_look_for(
    run, images, labels, name, by, source, monkeypatch
):
    trust = sure(labels)
    save_scores(run, trust.right, trust, ~labels.flipped)

    def crossfit(*_, **__):
        classes = np.eye(10)[labels.clean] * 0.91 + 0.009
        decision = decide(classes, labels.given)
        return Crossfitted(classes, decision, classes[:, 0])

    rows = np.arange(len(labels.given))
    monkeypatch.setattr(module, "load_run_data", lambda *_: RunData(images, labels, rows))
    monkeypatch.setattr(module, "crossfit", crossfit)
    config = resolve({"curriculum": {"name": name}})
    findings, summary = audit_run(run, config, Report(), by=by)
    assert findings.source.startswith(source)
    assert summary["estimated_noise"] == pytest.approx(0.4, abs=0.02)
    assert summary["issues"] == 20
    assert source in (run.path / "audit.html").read_text()


def test_corrections_follow_the_newest_report(run, images, labels, tmp_path, monkeypatch):
    rows = np.arange(len(labels.given))
    monkeypatch.setattr(module, "load_run_data", lambda *_: RunData(images, labels, rows))
    config = resolve({"curriculum": {"name": "margin"}})
    trust, said = sure(labels), []
    save_scores(run, trust.right, trust, ~labels.flipped)
    report = Report()
    report.message = said.append

    def check(findings):
        by = corrected_labels(run, config).decided_by
        np.testing.assert_array_equal(np.array(by) == "judge", findings.issue)

    first = audit_run(run, config, report)[0]
    check(first)
    np.save(tmp_path / "p.npy", np.roll(np.eye(10)[labels.clean], 25, axis=0) + 0.01)
    evidence = JudgeConfig(probabilities=str(tmp_path / "p.npy"))
    anew = audit_run(run, dataclasses.replace(config, judge=evidence), report, by="crossfit")[0]
    assert (anew.issue != first.issue).any()
    check(anew)
    assert not any("given up" in line for line in said)
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_audit", Mock(side_effect=OSError("full")))
        with pytest.raises(OSError, match="full"):
            audit_run(run, config, report)
    check(anew)  # of which the newest report is
    again = audit_run(run, config, report)[0]
    assert (again.issue == first.issue).all()
    check(again)
    assert sum("judged.npz) is given up" in line for line in said) == 1


def test_cleanlab_is_missed_before_the_work(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cleanlab.filter", None)
    monkeypatch.setattr(module, "load_run_data", lambda *_: pytest.fail("it worked first"))
    monkeypatch.setattr(module, "load_images", lambda *_: pytest.fail("it worked first"))
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[cleanlab\]'"):
        audit_run(run, resolve(), Report(), use_cleanlab=True)
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[cleanlab\]'"):
        audit_images(resolve(), tmp_path / "new", Report(), use_cleanlab=True)
