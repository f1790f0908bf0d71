import numpy as np
import pytest

from curricula import CURRICULA, CurriculumSampler, Selection
from curricula.scores import class_margin, sieve

GAINS = np.array([[0.0, -0.3, 0.2], [-0.1, 0.0, -0.4]])
GIVEN = np.array([0, 1])
NAN = float("nan")
# Margins of four samples over four rounds; NaN is not measured.
ROUNDS = np.array(
    [
        [1.0, -1.0, 1.0, -1.0],
        [1.0, -1.0, -1.0, 1.0],
        [1.0, -1.0, 1.0, NAN],
        [1.0, -1.0, -1.0, -1.0],
    ]
)


def sampler(name, treatment=None):
    return CurriculumSampler(name, 4, seed=0, selection=Selection(treatment=treatment))


def test_the_margin_is_against_the_best_other_class():
    np.testing.assert_allclose(class_margin(GAINS, GIVEN), [-0.2, 0.1])


def test_the_sieve_compares_with_a_label_drawn_from_the_given_ones():
    # Half the labels are 0, half are 1, none is 2.
    np.testing.assert_allclose(sieve(GAINS, GIVEN), [0.15, 0.05])


def test_area_under_the_margin_is_the_mean_over_the_rounds_that_measured():
    held = sampler("aum")
    for margins in ROUNDS:
        held.update(margins)
    np.testing.assert_allclose(held.scores, [1, -1, 0, -1 / 3])
    np.testing.assert_array_equal(held.trust.right, [1, 0, 1, 0])


def test_forgetting_counts_and_never_learnt_is_worst():
    held = sampler("forgetting", "select")
    for margins in ROUNDS:
        held.update(margins)
    np.testing.assert_allclose(held.scores, [0, -4, -2, -1])


@pytest.mark.parametrize("name", ["aum", "forgetting"])
def test_running_statistics_survive_their_state(name):
    straight, resumed = sampler(name, "select"), sampler(name, "select")
    for margins in ROUNDS[:2]:
        straight.update(margins)
    resumed.load_state_dict(straight.state_dict())
    for margins in ROUNDS[2:]:
        straight.update(margins)
        resumed.update(margins)
    np.testing.assert_array_equal(straight.scores, resumed.scores)


def test_a_running_statistic_takes_one_margin_per_sample():
    held = sampler("aum")
    held.update(ROUNDS[0])
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(4, 2\)"):
        held.update(np.zeros((4, 2)))


def test_which_curricula_know_the_classes():
    assert {name for name, entry in CURRICULA.items() if entry.knows_classes} == {
        "margin",
        "crossfit",
    }
