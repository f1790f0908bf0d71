import math

import pytest
import torch

from robustdiff.metrics.classification import label_accuracy, nll, nll_per_class


def test_nll_of_a_uniform_guess_is_the_logarithm_of_the_number_of_classes():
    assert nll(torch.zeros(6, 10), torch.arange(6)) == pytest.approx(math.log(10))


def test_nll_is_the_mean_negative_log_probability_of_the_asked_class():
    p = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.25, 0.25]], dtype=torch.float64)
    labels = torch.tensor([1, 0])
    expected = -(math.log(0.2) + math.log(0.5)) / 2
    assert nll(p.log() + 3, labels) == pytest.approx(expected, rel=1e-12)


def test_nll_of_a_certain_mistake_is_finite_and_is_the_gap_of_the_logits():
    assert nll(torch.tensor([[5000.0, 0.0]]), torch.tensor([1])) == pytest.approx(5000)


def test_nll_per_class_averages_within_the_asked_class_and_is_none_without_samples():
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 0.0], [5.0, 0.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    first = nll(logits[:2], labels[:2])
    assert nll_per_class(logits, labels, 3) == [
        pytest.approx(first),
        pytest.approx(nll(logits[2:], labels[2:])),
        None,
    ]


def test_label_accuracy_is_the_share_of_hits():
    logits = torch.eye(4)
    assert label_accuracy(logits, torch.tensor([0, 1, 2, 0])) == 0.75


def test_bad_arguments_are_refused_in_one_line():
    logits = torch.zeros(3, 4)
    labels = torch.arange(3)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 4\), got values from 0 to 4"):
        nll(logits, torch.tensor([0, 1, 4]))
    with pytest.raises(ValueError, match=r"labels must be int64 of shape \(3,\), got torch.int32"):
        label_accuracy(logits, labels.int())
    with pytest.raises(ValueError, match=r"logits must have 5 columns, got 4"):
        nll_per_class(logits, labels, 5)
    with pytest.raises(ValueError, match=r"logits must be finite, got 3 of 3 rows"):
        nll(logits / 0, labels)
