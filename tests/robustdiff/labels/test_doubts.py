"""What cannot be known is said: data whose truth another truth could have made as well."""

import numpy as np
import pytest
from gaussian_classes import classes_of, draw, symmetric

from robustdiff.labels.decision import decide
from robustdiff.labels.doubts import sentences, unclear_names

K = 4
PAIRFLIP = np.roll(np.eye(K), 1, axis=1)


def pairflip(rate):
    """Each class bears the name of the next one that often."""
    return (1 - rate) * np.eye(K) + rate * PAIRFLIP


@pytest.mark.parametrize("rate", [0.45, 0.55])
def test_which_of_two_names_is_right_is_not_known_about_one_half(rate):
    clean, p = classes_of(8000, K, 5.0)
    given = draw(pairflip(rate)[clean])
    found = decide(p @ pairflip(rate), given)
    (doubt,) = found.doubts
    assert "no method can tell which name is right" in doubt
    for label in range(K):
        assert f"{{{label}}}" in doubt
    # Both truths lie in the interval.
    assert found.low <= 0.45
    assert found.high >= 0.55


def test_data_of_more_than_one_half_is_that_of_less_under_other_names():
    clean, p = classes_of(8000, K, 5.0)
    few = decide(p @ pairflip(0.45), draw(pairflip(0.45)[clean]))
    # The same probabilities and labels, when each class is in truth the one before it.
    before = p @ PAIRFLIP.T
    np.testing.assert_allclose(
        before @ (0.55 * PAIRFLIP + 0.45 * np.eye(K)), 0.55 * p + 0.45 * before
    )
    assert few.doubts


@pytest.mark.parametrize("matrix", [symmetric(K, 0.3), symmetric(K, 0.5), pairflip(0.3)])
def test_ordinary_noise_raises_no_doubt(matrix):
    clean, p = classes_of(6000, K, 3.0)
    assert decide(p @ matrix, draw(matrix[clean])).doubts == ()
    assert decide(p, clean).doubts == ()


def test_two_classes_at_more_than_one_half_are_in_doubt():
    clean, p = classes_of(6000, 2, 4.0)
    found = decide(p @ symmetric(2, 0.6), draw(symmetric(2, 0.6)[clean]))
    assert any("{1} and {0}" in doubt for doubt in found.doubts)
    assert found.high >= 0.6


def test_labels_that_tell_next_to_nothing_are_no_evidence():
    clean, p = classes_of(1300, 10, 3.0)
    given = draw(symmetric(10, 0.8)[clean])
    noise = np.random.default_rng(3).dirichlet(np.full(10, 2.0), 1300)
    found = decide(0.1 * p + 0.9 * noise, given)
    assert found.kind == "no evidence"
    assert (found.low, found.high) == (0, 1)
    assert "hardly better than by their frequencies" in found.doubts[0]


def test_small_classes_are_named():
    given = np.repeat([0, 1, 2], [100, 19, 20])
    (doubt,) = sentences([], given, 3, 0.5)
    assert "fewer than 20 labels a class ({1})" in doubt
    (doubt,) = sentences([], np.arange(9), 9, 0.5)
    assert "({0}, {1}, {2}, {3}, {4} and 4 more)" in doubt


def test_names_are_unclear_where_two_labels_share_most_of_an_image_kind():
    p = np.eye(3)[np.repeat([0, 1, 2], 100)]
    given = np.r_[np.repeat([0, 1], [56, 44]), np.repeat([1, 2], [70, 30]), np.arange(100) % 3]
    ((first, second, more),) = unclear_names(p, given)
    assert (first, second) == (0, 1)
    assert more == pytest.approx(0.12 / 3)
    # Of few images nothing is said.
    assert unclear_names(p[:25], given[:25]) == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("images", [10, 15, 40])
def test_few_clean_labels_stay(images, seed):
    clean, p = classes_of(10 * images, 10, 2.5, seed)
    found = decide(p, clean)
    assert (found.corrected == clean).all()
