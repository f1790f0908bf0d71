from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_fscore_support, roc_auc_score

from robustdiff.metrics.detection import calibration_error, detection


def test_a_score_that_trusts_only_right_labels_is_perfect_and_its_negative_the_worst():
    flipped = torch.tensor([True, False, False, True, False])
    score = torch.tensor([-7.0, 2.0, 3.0, -9.0, 40.0])
    assert detection(score, flipped) == {
        "auroc": 1,
        "average_precision": 1,
        "precision_at_rate": 1,
    }
    worst = detection(-score, flipped)
    assert worst["auroc"] == 0
    assert worst["precision_at_rate"] == 0
    # Both wrong labels come last: precision 1/4 and 2/5 when they are found.
    assert worst["average_precision"] == pytest.approx((1 / 4 + 2 / 5) / 2)


def test_auroc_and_average_precision_equal_sklearn_for_scores_outside_the_unit_interval():
    rng = np.random.default_rng(0)
    flipped = rng.random(400) < 0.3
    score = 50 * rng.normal(size=400) - 30 * flipped
    result = detection(torch.from_numpy(score), torch.from_numpy(flipped))
    assert result["auroc"] == pytest.approx(roc_auc_score(flipped, -score))
    assert result["average_precision"] == pytest.approx(average_precision_score(flipped, -score))


def test_a_constant_score_is_chance():
    flipped = torch.arange(50) < 15
    result = detection(torch.zeros(50), flipped)
    assert result["auroc"] == 0.5
    assert result["average_precision"] == pytest.approx(0.3)
    assert result["precision_at_rate"] == pytest.approx(0.3)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=2, max_size=6))
def test_precision_at_rate_is_the_mean_over_all_ways_to_break_ties(rows):
    scores, flags = zip(*rows, strict=True)
    result = detection(torch.tensor(scores).double(), torch.tensor(flags))
    count = sum(flags)
    if count in (0, len(flags)):
        assert result is None
        return
    orders = [
        sum(flags[i] for i in order[:count]) / count
        for order in permutations(range(len(flags)))
        if all(scores[a] <= scores[b] for a, b in pairwise(order))
    ]
    assert result["precision_at_rate"] == pytest.approx(sum(orders) / len(orders))


def test_nothing_is_reported_when_all_labels_are_right_or_all_are_wrong():
    score = torch.arange(4.0)
    assert detection(score, torch.zeros(4, dtype=torch.bool)) is None
    assert detection(score, torch.ones(4, dtype=torch.bool)) is None


@pytest.mark.parametrize(
    ("score", "flipped", "message"),
    [
        (torch.tensor([1.0, float("nan")]), torch.tensor([True, False]), r"got 1 of 2 values NaN"),
        (torch.zeros(3), torch.tensor([True, False]), r"of shape \(2,\), got .* shape \(3,\)"),
        (torch.arange(2), torch.tensor([True, False]), r"floating point .* got torch.int64"),
        (torch.zeros(2), torch.tensor([1, 0]), r"flipped must be bool"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(score, flipped, message):
    with pytest.raises(ValueError, match=message) as caught:
        detection(score, flipped)
    assert "\n" not in str(caught.value)


def test_calibration_error_is_the_mean_distance_of_the_bins():
    right, truth = np.repeat([0.2, 0.8], 150), np.arange(300) % 10 < np.repeat([2, 5], 150)
    # Off by nothing in the lower half and by .3 in the upper.
    assert calibration_error(right, truth, bins=2) == pytest.approx(0.15)
    assert calibration_error(right[::-1], truth[::-1], bins=2) == pytest.approx(0.15)
    truth = np.arange(300) < 150
    assert calibration_error(truth.astype(float), truth) == 0
    assert calibration_error(1.0 - truth, truth, bins=2) == 1


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=30))
def test_the_figures_of_the_flag_are_those_of_scikit_learn(pairs):
    flipped, flagged = map(torch.tensor, zip(*pairs, strict=True))
    found = detection(torch.zeros(len(pairs)), flipped, flagged)
    if found is None:
        assert flipped.all() or not flipped.any()
        return
    expected = precision_recall_fscore_support(
        flipped.numpy(), flagged.numpy(), average="binary", zero_division=0
    )
    flag = (found["flag_precision"], found["flag_recall"], found["flag_f1"])
    assert flag == pytest.approx(expected[:3])


def test_a_flag_of_another_kind_is_refused():
    flipped = torch.tensor([True, False])
    with pytest.raises(ValueError, match=r"flagged must be bool of shape \(2,\), got torch.int64"):
        detection(torch.zeros(2), flipped, torch.tensor([1, 0]))
