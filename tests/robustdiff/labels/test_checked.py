"""What checked labels teach about the others, and which to check next."""

import numpy as np
import pytest

from curricula import Trust
from robustdiff.labels.checked import (
    Checked,
    gain,
    learn,
    next_to_check,
    taught,
)
from robustdiff.labels.decision import relabelled


def judged(n=3000, k=4, seed=0, *, weight=1.0):
    """Images of k classes, 30 % of the labels wrong; what a judge says, and the truth."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(0, k, n)
    wrong = rng.random(n) < 0.3
    given = np.where(wrong, (clean + rng.integers(1, k, n)) % k, clean)
    # By the densities of the two Gaussians, p(class | image) is their softmax.
    logits = 2 * (2 * np.eye(k)[clean] + rng.normal(size=(n, k)))
    image = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    noise = np.where(np.eye(k), 0.7, 0.3 / (k - 1))
    joint = image * noise[:, given].T ** weight
    return joint / joint.sum(1, keepdims=True), image, given, clean


def nobody(n):
    return Checked(np.full(n, -1), np.zeros(n, dtype=bool))


def of(rows, clean):
    checked = nobody(len(clean))
    checked.classes[rows] = clean[rows]
    return checked


def test_without_decisions_nothing_changes():
    classes, image, given, _ = judged()
    np.testing.assert_array_equal(
        learn(classes, image, given, nobody(len(given))), classes.astype(np.float32)
    )


def test_checked_labels_are_fixed_points_and_the_rest_are_distributions():
    classes, image, given, clean = judged()
    rows = np.arange(0, 300)
    found = learn(classes, image, given, of(rows, clean))
    np.testing.assert_array_equal(found[rows], np.eye(4)[clean[rows]])
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_decisions_of_a_good_judge_teach_next_to_nothing():
    classes, image, given, clean = judged()
    rows = np.random.default_rng(1).permutation(len(given))[:300]
    found = learn(classes, image, given, of(rows, clean))
    others = np.setdiff1d(np.arange(len(given)), rows)
    assert np.abs(found - classes)[others].max() < 0.15
    changed = relabelled(found, given) != relabelled(classes, given)
    assert changed[others].mean() < 0.02


@pytest.mark.parametrize("weight", [0.2, 3.0])
def test_decisions_correct_a_judge_who_trusts_labels_too_little_or_too_much(weight):
    classes, image, given, clean = judged(weight=weight)
    rows = np.random.default_rng(1).permutation(len(given))[:500]
    found = learn(classes, image, given, of(rows, clean))
    others = np.setdiff1d(np.arange(len(given)), rows)

    def surprise(p):
        return -np.log(np.maximum(p[others, clean[others]], 1e-4)).mean()

    assert surprise(found) < surprise(classes)
    before, after = ((relabelled(p, given) != clean)[others].mean() for p in (classes, found))
    assert after <= before


def test_a_judge_who_trusted_all_labels_learns_that_some_are_wrong():
    _, image, given, clean = judged()
    classes = np.eye(4)[given]
    suspects = np.argsort(image[np.arange(len(given)), given])
    rows = suspects[:300]
    found = learn(classes, image, given, of(rows, clean))
    others = suspects[300:]
    labels = relabelled(found, given)
    assert (labels != clean)[others].sum() < (given != clean)[others].sum()


def test_removed_images_teach_nothing():
    classes, image, given, clean = judged()
    checked = of(np.arange(100), clean)
    checked.removed[:100] = True
    assert not checked.known.any()
    np.testing.assert_array_equal(learn(classes, image, given, checked), classes.astype(np.float32))
    np.testing.assert_array_equal(checked.fixed(given), given)


def test_gain_is_how_likely_a_decision_changes_what_leaves():
    classes = np.array([[0.9, 0.1], [0.6, 0.4], [0.05, 0.95], [0.5, 0.5]])
    given = np.array([0, 0, 0, 1])
    trust = Trust(classes[:, 0], 0.3, classes, classes)
    np.testing.assert_allclose(gain(trust, given), [0.1, 0.4, 0.05, 0.5])
    np.testing.assert_allclose(gain(trust, given, decided_only=True), [0.1, 0.4, 0.95, 0.5])
    assert list(next_to_check(gain(trust, given), np.array([0, 0, 0, 1], bool))) == [1, 0, 2]


def test_labels_that_the_judge_is_all_sure_of_are_ranked_by_their_images():
    image = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    trust = Trust(np.ones(3), 0.0, np.eye(2)[[0, 0, 0]], image)
    found = gain(trust, np.zeros(3, dtype=np.int64))
    assert found.argsort().tolist() == [0, 1, 2]
    assert 0 < found.max() < 0.01


def test_trust_is_taught_with_what_follows_from_it():
    classes, image, given, clean = judged()
    trust = Trust(classes[np.arange(len(given)), given], 0.3, classes, image, np.eye(4))
    rows = np.arange(200)
    checked = of(rows, clean)
    checked.removed[5] = True
    found = taught(trust, given, checked)
    np.testing.assert_array_equal(found.right[rows[6:]], (given == clean)[rows[6:]].astype(float))
    kept = np.arange(len(given)) != 5
    assert found.noise == pytest.approx(1 - found.right[kept].mean())


def test_decisions_in_order_of_gain_leave_fewer_wrong_labels_than_others():
    classes, _, given, clean = judged(n=2000)
    labels = relabelled(classes, given)
    rng = np.random.default_rng(0)

    def left(order):
        wrong = labels != clean
        wrong[order[:200]] = False
        return wrong.sum()

    by_gain = left(np.argsort(-gain(Trust(classes[:, 0], 0.3, classes), given)))
    by_quality = left(np.argsort(classes[np.arange(len(given)), given]))
    assert by_gain < 0.8 * min(by_quality, left(rng.permutation(2000)))
