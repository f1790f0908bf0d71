"""The forward process, and the three equivalent parametrisations of a denoiser."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """Reshape (B,) numbers to (B, 1, 1, 1) in the dtype of `images` for broadcasting."""
    return values.to(images.dtype).reshape(-1, *([1] * (images.ndim - 1)))


def for_labels(part: Tensor, count: int) -> Tensor:
    """Repeat each image's part, (B, ...), for each of its labels: (count, ...), image by image."""
    own = part.shape[0]  # len() would bind an exported graph to one number of images
    return part if own == count else part.repeat_interleave(count // own, dim=0)


def diffuse(x_0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return `x_t = alpha_t x_0 + sigma_t eps`; all arguments broadcast."""
    return alpha * x_0 + sigma * eps


class Prediction(NamedTuple):
    """One parametrisation of the denoiser: its regression target and the way back.

    Attributes:
        target: (x_0, eps, alpha, sigma) -> target of the network's output.
        to_x_0: (output, x_t, alpha, sigma) -> estimate of x_0.
        to_eps: (output, x_t, alpha, sigma) -> estimate of eps.
        eps_error: (alpha, sigma) -> squared error of eps over that of the output.
    """

    target: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_x_0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    to_eps: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    eps_error: Callable[[Tensor, Tensor], Tensor]


def eps_from_x_0(x_0: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Solve `x_t = alpha x_0 + sigma eps` for eps."""
    return (x_t - alpha * x_0) / sigma


def x_0_from_eps(eps: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Solve `x_t = alpha x_0 + sigma eps` for x_0."""
    return (x_t - sigma * eps) / alpha


# v = alpha eps - sigma x_0 (Salimans & Ho 2022): a rotation, so nothing is ever divided by 0.
PREDICTIONS: dict[str, Prediction] = {
    "eps": Prediction(
        target=lambda x_0, eps, alpha, sigma: eps,
        to_x_0=x_0_from_eps,
        to_eps=lambda output, x_t, alpha, sigma: output,
        eps_error=lambda alpha, sigma: torch.ones_like(alpha),
    ),
    "x0": Prediction(
        target=lambda x_0, eps, alpha, sigma: x_0,
        to_x_0=lambda output, x_t, alpha, sigma: output,
        to_eps=eps_from_x_0,
        eps_error=lambda alpha, sigma: (alpha / sigma) ** 2,
    ),
    "v": Prediction(
        target=lambda x_0, eps, alpha, sigma: alpha * eps - sigma * x_0,
        to_x_0=lambda output, x_t, alpha, sigma: alpha * x_t - sigma * output,
        to_eps=lambda output, x_t, alpha, sigma: sigma * x_t + alpha * output,
        eps_error=lambda alpha, sigma: alpha**2,
    ),
}
