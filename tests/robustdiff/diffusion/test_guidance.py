"""Guidance on Gaussian data, where every guided score has a closed form."""

import math

import pytest
import torch
from gaussians import gaussian_denoiser
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.config.sections import SampleConfig
from robustdiff.diffusion.generate import generate
from robustdiff.diffusion.guidance import (
    Guidance,
    autoguidance,
    classifier_free,
    classifier_guidance,
    guided_denoiser,
    rescale,
)
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, eps_from_x_0, for_labels, per_image
from robustdiff.diffusion.schedules import cosine

# Two classes and what stands for no label, N(m, s^2) each.
CLASSES = ((0.3, 0.2), (-0.2, 0.3), (0.05, 0.5))
T = torch.tensor(0.55, dtype=torch.float64)


def gaussian_model(classes):
    """A model with the exact denoiser of each class."""

    def network(x_t, t, labels):
        parts = [gaussian_denoiser(cosine, m, s) for m, s in classes]
        x_t, t = (for_labels(part, len(labels)) for part in (x_t, t))
        shaped = per_image(t.double(), x_t.double())
        outputs = torch.stack([part(x_t.double(), shaped) for part in parts])
        return outputs[labels, torch.arange(len(x_t))]

    return Model(network, cosine, PREDICTIONS["x0"], null_class=len(classes) - 1)


def points():
    x_t = torch.linspace(-0.5, 0.5, 8, dtype=torch.float64).reshape(4, 1, 1, 2)
    return x_t.float().double(), torch.tensor([0, 1, 0, 1])


def product_eps(x_t, terms):
    """-sigma times the score of a product of powers of Gaussians' noisy densities.

    A power w of N(alpha m, alpha^2 s^2 + sigma^2) adds w / variance to the precision, and w times
    mean / variance to the precision-weighted mean.
    """
    alpha, sigma = (float(part) for part in cosine(T))
    precision = weighted = 0.0
    for power, (m, s) in terms:
        variance = alpha**2 * s**2 + sigma**2
        precision += power / variance
        weighted += power * alpha * m / variance
    return sigma * (precision * x_t - weighted)


def eps_of(x_0, x_t):
    return eps_from_x_0(x_0, x_t, *cosine(T))


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5])
def test_classifier_free_guidance_is_the_score_of_the_product_of_powers(weight):
    x_t, labels = points()
    denoise = guided_denoiser(gaussian_model(CLASSES), labels, Guidance(weight=weight))
    eps = eps_of(denoise(x_t, T), x_t)
    for label in (0, 1):
        terms = [(1 + weight, CLASSES[label]), (-weight, CLASSES[2])]
        expected = product_eps(x_t, terms)
        torch.testing.assert_close(eps[labels == label], expected[labels == label])


@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_autoguidance_is_the_score_of_strong_over_weak(weight):
    weak = ((0.25, 0.4), (-0.1, 0.45), (0.0, 0.6))
    x_t, labels = points()
    guidance = Guidance(weight=weight, guide=autoguidance(gaussian_model(weak)))
    eps = eps_of(guided_denoiser(gaussian_model(CLASSES), labels, guidance)(x_t, T), x_t)
    for label in (0, 1):
        terms = [(1 + weight, CLASSES[label]), (-weight, weak[label])]
        expected = product_eps(x_t, terms)
        torch.testing.assert_close(eps[labels == label], expected[labels == label])


def counted(model):
    """The model, and a list that receives the rows of each call of its network."""
    rows = []

    def network(x_t, t, labels):
        rows.append(len(labels))
        return model.network(x_t, t, labels)

    return Model(network, model.schedule, model.prediction, model.null_class), rows


