"""The bound against exact likelihoods, and what a wrong label costs."""

import math

import pytest
import torch

from robustdiff.data.arrays import to_float
from robustdiff.diffusion.likelihood import (
    bounds,
    draw_given,
    level_shares,
    prior_nats,
    reconstruction_nats,
)
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.noise_levels import log_snr_bounds
from robustdiff.diffusion.process import PREDICTIONS, for_labels, per_image
from robustdiff.diffusion.schedules import SCHEDULES

LEVELS = to_float(torch.arange(256)).double()


def gaussian_shares(m, s):
    """A Gaussian on the 256 levels."""
    return torch.softmax(-((LEVELS - m) ** 2) / (2 * s**2), 0)


def exact_model(schedule, classes, distortion=1.0):
    """The posterior mean of pixels that are independent draws from (256,) shares."""

    def network(x_t, t, labels):
        x_t, t = for_labels(x_t, len(labels)), for_labels(t, len(labels))
        alpha, sigma = (per_image(part.double(), x_t.double())[..., None] for part in schedule(t))
        logs = torch.stack(classes)[labels].log()[:, None, None, None]
        weights = torch.softmax(
            logs - (x_t.double()[..., None] - alpha * LEVELS) ** 2 / (2 * sigma**2), -1
        )
        return distortion * (weights @ LEVELS)

    return Model(network, schedule, PREDICTIONS["x0"], null_class=len(classes) - 1)


def draw_images(shares, count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(shares, count * 16, replacement=True, generator=generator)
    return drawn.reshape(count, 1, 4, 4).to(torch.uint8)


def nats(model, images, shares, label=0, num_levels=64):
    labels = {"it": torch.full((len(images),), label)}
    return bounds(model, images, labels, num_levels=num_levels, seed=0, shares=shares)["it"].nats


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("m", "s"), [(0.0, 0.3), (-0.4, 0.02)])
def test_the_bound_is_the_exact_likelihood_under_the_exact_denoiser(schedule, m, s):
    """With posterior means and the levels' true shares nothing is lost: the bound is tight."""
    shares = gaussian_shares(m, s)
    images = draw_images(shares, 100)
    exact = -shares.log()[images.long()].flatten(1).sum(1)
    gap = nats(exact_model(SCHEDULES[schedule], [shares]), images, shares) - exact
    error = float(gap.std()) / math.sqrt(len(gap))
    assert error < 0.02 * float(exact.mean())
    assert abs(float(gap.mean())) < 4 * error


def test_a_wrong_denoiser_costs():
    shares = gaussian_shares(0.0, 0.3)
    images = draw_images(shares, 60)
    exact = -shares.log()[images.long()].flatten(1).sum(1)
    gap = nats(exact_model(SCHEDULES["cosine"], [shares], 0.8), images, shares) - exact
    assert float(gap.mean()) > 10 * float(gap.std()) / math.sqrt(len(gap))


def test_labels_gain_what_they_say_of_the_image():
    """Two classes: -log p(x | c) of each, and the mixture's for none, on equal noise."""
    a, b = gaussian_shares(-0.3, 0.3), gaussian_shares(0.3, 0.3)
    images = draw_images(a, 60)
    model = exact_model(SCHEDULES["cosine"], [a, b, (a + b) / 2])
    labels = {
        name: torch.full((60,), label)
        for name, label in {"true label": 0, "given label": 1, "no label": 2}.items()
    }
    found = bounds(model, images, labels, num_levels=64, seed=0, shares=(a + b) / 2)
    for name, shares in (("true label", a), ("given label", b)):
        exact = (shares / ((a + b) / 2)).log2()[images.long()].flatten(1).sum(1).mean()
        gain = (found["no label"].nats - found[name].nats) / math.log(2)
        error = float(gain.std()) / math.sqrt(60)
        assert abs(float(gain.mean()) - float(exact)) < 4 * error + 0.05


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_the_diffusion_term_of_a_gaussian_is_the_closed_form(schedule):
    """Var(eps | z) = SNR s^2 / (1 + SNR s^2); half of it, integrated over log-SNR."""
    m, images = 0.1, draw_images(gaussian_shares(0.1, 0.3), 300)
    s = float((to_float(images).double() - m).square().mean().sqrt())

    def network(x_t, t, labels):
        alpha, sigma = (per_image(part.double(), x_t.double()) for part in SCHEDULES[schedule](t))
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return m + gain * (x_t.double() - alpha * m)

    model = Model(network, SCHEDULES[schedule], PREDICTIONS["x0"], null_class=0)
    labels = {"it": torch.zeros(300, dtype=torch.int64)}
    shares = gaussian_shares(m, s)
    found = bounds(model, images, labels, num_levels=64, seed=0, shares=shares)["it"].diffusion
    low, high = log_snr_bounds(SCHEDULES[schedule], (-13.0, 13.0))
    exact = 16 * (math.log1p(s**2 * math.exp(high)) - math.log1p(s**2 * math.exp(low))) / 2
    error = float(found.std()) / math.sqrt(300)
    assert error < 0.01 * exact
    assert abs(float(found.mean()) - exact) < 4 * error


def test_equal_images_and_seeds_give_equal_bounds_in_any_company():
    shares = gaussian_shares(0.0, 0.3)
    images = draw_images(shares, 70)  # more than a batch
    model = exact_model(SCHEDULES["cosine"], [shares])
    one = nats(model, images, shares, num_levels=2)
    other = nats(model, images[:10], shares, num_levels=2)
    torch.testing.assert_close(one[:10], other)


def test_the_prior_is_the_divergence_of_gaussians():
    alpha, sigma = torch.tensor(0.3).double(), torch.tensor(0.9).double()
    x_0 = torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 1, 2, 2)
    q = torch.distributions.Normal(alpha * x_0, sigma.expand_as(x_0))
    p = torch.distributions.Normal(torch.zeros_like(x_0), torch.ones_like(x_0))
    expected = torch.distributions.kl_divergence(q, p).flatten(1).sum(1)
    torch.testing.assert_close(prior_nats(x_0, alpha, sigma), expected)


def test_the_decoder_is_a_distribution_over_the_levels():
    shares = level_shares(torch.tensor([0, 0, 3, 255], dtype=torch.uint8))
    assert float(shares.sum()) == pytest.approx(1)
    assert float(shares[0]) == pytest.approx(3 / 260)
    z = torch.full((256, 1, 1, 1), -0.2, dtype=torch.float64)
    levels = torch.arange(256).to(torch.uint8).reshape(256, 1, 1, 1)
    alpha, sigma = torch.tensor(0.8).double(), torch.tensor(0.6).double()
    each = reconstruction_nats(levels, z, alpha, sigma, shares)
    assert float(torch.exp(-each).sum()) == pytest.approx(1)


def test_given_labels_follow_the_matrix():
    transition = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]]).double()
    clean = torch.arange(3).repeat(20_000)
    given = draw_given(clean, transition, seed=5)
    for label in range(3):
        shares = torch.bincount(given[clean == label], minlength=3).double() / 20_000
        torch.testing.assert_close(shares, transition[label], rtol=0, atol=0.015)
    assert torch.equal(given, draw_given(clean, transition, seed=5))
