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
    return _multistep(denoise, x_t, grid, corrected=False)


def unipc(denoise: Denoise, x_t: Tensor, grid: Grid, *, noise: Noise) -> Iterator[Tensor]:
    """Sample by the second-order UniPC of data prediction (Zhao et al. 2023, B_2(h) = e^h - 1).

    DPM-Solver++ with a corrector: once the estimate of x_0 at the end of a step is there, which the
    next step needs anyway, the step is made again with it. So one denoiser call per step is third
    order, but for the last step. Args and yields as in `ancestral`, states before their correction;
    `noise` is not called.
    """
    return _multistep(denoise, x_t, grid, corrected=True)


def _multistep(denoise: Denoise, x_t: Tensor, grid: Grid, *, corrected: bool) -> Iterator[Tensor]:
    """Predict each state by the last two estimates of x_0, and correct it by the one made there."""
    x_t = before = x_t.double()
    half_log_snr = torch.log(grid.alpha) - torch.log(grid.sigma)  # +inf at the clean end
    steps, used = len(grid.t) - 1, 1
    latest: list[tuple[Tensor, Tensor]] = []
    for i in range(steps):
        here = half_log_snr[i], denoise(x_t, grid.t[i])
        if corrected and i > 0:
            x_t = _exponential_step(before, grid, i - 1, half_log_snr[i], [*latest[:used], here])
        latest = [here, *latest[:1]]
        before, used = x_t, 2 if 0 < i < steps - 1 else 1
        x_t = _exponential_step(before, grid, i, half_log_snr[i + 1], latest[:used])
        yield x_t


def _exponential_step(
    x_t: Tensor, grid: Grid, i: int, end: Tensor, estimates: list[tuple[Tensor, Tensor]]
) -> Tensor:
    """Go from level i to the next, whose half log-SNR is `end`.

    `x_s = sigma_s / sigma_t x_t + alpha_s (1 - e^-h) mean`, where the mean of x_0 over the step is
    weighted by `e^(h tau)`, tau from 0 to 1. Estimates are (half log-SNR, x_0), that at i first.
    """
    (start, x_0), *others = estimates
    h = end - start
    ratios = [(level - start) / h for level, _ in others]
    mean = x_0
    for (_, other), ratio, share in zip(others, ratios, _shares(ratios, h), strict=True):
        mean = mean + share * (other - x_0) / ratio
    decay = grid.sigma[i + 1] / grid.sigma[i]
    return decay * x_t - grid.alpha[i + 1] * torch.expm1(-h) * mean


def _shares(ratios: list[Tensor], h: Tensor) -> list[Tensor]:
    """Return the shares of differences in a step's mean (the a_m of Zhao et al. 2023).

    Over the polynomial through (0, 0) and (ratio_k, d_k), the mean of `_exponential_step` is
    `sum_k share_k d_k / ratio_k`: so `sum_k share_k ratio_k^(j - 1)` is the mean of tau^j. A single
    difference has 1 / 2, the limit of short steps.
    """
    count = len(ratios)
    if count < 2:
        return [torch.full_like(h, 0.5)] * count
    moments = [-torch.expm1(-h)]
    for j in range(1, count + 1):
        moments.append(1 - j / h * moments[-1])
    powers = torch.stack(ratios) ** torch.arange(count)[:, None]
    means = torch.stack(moments[1:]) / moments[0]
    return list(torch.linalg.solve(powers, means).unbind())


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
    "unipc": Sampler(unipc, spacing="power"),
    "heun": Sampler(heun, calls_per_step=2),
    "edm": Sampler(edm, ("churn",), calls_per_step=2, spacing="karras"),
}


def denoiser_calls(sampler: str, steps: int) -> int:
    """Return how often a sampler of `SAMPLERS` calls the denoiser in a run of `steps` steps."""
    return SAMPLERS[sampler].calls_per_step * (steps - 1) + 1


def last(states: Iterator[_State]) -> _State:
    """Return the final state, holding only one in memory."""
    return deque(states, maxlen=1).pop()
