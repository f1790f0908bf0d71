import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from robustdiff.metrics.leave_out import frechet_without
from robustdiff.metrics.resampling import (
    BLOCKS,
    accuracy_interval,
    deal,
    jackknife_interval,
    means_without,
    share_interval,
    without_bias,
)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=200), st.integers(0, 2**63 - 1))
def test_blocks_are_equally_large_and_hold_equally_many_of_every_class(labels, seed):
    labels = torch.tensor(labels)
    before = torch.get_rng_state()
    blocks = deal(labels, seed)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(blocks, deal(labels, seed))
    for part in (blocks, *(blocks[labels == label] for label in range(5))):
        sizes = torch.bincount(part, minlength=BLOCKS)
        assert len(sizes) == BLOCKS
        assert sizes.max() - sizes.min() <= 1


def test_means_without_a_block_are_those_of_the_others():
    values = torch.randn(90, generator=torch.Generator().manual_seed(0))
    blocks = deal(torch.zeros(90, dtype=torch.int64), 0)
    expected = [values.double()[blocks != block].mean() for block in range(BLOCKS)]
    torch.testing.assert_close(means_without(values, blocks), torch.stack(expected))


def one_each(seed):
    return torch.randn(BLOCKS, generator=torch.Generator().manual_seed(seed)).double()


def test_the_interval_of_a_mean_is_students():
    values = one_each(1)
    low, high = jackknife_interval(
        float(values.mean()), means_without(values, torch.arange(BLOCKS))
    )
    expected = stats.ttest_1samp(values.numpy(), 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert jackknife_interval(0.1, torch.rand(BLOCKS), least=0, most=0.2) == (0, 0.2)


def test_a_variance_without_its_bias_is_the_unbiased_one():
    values = one_each(2)
    left = torch.stack([values[torch.arange(BLOCKS) != i].var(correction=0) for i in range(BLOCKS)])
    assert without_bias(float(values.var(correction=0)), left) == pytest.approx(float(values.var()))


@pytest.mark.parametrize(("right", "count"), [(0, 5), (5, 5), (970, 1000), (1, 2)])
def test_the_interval_of_a_share_is_wilsons(right, count):
    expected = stats.binomtest(right, count).proportion_ci(0.95, "wilson")
    assert share_interval(right / count, count) == pytest.approx((expected.low, expected.high))


def test_the_interval_of_an_accuracy_by_one_classifier_is_students_over_images():
    hits = torch.tensor([[True] * 6 + [False] * 4])
    expected = stats.ttest_1samp(hits[0].double().numpy(), 0).confidence_interval(0.95)
    assert accuracy_interval(hits) == pytest.approx((expected.low, expected.high))
    assert accuracy_interval(torch.ones(3, 10, dtype=torch.bool)) == (1, 1)


def test_the_interval_of_an_accuracy_holds_the_spread_of_images_and_of_classifiers():
    right = torch.tensor([[True] * 6 + [False] * 4, [True] * 8 + [False] * 2])
    over_images = np.var([1] * 6 + [0.5] * 2 + [0] * 2, ddof=1) / 10
    over_classifiers = np.var([0.6, 0.8], ddof=1) / 2
    total = over_images + over_classifiers
    degrees = total**2 / (over_images**2 / 9 + over_classifiers**2 / 1)
    low, high = accuracy_interval(right)
    assert high == 1  # it would be larger
    assert low == pytest.approx(0.7 - stats.t.ppf(0.975, degrees) * np.sqrt(total))


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.05])
def test_the_interval_of_an_accuracy_holds_the_truth_as_often_as_it_says(spread):
    """1,000 times: three trainings of differing accuracy, images that are hard to all of them."""
    rng, held = np.random.default_rng(0), []
    for _ in range(1000):
        easy = 0.8 - 0.5 * (rng.random(400) < 0.3)
        hits = rng.random((3, 400)) < easy + spread * rng.standard_normal((3, 1))
        low, high = accuracy_interval(torch.from_numpy(hits))
        held.append(low <= 0.65 <= high)
    assert 0.91 <= np.mean(held) <= 0.99


def closed_form(shift, scales):
    """Frechet distance of N(0, 1) and N(shift, diag(scales^2))."""
    return len(scales) * shift**2 + float((scales - 1).square().sum())


def test_intervals_of_frechet_distances_of_gaussians_hold_the_truth_as_often_as_they_say():
    """200 times: the plain distance and its own mean, the unbiased one and the closed form."""
    dimensions, repetitions, shift = 4, 200, 0.3
    scales = torch.linspace(1, 1.3, dimensions, dtype=torch.float64)
    truth = closed_form(shift, scales)
    plain, unbiased, ends, unbiased_ends = [], [], [], []
    for seed in range(repetitions):
        generator = torch.Generator().manual_seed(seed)
        real, made = (
            torch.randn(count, dimensions, generator=generator, dtype=torch.float64)
            for count in (300, 120)
        )
        labels = torch.zeros(300, dtype=torch.int64), torch.zeros(120, dtype=torch.int64)
        blocks = [deal(part, seed) for part in labels]
        found = frechet_without(real, blocks[0], made * scales + shift, labels[1], blocks[1])
        plain.append(float(found[0]))
        unbiased.append(without_bias(plain[-1], found[1:]))
        ends.append(jackknife_interval(plain[-1], found[1:]))
        unbiased_ends.append(jackknife_interval(unbiased[-1], found[1:]))
    mean = np.mean(plain)
    error = np.std(unbiased) / np.sqrt(repetitions)
    assert mean - truth > 8 * error
    assert abs(np.mean(unbiased) - truth) < 3 * error
    assert 0.88 <= np.mean([low <= mean <= high for low, high in ends]) <= 0.99
    assert 0.88 <= np.mean([low <= truth <= high for low, high in unbiased_ends]) <= 0.99
