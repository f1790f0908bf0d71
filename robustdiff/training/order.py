"""The order of an epoch on the device: which samples each batch holds."""

from dataclasses import dataclass

import torch
from torch import Tensor

from curricula import CurriculumSampler
from curricula.permutation import Permutation
from curricula.types import Ints
from robustdiff.parallel import ALONE, Workers


@dataclass(frozen=True)
class ByIndex:
    """An order of which slices are computed when they are read.

    Attributes:
        order: Of the epoch.
        device: Where slices lie.
    """

    order: Permutation
    device: torch.device

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, places: slice) -> Tensor:
        return torch.from_numpy(self.order[places]).to(self.device)


def epoch_order(
    sampler: CurriculumSampler,
    epoch: int,
    given: Ints,
    device: torch.device,
    workers: Workers = ALONE,
) -> Tensor | ByIndex:
    """Return the order of an epoch; batch b of B samples is `order[b * B : (b + 1) * B]`.

    Args:
        sampler: Its state decides, so a later epoch may be asked for before a scoring round only
            if the round does not change it.
        epoch: Number of the epoch.
        given: (N,) int64 labels.
        device: Where the indices are wanted. All are there at once, so that no step waits for its
            batch, but for orders that are computed by index.
        workers: One of each host draws it; all must call this.
    """
    order = workers.on_host(lambda: sampler.order_by_index(epoch, given))
    if isinstance(order, Permutation):
        return ByIndex(order, device)
    return torch.from_numpy(order).to(device)
