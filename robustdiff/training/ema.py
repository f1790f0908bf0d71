"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn


def ema_decay(decay: float, step: int) -> float:
    """Return the decay at a step: smaller at first, so that the initial weights fade soon."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Set `average <- decay * average + (1 - decay) * model`, after the optimiser's step.

    Args:
        average: Same architecture as `model`; changed in place.
        model: The trained network.
        decay: In [0, 1].
    """
    targets: list[Tensor] = list(average.parameters())
    sources: list[Tensor] = list(model.parameters())
    torch._foreach_lerp_(targets, sources, 1 - decay)