@pytest.mark.parametrize("outside", ["null", "given"])
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [8, 8, 8, 8, 8]),
        ({"guidance_interval": (0.3, 0.7)}, [4, 4, 8, 8, 4]),  # at 0.9, 0.72, 0.54, 0.36, 0.18
        ({"guidance_every": 2}, [8, 4, 8, 4, 8]),
        ({"guidance_every": 5}, [8, 4, 4, 4, 4]),
        ({"guidance_interval": (0.3, 0.8), "guidance_every": 2}, [4, 8, 4, 8, 4]),
        ({"guidance_weight": 0.0}, [4, 4, 4, 4, 4]),
    ],
)
def test_a_step_without_a_new_direction_costs_one_branch(settings, expected, outside):
    model, rows = counted(gaussian_model(CLASSES))
    generate(
        model, torch.arange(4) % 2, (1, 2, 2), seed=0,
        sample=SampleConfig(steps=5, t_start=0.9, guidance_outside=outside, **settings),
    )  # fmt: skip
    assert rows == expected


@pytest.mark.parametrize("guide", [classifier_free, autoguidance(gaussian_model(CLASSES[::-1]))])
def test_reused_guidance_is_the_difference_of_v_of_the_call_that_made_it(guide):
    model, labels = gaussian_model(CLASSES), points()[1]
    denoise = guided_denoiser(model, labels, Guidance(weight=1.5, every=3, guide=guide))
    kept = None
    for i, t in enumerate((0.9, 0.8, 0.7, 0.6, 0.5)):
        x_t, time = points()[0] + i / 50, torch.tensor(t, dtype=torch.float64)
        conditional, guided = guide(model, x_t, time.expand(4), labels, 1.5)
        alpha, sigma = cosine(time)
        v, v_guided = (
            alpha * eps_from_x_0(x_0, x_t, alpha, sigma) - sigma * x_0
            for x_0 in (conditional, guided)
        )
        kept = v_guided - v if i % 3 == 0 else kept
        expected = (alpha * x_t - sigma * (v + kept)).clamp(-1, 1)
        torch.testing.assert_close(denoise(x_t, time), expected)
    assert not torch.allclose(expected, guided.clamp(-1, 1))


def test_guidance_of_every_call_is_the_formula_to_the_bit():
    x_t, labels = points()
    model = gaussian_model(CLASSES)
    denoise = guided_denoiser(model, labels, Guidance(weight=0.7, every=1))
    for t in (0.9, 0.5):
        time = torch.tensor(t, dtype=torch.float64)
        both = [model.x_0(x_t, time.expand(4), c) for c in (labels, torch.full_like(labels, 2))]
        expected = ((1 + 0.7) * both[0] - 0.7 * both[1]).clamp(-1, 1)
        assert torch.equal(denoise(x_t, time), expected)


def log_densities(x_t, t):
    """Log p(x_t | c) of both classes, (B, 2)."""
    alpha, sigma = cosine(t.double())
    logs = []
    for m, s in CLASSES[:2]:
        variance = (alpha**2 * s**2 + sigma**2)[:, None]
        square = (x_t.flatten(1) - alpha[:, None] * m).square()
        logs.append((-square / variance - variance.log()).sum(1) / 2)
    return torch.stack(logs, 1)


@pytest.mark.parametrize("weight", [0.3, 1.5])
def test_classifier_guidance_is_bayes(weight):
    """grad log p(c | x) = grad log p(x | c) - grad log p(x): guidance away from the mixture."""
    x_t, labels = points()
    guidance = Guidance(weight=weight, guide=classifier_guidance(log_densities))
    eps = eps_of(guided_denoiser(gaussian_model(CLASSES), labels, guidance)(x_t, T), x_t)
    x = x_t.clone().requires_grad_()
    logs = log_densities(x, T.expand(4))
    own = logs.gather(1, labels[:, None]).sum()
    (score,) = torch.autograd.grad(own, x, retain_graph=True)
    (mixture,) = torch.autograd.grad(logs.logsumexp(1).sum(), x)
    expected = -cosine(T)[1] * ((1 + weight) * score - weight * mixture)
    torch.testing.assert_close(eps, expected)


