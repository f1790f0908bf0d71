from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from corruptions import corrupt
from curricula import sparse
from robustdiff.classifiers import class_rows
from robustdiff.classifiers.image import Lessons, Trained
from robustdiff.config.judging import JudgeConfig
from robustdiff.labels import crossfit as crossfit_module
from robustdiff.labels import folds
from robustdiff.labels import rows as rows_module
from robustdiff.labels.checked import Checked
from robustdiff.labels.crossfit import (
    crossfit,
    crossfit_again,
    likeliest_decision,
    make_plan,
)
from robustdiff.labels.decision import decide
from robustdiff.labels.features import probe
from robustdiff.labels.folds import Plan
from robustdiff.labels.probabilities import by_decision
from robustdiff.parallel import ALONE

SHAPE = (1, 8, 8)
LESSONS = Lessons(seed=1, passes=2)
SHORT = Plan(folds=3, splits=2, rounds=2, lessons=LESSONS, later=LESSONS)


@pytest.fixture(scope="module")
def noisy(digits):
    return corrupt(digits.train_labels.numpy(), num_classes=10, noise_type="pairflip", rate=0.3)


def silent(done, total):
    pass


class Kind(NamedTuple):
    """All of a decision that further rounds depend on."""

    kind: str


def test_classifiers_find_wrong_labels_of_images_whose_labels_they_never_saw(digits, noisy):
    seen = []
    plan = make_plan(JudgeConfig(), SHAPE, len(noisy.given), seed=0)
    found = crossfit(
        digits.train,
        torch.from_numpy(noisy.given),
        10,
        plan,
        progress=lambda done, total: seen.append(done / total),
    )
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, atol=1e-5)
    decision = found.decision
    assert roc_auc_score(~noisy.flipped, decision.right) > 0.98
    assert decision.share == pytest.approx(noisy.realised_rate, abs=0.03)
    assert (decision.corrected == noisy.clean).mean() > 0.96
    np.testing.assert_allclose(decision.transition, noisy.realised, atol=0.12)
    assert (found.margins < 0).mean() == pytest.approx(noisy.realised_rate, abs=0.1)
    assert seen == sorted(seen)
    assert seen[-1] == 1


def lessons_of(monkeypatch, digits, given, plan):
    """Return what each classifier learns: rows, targets, and the images that it is asked about."""
    taught = []

    def train(images, targets, num_classes, *, rows, **_):
        taught.append([rows, targets, None])
        likely = 0.8 * torch.nn.functional.one_hot(digits.train_labels, 10).float() + 0.02
        return Trained(likely, torch.ones(len(rows)))

    def ask(classifier, images, rows, **_):
        taught[-1][2] = rows
        return classifier[rows]

    monkeypatch.setattr(folds, "train_image_classifier", train)
    monkeypatch.setattr(rows_module, "predict", ask)
    crossfit(digits.train, torch.from_numpy(given), 10, plan, progress=silent)
    return taught


def test_no_label_is_judged_by_a_classifier_that_learnt_it(monkeypatch, digits, noisy):
    taught = lessons_of(monkeypatch, digits, noisy.given, SHORT)
    assert len(taught) == 2 * 3 * 2
    for number in (0, 1):
        asked = np.zeros(len(noisy.given))
        for rows, targets, judged in taught[number * 6 : number * 6 + 6]:
            asked[judged] += 1
            assert torch.allclose(targets.sum(1), torch.ones(len(targets)), atol=1e-5)
            if number == 0:
                assert not np.intersect1d(rows, judged).size
                assert torch.equal(targets.argmax(1), torch.from_numpy(noisy.given)[rows])
            else:
                # What is learnt about the images that it judges follows from the image alone.
                own = targets[judged].argmax(1)
                assert (own == digits.train_labels[judged]).all()
        assert (asked == 2).all()


@pytest.mark.parametrize("kept", [None, 2, 4], ids=["dense", "sparse", "all kept"])
def test_images_are_learnt_by_the_image_alone_where_they_are_judged(kept):
    rng, given = np.random.default_rng(0), np.arange(6) % 4
    others, own = rng.dirichlet(np.ones(4), size=(2, 6)).astype(np.float32)
    judged, learnt = np.arange(6) < 2, np.arange(6) != 3
    if kept is not None:
        others, own = (sparse.keep_few(part, given, kept) for part in (others, own))
    work = folds.Work(torch.zeros(6, 1, 1, 1), given, 4, others, own, 1)
    found = folds._targets(work, judged, learnt)
    found = found[:] if kept is not None else found.numpy()
    np.testing.assert_array_equal(found, np.concatenate([own[:2], others[2:]])[[0, 1, 2, 4, 5]])
    first = folds._targets(work._replace(others=None, own=None), judged, learnt)
    assert first.tolist() == [0, 1, 2, 0, 1]


