"""AdamW that reads weights in the order in which they lie in memory."""

import torch
from torch import Tensor, nn


class InMemoryOrder(torch.optim.AdamW):
    """AdamW for a CPU: the fused kernel copies tensors that lie in channels_last order first.

    It gets views of them instead, whose dimensions have the order of memory. The result is that of
    `AdamW`, and so is the state.
    """

    def _init_group(
        self,
        group: dict[str, object],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        *others: list[Tensor],
    ) -> bool:
        """Collect what a step works on; see `torch.optim.Adam`."""
        found = super()._init_group(  # type: ignore[no-untyped-call]
            group, params, grads, exp_avgs, exp_avg_sqs, *others
        )
        for tensors in (params, grads, exp_avgs, exp_avg_sqs):
            tensors[:] = [_in_memory_order(tensor) for tensor in tensors]
        return bool(found)


def _in_memory_order(tensor: Tensor) -> Tensor:
    last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return tensor.permute(0, 2, 3, 1) if last else tensor


def adamw(network: nn.Module, rate: float, *, spread: bool) -> torch.optim.AdamW:
    """Return AdamW over the weights of a network.

    Args:
        network: On its device.
        rate: Learning rate.
        spread: Whether its weights are spread over processes.
    """
    weights = [*network.parameters()]
    own = weights[0].device.type == "cpu" and not spread
    return (InMemoryOrder if own else torch.optim.AdamW)(weights, lr=rate, fused=True)
