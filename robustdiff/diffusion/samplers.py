"""Samplers as pure functions: noise in, one state per step out.

A sampler knows a denoiser, a starting point and a grid of noise levels; labels, guidance, clipping,
precision and progress belong to the caller. States are float64: few-step solvers subtract nearly
equal numbers.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from robustdiff.diffusion.process import eps_from_x_0
from robustdiff.diffusion.schedules import Grid, time_at

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W) float64, t scalar float64) -> estimate of x_0, same shape, float64."""

_State = TypeVar("_State")

Noise = Callable[[int], Tensor]
"""Number of the step -> standard normal noise (B, C, H, W)."""


def ancestral(
    denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, v: float = 0.2
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


def ddim(
    denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, eta: float = 0.0
) -> Iterator[Tensor]:
    """Sample by DDIM (Song, Meng & Ermon 2021, eq. 12).

    The step from t to s goes to `alpha_s x_0 + sqrt(sigma_s^2 - std^2) eps` and adds noise of
    `std = eta sqrt(beta_tilde)`, in the notation of `ancestral`: eta = 0 follows the
    probability-flow ODE at first order, eta = 1 is ancestral sampling with v = 0.

    Args and yields as in `ancestral`; `eta` is in [0, 1], and `noise` is not called where it is 0.
    """
    x_t = x_t.double()
    last = len(grid.t) - 2
    for i in range(last + 1):
        x_0 = denoise(x_t, grid.t[i])
        alpha_t, sigma_t = grid.alpha[i], grid.sigma[i]
        alpha_s, sigma_s = grid.alpha[i + 1], grid.sigma[i + 1]
        eps = eps_from_x_0(x_0, x_t, alpha_t, sigma_t)
        beta = 1 - (alpha_t / alpha_s) ** 2
        std = eta * torch.sqrt(beta) * sigma_s / sigma_t
        x_t = alpha_s * x_0 + torch.sqrt((sigma_s**2 - std**2).clamp_min(0)) * eps
        if eta > 0 and i < last:
            x_t = x_t + std * noise(i).double()
        yield x_t


def dpm_solver_2m(denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise) -> Iterator[Tensor]:
    """Sample by the second-order multistep DPM-Solver++ (Lu et al. 2022, algorithm 2).

    One denoiser call per step; the first step and the last one, to sigma = 0, are first order.
    Args and yields as in `ancestral`; `noise` is not called.
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


def heun(denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise) -> Iterator[Tensor]:
    """Sample by Heun's method in sigma / alpha (Karras et al. 2022, algorithm 1).

    With `y = x / alpha` and `u = sigma / alpha` the probability-flow ODE is
    `dy/du = (y - x_0(y, u)) / u`. Two denoiser calls per step, one in the last (to u = 0).
    Args and yields as in `ancestral`; `noise` is not called.
    """
    return edm(denoise, x_t, grid, noise=noise)


def edm(
    denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise, churn: float = 0.0
) -> Iterator[Tensor]:
    """Sample by Heun's method with churn (Karras et al. 2022, algorithm 2).

    Each of S steps first adds noise up to the level `(1 + gamma) u`, with
    `gamma = min(churn / S, sqrt(2) - 1)`, and then goes on as `heun`; churn 0 is `heun`. As in the
    paper's algorithm the first step churns too; S_noise is 1, and all levels are churned.

    Args and yields as in `ancestral`; `churn` is at least 0, and `noise` is not called where it is
    0. With churn, levels between those of the grid are found in its schedule.
    """
    x_t = x_t.double()
    ratio = grid.sigma / grid.alpha
    last = len(grid.t) - 2
    gamma = min(churn / (last + 1), math.sqrt(2) - 1)
    for i in range(last + 1):
        y, t, alpha_t, u = x_t / grid.alpha[i], grid.t[i], grid.alpha[i], ratio[i]
        if gamma > 0:
            u = (1 + gamma) * ratio[i]
            y = y + torch.sqrt(u**2 - ratio[i] ** 2) * noise(i).double()
            t, alpha_t = time_at(grid.schedule, -2 * torch.log(u)), torch.rsqrt(1 + u**2)
        alpha_s, h = grid.alpha[i + 1], ratio[i + 1] - u
        slope = (y - denoise(alpha_t * y, t)) / u
        x_t = alpha_s * (y + h * slope)
        if i < last:
            slope_s = (x_t / alpha_s - denoise(x_t, grid.t[i + 1])) / ratio[i + 1]
            x_t = alpha_s * (y + h * (slope + slope_s) / 2)
        yield x_t


class Sampler(NamedTuple):
    """A sampler with what its callers must know.

    Attributes:
        run: (denoise, x_t, grid, noise=..., and its options) -> state after each step.
        options: Its keyword arguments that `SampleConfig` has entries for.
        calls_per_step: Calls of the denoiser in each step but the last, which makes one.
        spacing: Key of `SPACINGS`, for a grid whose spacing is left open.
    """

    run: Callable[..., Iterator[Tensor]]
    options: tuple[str, ...] = ()
    calls_per_step: int = 1
    spacing: str = "even"


SAMPLERS: dict[str, Sampler] = {
    "ancestral": Sampler(ancestral, ("v",)),
    "ddim": Sampler(ddim, ("eta",)),
    "dpm-solver++": Sampler(dpm_solver_2m),
    "heun": Sampler(heun, calls_per_step=2),
    "edm": Sampler(edm, ("churn",), calls_per_step=2, spacing="karras"),
}


def denoiser_calls(sampler: str, steps: int) -> int:
    """Return how often a sampler of `SAMPLERS` calls the denoiser in a run of `steps` steps."""
    return SAMPLERS[sampler].calls_per_step * (steps - 1) + 1


def last(states: Iterator[_State]) -> _State:
    """Return the final state, holding only one in memory."""
    return deque(states, maxlen=1).pop()
