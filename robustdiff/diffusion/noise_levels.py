"""Which noise levels training sees and how much each counts: p(lambda) and loss weights.

`lambda = log_snr = 2 log(alpha_t / sigma_t)`. Losses are compared as squared errors of eps: that of
x_0 and of v is the same error times a known function of lambda (`Prediction.eps_error`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from robustdiff.diffusion.process import Prediction
from robustdiff.diffusion.schedules import Schedule, log_snr_at, time_at

Bounds = tuple[float, float]

# ln(sigma / alpha) ~ N(-1.2, 1.2^2) of Karras et al. 2022, table 1, in terms of lambda.
_NORMAL_MEAN, _NORMAL_STD = 2.4, 2.4


def log_snr_bounds(schedule: Schedule, wanted: Bounds) -> Bounds:
    """Return the part of a range of log-SNRs that a schedule reaches."""
    ends = log_snr_at(schedule, torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()
    return max(wanted[0], ends[0]), min(wanted[1], ends[1])


class LogSnrDistribution(NamedTuple):
    """A distribution of log-SNRs between bounds.

    Attributes:
        quantile: (u in (0, 1), bounds) -> lambda, falling in u, as lambda falls in time.
        density: (lambda, bounds) -> p(lambda).
    """

    quantile: Callable[[Tensor, Bounds], Tensor]
    density: Callable[[Tensor, Bounds], Tensor]


def _secant_angles(bounds: Bounds) -> Bounds:
    start = math.atan(math.exp(-bounds[1] / 2))
    return start, math.atan(math.exp(-bounds[0] / 2)) - start


def _secant_quantile(u: Tensor, bounds: Bounds) -> Tensor:
    start, width = _secant_angles(bounds)
    log_snr: Tensor = -2 * torch.log(torch.tan(width * u + start))
    return log_snr


def _secant_density(log_snr: Tensor, bounds: Bounds) -> Tensor:
    # d/dlambda arctan(exp(-lambda / 2)) = -1 / (4 cosh(lambda / 2))
    density: Tensor = 1 / (4 * torch.cosh(log_snr / 2) * _secant_angles(bounds)[1])
    return density


def _normal_mass(bounds: Bounds) -> tuple[Tensor, Tensor]:
    ends = (torch.tensor(bounds, dtype=torch.float64) - _NORMAL_MEAN) / _NORMAL_STD
    low, high = torch.special.ndtr(ends)
    return high, high - low


def _normal_quantile(u: Tensor, bounds: Bounds) -> Tensor:
    top, mass = _normal_mass(bounds)
    log_snr: Tensor = _NORMAL_MEAN + _NORMAL_STD * torch.special.ndtri(top.to(u) - mass.to(u) * u)
    return log_snr


def _normal_density(log_snr: Tensor, bounds: Bounds) -> Tensor:
    z = (log_snr - _NORMAL_MEAN) / _NORMAL_STD
    scale = _normal_mass(bounds)[1].to(log_snr) * _NORMAL_STD * math.sqrt(2 * math.pi)
    return torch.exp(-(z**2) / 2) / scale


# p(lambda) of algorithm 1, line 4, other than that of uniform times.
LOG_SNR_DISTRIBUTIONS: dict[str, LogSnrDistribution] = {
    # Hyperbolic secant: uniform times of a cosine schedule (Ho & Salimans 2022, section 4).
    "cosine": LogSnrDistribution(_secant_quantile, _secant_density),
    "log-snr-uniform": LogSnrDistribution(
        lambda u, bounds: bounds[1] + (bounds[0] - bounds[1]) * u,
        lambda log_snr, bounds: torch.full_like(log_snr, 1 / (bounds[1] - bounds[0])),
    ),
    "log-snr-normal": LogSnrDistribution(_normal_quantile, _normal_density),
}


@dataclass(frozen=True, kw_only=True)
class NoiseLevels:
    """How noise levels are drawn and weighed.

    Attributes:
        time_sampling: "uniform" draws times evenly; keys of `LOG_SNR_DISTRIBUTIONS` draw log-SNRs.
        log_snr_range: (low, high) log-SNRs between which they are drawn, as far as the schedule
            reaches; also those that loss weight "sigmoid" counts.
        loss_weight: "none", "min-snr" or "sigmoid"; see `loss_weights`.
        min_snr: gamma of loss weight "min-snr".
        sigmoid_bias: b of loss weight "sigmoid".
    """

    time_sampling: str = "uniform"
    log_snr_range: Bounds = (-20.0, 20.0)
    loss_weight: str = "none"
    min_snr: float = 5.0
    sigmoid_bias: float = 2.0


def training_times(u: Tensor, schedule: Schedule, levels: NoiseLevels) -> Tensor:
    """Draw the times of a batch (algorithm 1, line 4).

    Args:
        u: (B,) uniform random numbers in (0, 1).
        schedule: The noise schedule.
        levels: For `time_sampling` and `log_snr_range`.

    Returns:
        (B,) times in [0, 1].
    """
    if levels.time_sampling == "uniform":
        return u
    bounds = log_snr_bounds(schedule, levels.log_snr_range)
    quantile = LOG_SNR_DISTRIBUTIONS[levels.time_sampling].quantile
    return time_at(schedule, quantile(u, bounds))


def log_snr_density(t: Tensor, schedule: Schedule, levels: NoiseLevels) -> Tensor:
    """Return p(lambda) of `training_times` at the log-SNRs of (B,) times, (B,)."""
    if levels.time_sampling == "uniform":
        with torch.enable_grad():
            x = t.detach().requires_grad_()
            (slope,) = torch.autograd.grad(log_snr_at(schedule, x).sum(), x)
        return -1 / slope
    bounds = log_snr_bounds(schedule, levels.log_snr_range)
    return LOG_SNR_DISTRIBUTIONS[levels.time_sampling].density(log_snr_at(schedule, t), bounds)


def loss_weights(
    t: Tensor, schedule: Schedule, prediction: Prediction, levels: NoiseLevels
) -> Tensor | None:
    """Return the weights of the squared errors of a network's outputs.

    "min-snr" weighs the error of eps by `min(1, gamma / SNR)`, that of x_0 by `min(SNR, gamma)` and
    that of v by `min(SNR, gamma) / (SNR + 1)` (Hang et al. 2023, section 3.4). "sigmoid" weighs the
    error of eps by `sigmoid(b - lambda) / p(lambda)` within `log_snr_range`, so that the loss is
    the same integral over lambda however times are drawn (Kingma & Gao 2023, section 3 and D).

    Args:
        t: (B,) times of `training_times`.
        schedule: The noise schedule.
        prediction: What the network predicts.
        levels: For `loss_weight` and its settings.

    Returns:
        (B,), or None for the plain error of the network's own prediction.
    """
    if levels.loss_weight == "none":
        return None
    log_snr = log_snr_at(schedule, t)
    if levels.loss_weight == "min-snr":
        weights = (levels.min_snr * torch.exp(-log_snr)).clamp_max(1)
    else:
        low, high = levels.log_snr_range
        weights = torch.sigmoid(levels.sigmoid_bias - log_snr)
        weights = weights / log_snr_density(t, schedule, levels)
        weights = torch.where((log_snr >= low) & (log_snr <= high), weights, 0)
    return weights * prediction.eps_error(*schedule(t))
