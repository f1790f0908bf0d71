"""Noise schedules: time t in [0, 1] -> (alpha_t, sigma_t) with alpha_t^2 + sigma_t^2 = 1.

The forward process is `x_t = alpha_t x_0 + sigma_t eps`; t = 0 is (almost) clean, t = 1 is noise.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

Schedule = Callable[[Tensor], tuple[Tensor, Tensor]]

_HALVINGS = 60
# For 6 steps of UniPC on MNIST 1.3 and 1.6 do equally well, 1 (even) and 2 worse.
_POWER = 1.5
# sigma_min of Karras et al. 2022, table 1.
_KARRAS_LEAST = 0.002
# Sampling starts where sigma / alpha is 3,000 at most, where an image cannot be told from noise.
# The cosine has 1e16 at t = 1, which leaves solvers in sigma / alpha nothing but rounding errors.
_LEAST_LOG_SNR = -16.0


def cosine(t: Tensor, s: float = 0.008) -> tuple[Tensor, Tensor]:
    """Evaluate the cosine schedule, read as an amplitude.

    `alpha_t = cos((t + s) / (1 + s) * pi / 2)` (Nichol & Dhariwal 2021, eq. 17, without its
    normalisation by f(0); section 4.2 of the paper, item 5).

    Args:
        t: Times in [0, 1], any shape, float64 recommended.
        s: Offset that keeps a little noise at t = 0.

    Returns:
        (alpha_t, sigma_t), each of the shape and dtype of `t`.
    """
    angle = (t + s) / (1 + s) * (math.pi / 2)
    return torch.cos(angle), torch.sin(angle)


def linear(t: Tensor, beta_min: float = 0.1, beta_max: float = 20.0) -> tuple[Tensor, Tensor]:
    """Evaluate the schedule of linearly growing beta, in continuous time.

    `alpha_t = exp(-(beta_min t + (beta_max - beta_min) t^2 / 2) / 2)`: the limit of the 1000
    betas from 1e-4 to 0.02 (Ho et al. 2020; Song et al. 2021, eq. 33).

    Args:
        t: Times in [0, 1], any shape, float64 recommended.
        beta_min: Rate at t = 0.
        beta_max: Rate at t = 1.

    Returns:
        (alpha_t, sigma_t), each of the shape and dtype of `t`.
    """
    integral = beta_min * t + (beta_max - beta_min) * t**2 / 2
    return torch.exp(-integral / 2), torch.sqrt(-torch.expm1(-integral))


SCHEDULES: dict[str, Schedule] = {
    "cosine": cosine,
    "cosine-paper": partial(cosine, s=0.0008),
    "linear": linear,
}


def log_snr_at(schedule: Schedule, t: Tensor) -> Tensor:
    """Return `lambda = 2 log(alpha_t / sigma_t)`, of the shape of `t`; +inf where sigma_t is 0."""
    alpha, sigma = schedule(t)
    return 2 * (torch.log(alpha) - torch.log(sigma))


def time_at(schedule: Schedule, log_snr: Tensor) -> Tensor:
    """Return the times in [0, 1] of given log-SNRs, by bisection: the inverse of `log_snr_at`.

    Args:
        schedule: Its log-SNR falls with time.
        log_snr: Any shape; values that the schedule does not reach give the nearer end.

    Returns:
        float64 of the shape of `log_snr`, exact to rounding.
    """
    low, high = torch.zeros_like(log_snr, dtype=torch.float64), torch.ones_like(log_snr).double()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        too_clean = log_snr_at(schedule, middle) > log_snr
        low, high = torch.where(too_clean, middle, low), torch.where(too_clean, high, middle)
    return (low + high) / 2


class Grid(NamedTuple):
    """Decreasing noise levels of a sampling run; the last one is the clean image.

    Attributes:
        t: (S + 1,) float64 times, the last is 0.
        alpha: (S + 1,) float64 signal amplitudes, the last is exactly 1.
        sigma: (S + 1,) float64 noise amplitudes, the last is exactly 0.
        schedule: Their schedule.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor
    schedule: Schedule


def even_times(schedule: Schedule, num_steps: int, t_start: float, rho: float) -> Tensor:
    """Place `num_steps` times evenly from `t_start` on, stopping one step short of 0."""
    return torch.linspace(t_start, 0, num_steps + 1, dtype=torch.float64)[:-1]


def power_times(schedule: Schedule, num_steps: int, t_start: float, rho: float) -> Tensor:
    """Place times so that t^(2 / 3) is even: more of few steps where little noise is left."""
    return t_start * even_times(schedule, num_steps, 1.0, rho) ** _POWER


def karras_times(schedule: Schedule, num_steps: int, t_start: float, rho: float) -> Tensor:
    """Place times so that (sigma / alpha)^(1 / rho) is even (Karras et al. 2022, eq. 5).

    From the ratio at `t_start` to 0.002, as there, or to the schedule's own least ratio.
    """
    ends = torch.tensor([t_start, 0.0], dtype=torch.float64)
    high, low = torch.exp(-log_snr_at(schedule, ends) / 2).tolist()
    root = torch.linspace(
        high ** (1 / rho), max(low, _KARRAS_LEAST) ** (1 / rho), num_steps, dtype=torch.float64
    )
    times = time_at(schedule, -2 * rho * torch.log(root))
    times[0] = t_start
    return times


SPACINGS = {"even": even_times, "power": power_times, "karras": karras_times}


def time_grid(
    schedule: Schedule,
    num_steps: int,
    t_start: float,
    *,
    spacing: str = "even",
    rho: float = 7.0,
) -> Grid:
    """Place `num_steps` sampling steps in time from `t_start` to the clean image.

    Args:
        schedule: Maps times to (alpha, sigma).
        num_steps: S, at least 1.
        t_start: First time, in (0, 1]; a time later than that of log-SNR -16 is replaced by it.
        spacing: Key of `SPACINGS`.
        rho: Exponent of the Karras spacing; larger puts more steps at low noise.

    Returns:
        Grid of S + 1 levels.

    Examples:
        >>> grid = time_grid(SCHEDULES["cosine"], 4, 0.8)
        >>> [round(t, 2) for t in grid.t.tolist()]
        [0.8, 0.6, 0.4, 0.2, 0.0]
    """
    latest = float(time_at(schedule, torch.tensor(_LEAST_LOG_SNR, dtype=torch.float64)))
    times = SPACINGS[spacing](schedule, num_steps, min(t_start, latest), rho)
    t = torch.cat([times, torch.zeros(1, dtype=torch.float64)])
    alpha, sigma = schedule(t)
    # The last step removes the noise that the schedule leaves at t = 0.
    alpha[-1], sigma[-1] = 1.0, 0.0
    return Grid(t, alpha, sigma, schedule)
