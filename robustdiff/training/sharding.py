"""FSDP2: weights, gradients and optimiser spread over processes, whole in checkpoints.

Checkpoints hold the same whole tensors with and without sharding, so a run that was saved by two
processes goes on with one or four, sharded or not.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def spread(network: nn.Module, parts: list[nn.Module], size: int) -> None:
    """Spread a network's weights over all processes, in place.

    Args:
        network: The same in every process.
        parts: Its largest submodules; each is gathered for its own forward and backward pass.
        size: Number of processes.
    """
    # Parameters are cut along their first dimension, which channels_last weights do not allow.
    for parameter in network.parameters():
        parameter.data = parameter.data.contiguous()
    device = next(network.parameters()).device.type
    mesh = init_device_mesh(device, (size,))
    for part in (*parts, network):
        fully_shard(part, mesh=mesh)


def whole_weights(network: nn.Module, *, everywhere: bool = False) -> dict[str, Any]:
    """Return whole weights; all processes must call it.

    Args:
        network: A spread one.
        everywhere: In each process, instead of on the CPU of the first one and {} in the others.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=not everywhere)
    return get_model_state_dict(network, options=options)


def whole_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's whole state, as its `state_dict` would without sharding."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    content: dict[str, Any] = get_optimizer_state_dict(network, optimizer, options=options)
    if not content:
        return {}
    names = _names(network)
    groups = [{**group, "params": list(range(len(names)))} for group in content["param_groups"]]
    state = {number: content["state"][name] for number, name in enumerate(names)}
    return {"state": state, "param_groups": groups}


def load_weights(network: nn.Module, weights: dict[str, Any]) -> None:
    """Load whole weights, the same in every process, into a spread network."""
    set_model_state_dict(network, weights, options=StateDictOptions(full_state_dict=True))


def load_optimizer(
    network: nn.Module, optimizer: torch.optim.Optimizer, content: dict[str, Any]
) -> None:
    """Load what `whole_optimizer` returned, or an unsharded `state_dict`."""
    names = _names(network)
    named: dict[str, Any] = {
        "state": {names[number]: value for number, value in content["state"].items()},
        "param_groups": [{**group, "params": names} for group in content["param_groups"]],
    }
    set_optimizer_state_dict(
        network, optimizer, named, options=StateDictOptions(full_state_dict=True)
    )


def _names(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters()]
