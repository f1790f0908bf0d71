"""Samplers as pure functions: noise in, one state per step out.

A sampler knows a denoiser, a starting point and a grid of noise levels; labels, guidance, clipping,
precision and progress belong to the caller. States are float64: few-step solvers subtract nearly
equal numbers.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from robustdiff.process import eps_from_x_0
from robustdiff.schedules import Grid

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W) float64, t scalar float64) -> estimate of x_0, same shape, float64."""

Noise = Callable[[int], Tensor]
"""Number of the step -> standard normal noise (B, C, H, W)."""


class Sampler(Protocol):
    """What every sampler in `SAMPLERS` accepts."""

    def __call__(
        self, denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float
    ) -> Iterator[Tensor]:
        """Yield the state after each step; `noise` and `v` matter to random samplers only."""


def ancestral(
    denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float
) -> Iterator[Tensor]:
    """Sample by the reverse Markov chain (Ho & Salimans 2022, algorithm 2).

    The step from t to s has the posterior's mean at the predicted x_0 and variance
    `beta_tilde^(1-v) * beta^v` with `beta = 1 - (alpha_t / alpha_s)^2` and
    `beta_tilde = beta * sigma_s^2 / sigma_t^2`. The last step adds no noise.

    Args:
        denoise: See `Denoise`.
        x_t: (B, C, H, W) start at the grid's first level.
        grid: S + 1 levels.
        noise: See `Noise`; called for all steps but the last.
        v: Interpolation of the two variances, in [0, 1].

    Yields:
        (B, C, H, W) float64, the last one is the sample.
    """
    x_t = x_t.double()
    last = len(grid.t) - 2
    for i in range(last + 1):
        x_0 = denoise(x_t, grid.t[i])
        if i == last:
            yield x_0
            return
        alpha_t, sigma_t = grid.alpha[i], grid.sigma[i]
        alpha_s, sigma_s = grid.alpha[i + 1], grid.sigma[i + 1]
        beta = 1 - (alpha_t / alpha_s) ** 2
        mean = (alpha_s * beta * x_0 + (alpha_t / alpha_s) * sigma_s**2 * x_t) / sigma_t**2
        beta_tilde = beta * (sigma_s / sigma_t) ** 2
        std = torch.sqrt(beta_tilde ** (1 - v) * beta**v)
        x_t = mean + std * noise(i).double()
        yield x_t


def ddim(denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float) -> Iterator[Tensor]:
    """Sample by deterministic DDIM (Song et al. 2021, eq. 12 with eta = 0).

    Args and yields as in `ancestral`; `noise` and `v` are not used.
    """
    x_t = x_t.double()
    for i in range(len(grid.t) - 1):
        x_0 = denoise(x_t, grid.t[i])
        eps = eps_from_x_0(x_0, x_t, grid.alpha[i], grid.sigma[i])
        x_t = grid.alpha[i + 1] * x_0 + grid.sigma[i + 1] * eps
        yield x_t


def dpm_solver_2m(
    denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float
) -> Iterator[Tensor]:
    """Sample by the second-order multistep DPM-Solver++ (Lu et al. 2022, algorithm 2).

    One denoiser call per step; the first step and the last one, to sigma = 0, are first order.
    Args and yields as in `ancestral`; `noise` and `v` are not used.
    """
    x_t = x_t.double()
    half_log_snr = torch.log(grid.alpha) - torch.log(grid.sigma)  # +inf at the clean end
    previous = x_t
    steps = len(grid.t) - 1
    for i in range(steps):
        x_0 = denoise(x_t, grid.t[i])
        h = half_log_snr[i + 1] - half_log_snr[i]
        slope_free = x_0
        if 0 < i < steps - 1:
            r = (half_log_snr[i] - half_log_snr[i - 1]) / h
            slope_free = x_0 + (x_0 - previous) / (2 * r)
        x_t = (grid.sigma[i + 1] / grid.sigma[i]) * x_t - grid.alpha[i + 1] * torch.expm1(
            -h
        ) * slope_free
        previous = x_0
        yield x_t


def heun(denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float) -> Iterator[Tensor]:
    """Sample by Heun's method in sigma / alpha (Karras et al. 2022, algorithm 1).

    With `y = x / alpha` and `u = sigma / alpha` the probability-flow ODE is
    `dy/du = (y - x_0(y, u)) / u`. Two denoiser calls per step, one in the last (to u = 0).
    Args and yields as in `ancestral`; `noise` and `v` are not used.
    """
    x_t = x_t.double()
    ratio = grid.sigma / grid.alpha
    last = len(grid.t) - 2
    for i in range(last + 1):
        alpha_t, alpha_s, h = grid.alpha[i], grid.alpha[i + 1], ratio[i + 1] - ratio[i]
        y = x_t / alpha_t
        slope = (y - denoise(x_t, grid.t[i])) / ratio[i]
        x_t = alpha_s * (y + h * slope)
        if i < last:
            slope_s = (x_t / alpha_s - denoise(x_t, grid.t[i + 1])) / ratio[i + 1]
            x_t = alpha_s * (y + h * (slope + slope_s) / 2)
        yield x_t


SAMPLERS: dict[str, Sampler] = {
    "ancestral": ancestral,
    "ddim": ddim,
    "dpm-solver++": dpm_solver_2m,
    "heun": heun,
}


def last(states: Iterator[Tensor]) -> Tensor:
    """Return the final state, holding only one in memory."""
    return deque(states, maxlen=1).pop()
