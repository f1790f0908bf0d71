"""Exact denoisers of Gaussian data N(m, s^2): the closed forms that samplers are held against."""

import torch

from robustdiff.diffusion.samplers import Denoise
from robustdiff.diffusion.schedules import Schedule


def gaussian_denoiser(schedule: Schedule, m: float, s: float) -> Denoise:
    """E[x_0 | x_t] for x_0 ~ N(m, s^2)."""

    def denoise(x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        alpha, sigma = schedule(t)
        gain = alpha * s**2 / (alpha**2 * s**2 + sigma**2)
        return m + gain * (x_t - alpha * m)

    return denoise
