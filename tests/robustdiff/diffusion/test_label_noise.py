"""Label noise undone, on Gaussian classes whose mixtures have a closed form."""

import numpy as np
import pytest
import torch
from gaussians import gaussian_denoiser

from robustdiff.diffusion import label_noise
from robustdiff.diffusion.guidance import Guidance, guided_denoiser
from robustdiff.diffusion.label_noise import without_label_noise
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, for_labels, per_image
from robustdiff.diffusion.schedules import cosine

CLASSES = ((0.4, 0.3), (-0.3, 0.4), (0.05, 0.5))
K = len(CLASSES)
SYMMETRIC = np.full((K, K), 0.2) + 0.4 * np.eye(K)
CYCLE = 0.7 * np.eye(K) + 0.3 * np.roll(np.eye(K), 1, axis=1)
MIXED = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.0, 0.25, 0.75]])
NOISES = [SYMMETRIC, CYCLE, MIXED]


def logits(x_t, t):
    """log p(x_t | y) for images of independent pixels, up to a constant; classes equally likely."""
    alpha, sigma = (per_image(part, x_t).double() for part in cosine(t))
    each = []
    for m, s in CLASSES:
        variance = alpha**2 * s**2 + sigma**2
        each.append(-0.5 * ((x_t - alpha * m) ** 2 / variance + variance.log()).flatten(1).sum(1))
    return torch.stack(each, 1)


def clean_x_0(x_t, t):
    """E[x_0 | x_t, y] under every class, (B, K, ...)."""
    shaped = per_image(t, x_t)
    return torch.stack([gaussian_denoiser(cosine, m, s)(x_t, shaped) for m, s in CLASSES], 1)


def noisy_model(transition, rows=None):
    """The exact denoiser of images under given labels, and without any."""
    columns = torch.from_numpy(np.hstack([transition, np.ones((K, 1))]))

    def network(x_t, t, labels):
        if rows is not None:
            rows.append(len(labels) // len(x_t))
        x_t, t = (for_labels(part, len(labels)).double() for part in (x_t, t))
        joint = logits(x_t, t).softmax(1) * columns[:, labels].T
        behind = joint / joint.sum(1, keepdim=True)
        return (behind[..., None, None, None] * clean_x_0(x_t, t)).sum(1)

    return Model(network, cosine, PREDICTIONS["x0"], null_class=K)


def points(t=0.6):
    x_t = torch.linspace(-0.6, 0.6, 12, dtype=torch.float64).reshape(6, 1, 1, 2)
    return x_t.float().double(), torch.full((6,), t, dtype=torch.float64)


@pytest.mark.parametrize("transition", NOISES)
def test_the_estimates_are_those_of_the_clean_classes(transition):
    x_t, t = points()
    assert logits(x_t, t).softmax(1).min() > 0.5 / K  # else the quotient is bounded
    model = without_label_noise(noisy_model(transition), transition, logits)
    labels = torch.arange(6) % K
    expected = clean_x_0(x_t, t)[torch.arange(6), labels]
    off = (noisy_model(transition).x_0(x_t, t, labels) - expected).abs().max()
    torch.testing.assert_close(model.x_0(x_t, t, labels), expected, rtol=0, atol=1e-5)
    assert off > 1e-2


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_it_holds_of_what_networks_predict(prediction):
    x_t, t = points()
    plain, to = noisy_model(MIXED), PREDICTIONS[prediction]

    def network(x_t, t, labels):
        x_0 = plain.network(x_t, t, labels)
        x_t, t = (for_labels(part, len(labels)).double() for part in (x_t, t))
        alpha, sigma = (per_image(part, x_t) for part in cosine(t))
        return to.target(x_0, (x_t - alpha * x_0) / sigma, alpha, sigma)

    model = without_label_noise(Model(network, cosine, to, K), MIXED, logits)
    found = model.x_0(x_t, t, torch.arange(6) % K)
    expected = clean_x_0(x_t, t)[torch.arange(6), torch.arange(6) % K]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_many_labels_of_an_image_and_none_are_estimated_side_by_side():
    x_t, t = points()
    model = without_label_noise(noisy_model(MIXED), MIXED, logits)
    labels = torch.tensor([[0, 2, K], [1, K, 0]]).repeat(3, 1)
    found = model.x_0(x_t, t, labels.flatten()).reshape(6, 3, 1, 1, 2)
    without = noisy_model(MIXED).x_0(x_t, t, torch.full((6,), K))
    every = torch.cat([clean_x_0(x_t, t), without[:, None]], 1)
    expected = every[torch.arange(6)[:, None], labels]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    alone = model.x_0(x_t, t, torch.full((6,), K))
    torch.testing.assert_close(alone, without, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("transition", "rows"), [(SYMMETRIC, 2), (CYCLE, 4), (np.eye(K), 2)])
def test_guidance_costs_the_estimates_that_the_noise_needs(transition, rows):
    x_t, t = points()
    seen = []
    model = without_label_noise(noisy_model(transition, seen), transition, logits)
    for weight in (0.0, 1.5):
        guided_denoiser(model, torch.arange(6) % K, Guidance(weight=weight))(x_t, t[0])
    assert seen == [rows, rows]


def test_many_estimates_are_made_piece_by_piece(monkeypatch):
    x_t, t = points()
    labels, sizes = torch.tensor([[0, K], [1, K]]).repeat(3, 1).flatten(), []
    whole = without_label_noise(noisy_model(MIXED), MIXED, logits).x_0(x_t, t, labels)
    monkeypatch.setattr(label_noise, "_AT_ONCE", 2)
    plain = noisy_model(MIXED)

    def network(x_t, t, labels):
        sizes.append(len(labels))
        return plain.network(x_t, t, labels)

    watched = Model(network, plain.schedule, plain.prediction, K)
    found = without_label_noise(watched, MIXED, logits).x_0(x_t, t, labels)
    torch.testing.assert_close(found, whole)
    assert sizes == [12, 12]


def test_right_labels_are_left_alone_however_sure_the_classifier():
    x_t, t = points()
    plain = noisy_model(np.eye(K))
    model = without_label_noise(plain, np.eye(K), lambda x, t: 50 * logits(x, t))
    labels = torch.arange(6) % K
    torch.testing.assert_close(
        model.x_0(x_t, t, labels), plain.x_0(x_t, t, labels), rtol=0, atol=1e-5
    )


def test_labels_that_do_not_tell_classes_apart_cannot_be_undone():
    equal = np.array([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    with pytest.raises(ValueError, match="some classes get nearly the same labels"):
        without_label_noise(noisy_model(MIXED), equal, logits)
