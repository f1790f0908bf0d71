"""Continuous noise levels: distributions of log-SNR, and weights in every parametrisation."""

import math

import pytest
import torch

from robustdiff.diffusion.noise_levels import (
    LOG_SNR_DISTRIBUTIONS,
    NoiseLevels,
    log_snr_bounds,
    log_snr_density,
    loss_weights,
    training_times,
)
from robustdiff.diffusion.process import PREDICTIONS, diffuse, eps_from_x_0, per_image
from robustdiff.diffusion.schedules import SCHEDULES, cosine, log_snr_at

SAMPLINGS = ["uniform", *LOG_SNR_DISTRIBUTIONS]
NARROW = (-6.0, 7.0)


def even(count, low=0.0, high=1.0):
    """Middles of equal parts of an interval."""
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_the_density_is_that_of_the_drawn_log_snrs(name, schedule):
    """For lambda(u) with u uniform, p(lambda) = |du / dlambda|."""
    levels = NoiseLevels(time_sampling=name, log_snr_range=NARROW)
    u = even(4000)[40:-40]
    t = training_times(u, SCHEDULES[schedule], levels)
    log_snr = log_snr_at(SCHEDULES[schedule], t)
    assert (torch.diff(log_snr) < 0).all()
    middle = (t[2:] - t[:-2]).abs() > 0
    slope = (u[2:] - u[:-2]) / (log_snr[:-2] - log_snr[2:])
    density = log_snr_density(t, SCHEDULES[schedule], levels)[1:-1]
    torch.testing.assert_close(slope[middle], density[middle], rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("name", LOG_SNR_DISTRIBUTIONS)
def test_densities_have_mass_1_and_stay_in_bounds(name):
    drawn = LOG_SNR_DISTRIBUTIONS[name]
    log_snr = even(20_000, *NARROW)
    mass = float(drawn.density(log_snr, NARROW).mean() * (NARROW[1] - NARROW[0]))
    assert abs(mass - 1) < 1e-6
    ends = drawn.quantile(torch.tensor([1e-12, 1 - 1e-12], dtype=torch.float64), NARROW)
    torch.testing.assert_close(ends.tolist(), [NARROW[1], NARROW[0]], rtol=1e-4, atol=1e-4)


def test_secant_log_snrs_are_uniform_times_of_the_cosine_schedule():
    u = even(100)
    levels = NoiseLevels(time_sampling="cosine", log_snr_range=(-50, 50))
    torch.testing.assert_close(training_times(u, cosine, levels), u, rtol=0, atol=1e-9)


def test_normal_log_snrs_are_the_log_normal_ratios_of_edm():
    levels = NoiseLevels(time_sampling="log-snr-normal", log_snr_range=(-50, 50))
    t = training_times(even(20_000), SCHEDULES["linear"], levels)
    alpha, sigma = SCHEDULES["linear"](t)
    log_ratio = torch.log(sigma / alpha)
    assert abs(float(log_ratio.mean()) + 1.2) < 0.01
    assert abs(float(log_ratio.std()) - 1.2) < 0.01


def test_bounds_are_cut_to_what_the_schedule_reaches():
    low, high = log_snr_bounds(cosine, (-20.0, 20.0))
    assert low == -20
    assert high == pytest.approx(-2 * math.log(math.tan(0.008 / 1.008 * math.pi / 2)))


@pytest.mark.parametrize("weight", ["min-snr", "sigmoid"])
@pytest.mark.parametrize("name", SAMPLINGS)
def test_a_weighted_loss_does_not_depend_on_the_parametrisation(weight, name):
    """One estimate of x_0, given as eps, x_0 or v, has one loss."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps, estimate = torch.randn(3, 6, 1, 2, 2, generator=generator, dtype=torch.float64)
    levels = NoiseLevels(loss_weight=weight, time_sampling=name, log_snr_range=NARROW)
    t = training_times(even(6), cosine, levels)
    alpha, sigma = (per_image(part, x_0) for part in cosine(t))
    x_t = diffuse(x_0, eps, alpha, sigma)
    losses = []
    for prediction in PREDICTIONS.values():
        implied_eps = eps_from_x_0(estimate, x_t, alpha, sigma)
        output = prediction.target(estimate, implied_eps, alpha, sigma)
        error = (output - prediction.target(x_0, eps, alpha, sigma)).square().flatten(1).mean(1)
        losses.append(loss_weights(t, cosine, prediction, levels) * error)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(losses[0], losses[2])


def test_min_snr_weights_are_those_of_the_paper():
    levels = NoiseLevels(loss_weight="min-snr", min_snr=5.0)
    t = even(50)
    snr = torch.exp(log_snr_at(cosine, t))
    least = snr.clamp_max(5.0)
    expected = {"eps": least / snr, "x0": least, "v": least / (snr + 1)}
    for name, prediction in PREDICTIONS.items():
        torch.testing.assert_close(loss_weights(t, cosine, prediction, levels), expected[name])


@pytest.mark.parametrize("bias", [-1.0, 2.0])
def test_the_sigmoid_loss_is_one_integral_however_times_are_drawn(bias):
    """Mean of sigmoid(b - lambda) / p(lambda) = integral of sigmoid(b - lambda)."""
    low, high = NARROW
    exact = math.log1p(math.exp(bias - low)) - math.log1p(math.exp(bias - high))
    for name in SAMPLINGS:
        levels = NoiseLevels(
            loss_weight="sigmoid", sigmoid_bias=bias, time_sampling=name, log_snr_range=NARROW
        )
        t = training_times(even(100_000), cosine, levels)
        mean = float(loss_weights(t, cosine, PREDICTIONS["eps"], levels).mean())
        assert mean == pytest.approx(exact, rel=2e-3), name


def test_the_plain_loss_has_no_weights():
    t = even(5)
    assert loss_weights(t, cosine, PREDICTIONS["v"], NoiseLevels()) is None
    assert training_times(t, cosine, NoiseLevels()) is t
