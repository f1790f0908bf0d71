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


class Grid(NamedTuple):
    """Decreasing noise levels of a sampling run; the last one is the clean image.

    Attributes:
        t: (S + 1,) float64 times, the last is 0.
        alpha: (S + 1,) float64 signal amplitudes, the last is exactly 1.
        sigma: (S + 1,) float64 noise amplitudes, the last is exactly 0.
    """

    t: Tensor
    alpha: Tensor
    sigma: Tensor


def time_grid(schedule: Schedule, num_steps: int, t_start: float) -> Grid:
    """Place `num_steps` sampling steps evenly in time from `t_start` to the clean image.

    Args:
        schedule: Maps times to (alpha, sigma).
        num_steps: S, at least 1.
        t_start: First time, in (0, 1]; below 1 where alpha_1 = 0 would be divided by.

    Returns:
        Grid of S + 1 levels.
    """
    t = torch.linspace(t_start, 0, num_steps + 1, dtype=torch.float64)
    alpha, sigma = schedule(t)
    # What noise the schedule leaves at t = 0 is removed by the last step.
    alpha[-1], sigma[-1] = 1.0, 0.0
    return Grid(t, alpha, sigma)
