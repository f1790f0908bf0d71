"""Exponential moving average of weights."""

import torch
from torch import Tensor, nn


def ema_decay(decay: float, step: int) -> float:
    """Return the decay at a step: smaller at first, so that the initial weights fade soon."""
    return min(decay, (1 + step) / (10 + step))


@torch.no_grad()
def update_ema(average: nn.Module, model: nn.Module, fade: float | Tensor) -> None:
    """Set `average <- (1 - fade) * average + fade * model`, after the optimiser's step.

    Args:
        average: Same architecture as `model`; changed in place.
        model: The trained network.
        fade: In [0, 1], 1 less the decay; () float32 on the device of the weights if a tensor.
    """
    targets: list[Tensor] = list(average.parameters())
    sources: list[Tensor] = list(model.parameters())
    if isinstance(fade, Tensor):
        change = torch._foreach_sub(sources, targets)
        torch._foreach_mul_(change, fade)
        torch._foreach_add_(targets, change)
    else:
        torch._foreach_lerp_(targets, sources, fade)