def test_samples_of_guided_gaussians_have_the_guided_mean():
    """Classes of equal width: guidance moves the mean by w (m - m_null) and keeps the width."""
    model = gaussian_model(((0.2, 0.15), (-0.2, 0.15), (0.1, 0.15)))
    pictures = generate(
        model, torch.arange(3000) % 2, (1, 2, 2), seed=0,
        sample=SampleConfig(sampler="edm", steps=20, guidance_weight=1.0, batch_size=3000),
    )  # fmt: skip
    values = pictures.double() / 127.5 - 1
    for label, mean in ((0, 0.3), (1, -0.5)):
        part = values[label::2].flatten()
        # Steps and 8 bits leave about 0.005.
        assert abs(float(part.mean()) - mean) < 4 * 0.15 / math.sqrt(len(part)) + 0.01
        assert abs(float(part.std()) - 0.15) < 0.01


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.floats(0, 1), st.integers(0, 99))
def test_rescaling_interpolates_the_spread_of_each_image(phi, seed):
    generator = torch.Generator().manual_seed(seed)
    conditional = torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64)
    guided = 2 * torch.randn(3, 2, 4, 4, generator=generator, dtype=torch.float64) + 0.3
    out = rescale(guided, conditional, phi)
    before, wanted = guided.flatten(1).std(1), conditional.flatten(1).std(1)
    torch.testing.assert_close(out.flatten(1).std(1), phi * wanted + (1 - phi) * before)
    direction = out / guided  # a factor for each image, no shift
    torch.testing.assert_close(direction, direction[:, :1, :1, :1].expand_as(out))


@pytest.mark.parametrize("name", PREDICTIONS)
def test_rescaling_is_of_what_the_network_predicts(name):
    """An exact model of v or eps gives what rescaling its own outputs gives."""
    x_t, labels = points()
    exact, prediction = gaussian_model(CLASSES), PREDICTIONS[name]

    def network(x_t, t, labels):
        x_t, t = (for_labels(part, len(labels)) for part in (x_t, t))
        alpha, sigma = (per_image(part, x_t.double()) for part in cosine(t))
        x_0 = exact.x_0(x_t.double(), t, labels)
        return prediction.target(x_0, eps_from_x_0(x_0, x_t, alpha, sigma), alpha, sigma)

    model = Model(network, cosine, prediction, null_class=2)
    found = guided_denoiser(model, labels, Guidance(weight=1.0, rescale=0.7))(x_t, T)
    times = T.expand(4)
    conditional = network(x_t, times, labels)
    guided = 2 * conditional - network(x_t, times, torch.full_like(labels, 2))
    output = rescale(guided, conditional, 0.7)
    torch.testing.assert_close(found, prediction.to_x_0(output, x_t, *cosine(T)).clamp(-1, 1))


def test_rescaled_guidance_of_gaussians_is_the_closed_form_in_the_sampler():
    x_t, labels = points()
    model = gaussian_model(CLASSES)
    denoise = guided_denoiser(model, labels, Guidance(weight=2.0, rescale=0.7))
    conditional, guided = classifier_free(model, x_t, T.expand(4), labels, 2.0)
    # Over the two pixels of an image the estimates differ by their gains alone.
    gains = [
        float(alpha * s**2 / (alpha**2 * s**2 + sigma**2))
        for (_, s), (alpha, sigma) in ((c, cosine(T)) for c in CLASSES)
    ]
    for label in (0, 1):
        factor = gains[label] / (3 * gains[label] - 2 * gains[2])
        which = labels == label
        expected = guided[which] * (0.7 * abs(factor) + 0.3)
        torch.testing.assert_close(denoise(x_t, T)[which], expected.clamp(-1, 1))
    assert not torch.allclose(guided, conditional)


def test_a_constant_image_is_rescaled_without_harm():
    same = torch.full((1, 1, 2, 2), 0.5, dtype=torch.float64)
    assert torch.isfinite(rescale(same, torch.zeros_like(same), 1.0)).all()