def test_labels_without_noise_are_not_learnt_twice(monkeypatch, digits):
    assert len(lessons_of(monkeypatch, digits, digits.train_labels.numpy(), SHORT)) == 6


def killed_and_resumed(images, noisy, plan, folder, share):
    """Judge at once, and killed after a share of the steps.

    Returns both findings, and the share of the steps that was left to do.
    """
    given, steps = torch.from_numpy(noisy.given), []

    def judged(folder, kill_at=0):
        def progress(done, total):
            steps.append(done)
            if len(steps) == kill_at:
                raise KeyboardInterrupt

        steps.clear()
        return crossfit(images, given, 10, plan, progress=progress, folder=folder)

    whole = judged(None)
    count = len(steps)
    with pytest.raises(KeyboardInterrupt):
        judged(folder, kill_at=int(count * share))
    return whole, judged(folder), len(steps) / count


def test_a_killed_judge_goes_on_with_the_classifier_it_was_at(digits, noisy, tmp_path):
    whole, resumed, left = killed_and_resumed(digits.train, noisy, SHORT, tmp_path, 3 / 4)
    # Of each finished classifier there is one report left, that it is done.
    assert left < 0.4
    for name in ("probabilities", "margins"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(resumed, name))
    np.testing.assert_array_equal(whole.decision.right, resumed.decision.right)
    other = torch.from_numpy(noisy.clean)
    crossfit(digits.train, other, 10, SHORT, progress=silent, folder=tmp_path)
    fresh = crossfit(digits.train, other, 10, SHORT, progress=silent)
    again = crossfit(digits.train, other, 10, SHORT, progress=silent, folder=tmp_path)
    np.testing.assert_array_equal(fresh.probabilities, again.probabilities)


def test_processes_share_the_classifiers(monkeypatch, digits, noisy):
    given, parts = torch.from_numpy(noisy.given), []
    plan = replace(SHORT, rounds=1)
    whole = crossfit(digits.train, given, 10, plan, progress=silent)

    def total(self, values):
        parts[-1].append(values)
        return values if self.rank == 0 else parts[0][len(parts[1]) - 1] + values

    monkeypatch.setattr(type(ALONE), "total", total)
    for rank in (0, 1):
        parts.append([])
        found = crossfit(
            digits.train, given, 10, plan, progress=silent, workers=type(ALONE)(rank, 2)
        )
    np.testing.assert_allclose(found.probabilities, whole.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "shape", "count", "folds", "rounds", "flip"),
    [
        (JudgeConfig(), SHAPE, 1347, 2, 2, False),
        (JudgeConfig(effort="quick"), (3, 32, 32), 50_000, 2, 1, True),
        (JudgeConfig(), (3, 32, 32), 50_000, 4, 2, True),
        (JudgeConfig(), (3, 32, 32), 2000, 5, 2, True),
        (JudgeConfig(folds=4, rounds=3, flip=False), (3, 32, 32), 2000, 4, 3, False),
        (JudgeConfig(effort="thorough", flip=True), (1, 28, 28), 60_000, 4, 2, True),
        (JudgeConfig(), (1, 28, 28), 60_000, 2, 2, False),
    ],
)
def test_settings_win_over_what_effort_and_size_suggest(
    settings, shape, count, folds, rounds, flip
):
    plan = make_plan(settings, shape, count, seed=0)
    assert (plan.folds, plan.rounds, plan.lessons.flip) == (folds, rounds, flip)
    assert plan.splits == (2 if count == 2000 else 1)


def test_once_more_learns_what_a_person_said_and_no_removed_image(digits, noisy, monkeypatch):
    given, clean = torch.from_numpy(noisy.given), digits.train_labels.numpy()
    taught = lessons_of(monkeypatch, digits, noisy.given, SHORT)
    decision = crossfit(digits.train, given, 10, SHORT, progress=silent).decision
    trust, _ = by_decision(decision, noisy.given)
    checked = Checked(np.full(len(clean), -1), np.zeros(len(clean), dtype=bool))
    checked.classes[:50], checked.removed[50:80] = clean[:50], True
    taught.clear()
    found = crossfit_again(digits.train, given, trust, checked, SHORT, progress=silent)
    assert len(taught) == SHORT.folds * SHORT.splits
    for rows, targets, asked in taught:
        others = np.setdiff1d(np.arange(50), asked.numpy())
        places = {row: place for place, row in enumerate(rows.tolist())}
        assert not set(range(50, 80)) & places.keys()
        for row in others:
            assert targets[places[row]].argmax() == clean[row]
            assert targets[places[row]].max() == 1
    assert found.decision.kind != "no evidence"


