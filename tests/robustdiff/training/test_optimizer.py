import copy

import torch
from torch import nn

from robustdiff.training.optimizer import InMemoryOrder, adamw


def trained(network, optimizer):
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for weight in network.parameters():
            weight.grad = torch.empty_like(weight).copy_(
                torch.randn(weight.shape, generator=generator)
            )
        optimizer.step()
    return network, optimizer.state_dict()


def test_adamw_in_the_order_of_memory_is_adamw():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.Conv2d(5, 4, 1), nn.Linear(4, 2))
    network.to(memory_format=torch.channels_last)
    other = copy.deepcopy(network)
    ours = adamw(network, 0.01, spread=False)
    assert isinstance(ours, InMemoryOrder)
    found, state = trained(network, ours)
    wanted, expected = trained(other, torch.optim.AdamW(other.parameters(), lr=0.01))
    for one, two in zip(found.parameters(), wanted.parameters(), strict=True):
        assert one.stride() == two.stride()
        torch.testing.assert_close(one, two)
    assert state["state"].keys() == expected["state"].keys()
    for key, moments in state["state"].items():
        for name, value in moments.items():
            torch.testing.assert_close(value, expected["state"][key][name])