def test_decisions_tell_which_kind_of_noise_there_is(digits, noisy):
    clean, k = digits.train_labels.numpy(), 10
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(k), len(clean)) + 1.5 * np.eye(k)[clean]
    p /= p.sum(1, keepdims=True)
    checked = Checked(np.full(len(clean), -1), np.zeros(len(clean), dtype=bool))
    checked.classes[:300] = clean[:300]
    found = likeliest_decision(p, noisy.given, checked)
    plain = decide(p, noisy.given)

    def seen(decision):
        return np.log(decision.classes[np.arange(300), clean[:300]] + 1e-4).sum()

    assert seen(found) >= seen(plain)


def kept(given, rows):
    """Return what a person says who keeps the labels of some rows."""
    checked = Checked(np.full(len(given), -1), np.zeros(len(given), dtype=bool))
    checked.classes[rows] = given[rows]
    return checked


def test_one_label_on_which_the_judge_errs_changes_no_other():
    rng, n = np.random.default_rng(0), 400
    clean = rng.integers(0, 10, n)
    given = np.where(rng.random(n) < 0.17, (clean + 1) % 10, clean)
    shown = np.where(rng.random(n) < 0.05, rng.integers(0, 10, n), clean)
    features = (0.02 + 0.8 * np.eye(10)[shown]) @ rng.normal(size=(10, 20))
    p = probe(features, given, 10, seed=0, progress=silent)
    flagged, wrong = decide(p, given).right < 0.5, given != clean
    assert flagged[wrong].mean() > 0.95
    false = np.flatnonzero(flagged & ~wrong)
    found = likeliest_decision(p, given, kept(given, false[:1]))
    assert ((found.right < 0.5) == flagged).all()


def test_many_decisions_overrule_the_kind_that_all_labels_speak_for(monkeypatch):
    given = np.arange(60) % 3
    flagging = 0.02 + 0.94 * np.eye(3)[(given + 1) % 3]
    trusting = np.full((60, 3), 0.1) + 0.7 * np.eye(3)[given]
    plain = decide(trusting, given)

    def decided(*_, by_image, wrong_seen):
        classes = trusting if by_image is False else flagging
        return replace(plain, classes=classes, mean_classes=classes, kind=str(by_image))

    monkeypatch.setattr(crossfit_module, "decide", decided)
    found = [likeliest_decision(flagging, given, kept(given, range(m))).kind for m in (0, 1, 4, 5)]
    assert found == ["None", "None", "None", "False"]


@pytest.fixture
def all_kept(monkeypatch):
    """Ten classes count as many, and rows keep all of them."""
    for where in (crossfit_module, class_rows, sparse, rows_module):
        monkeypatch.setattr(where, "MOST_DENSE", 4)
    monkeypatch.setattr(class_rows, "KEPT", 10)
    for function in (sparse.keep_few, sparse.unknown):
        monkeypatch.setattr(function, "__defaults__", (10,))


def test_classifiers_of_all_classes_kept_find_what_dense_ones_find(
    digits, noisy, tmp_path, request
):
    given, early = torch.from_numpy(noisy.given), replace(LESSONS, early=2.0, smoothing=0.1)
    plan = replace(SHORT, folds=2, lessons=early)
    whole = crossfit(digits.train, given, 10, plan, progress=silent)
    request.getfixturevalue("all_kept")
    found = crossfit(digits.train, given, 10, plan, progress=silent)
    assert isinstance(found.probabilities, sparse.SparseClasses)
    np.testing.assert_allclose(found.probabilities[:], whole.probabilities, atol=1e-6)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-6)
    np.testing.assert_allclose(found.decision.right, whole.decision.right, atol=1e-6)


def test_a_killed_judge_of_many_classes_goes_on(digits, noisy, tmp_path, all_kept):
    plan = replace(SHORT, folds=2, splits=1, lessons=replace(LESSONS, early=2.0))
    whole, resumed, left = killed_and_resumed(digits.train, noisy, plan, tmp_path, 7 / 8)
    assert left < 1 / 3
    np.testing.assert_array_equal(whole.probabilities[:], resumed.probabilities[:])


def test_processes_share_the_classifiers_of_many_classes(monkeypatch, digits, noisy, all_kept):
    given, parts = torch.from_numpy(noisy.given), []
    plan = replace(SHORT, folds=2, splits=1, rounds=1)
    whole = crossfit(digits.train, given, 10, plan, progress=silent)

    def total(self, values):
        parts[-1].append(values)
        return values if self.rank == 0 else parts[0][len(parts[1]) - 1] + values

    monkeypatch.setattr(type(ALONE), "total", total)
    # The first process has but its part, about which nothing can be decided.
    monkeypatch.setattr(crossfit_module, "decide", lambda *_: Kind("no noise"))
    for rank in (0, 1):
        parts.append([])
        found = crossfit(
            digits.train, given, 10, plan, progress=silent, workers=type(ALONE)(rank, 2)
        )
    np.testing.assert_allclose(found.probabilities[:], whole.probabilities[:], atol=1e-6)
    np.testing.assert_allclose(found.margins, whole.margins, atol=1e-5)
