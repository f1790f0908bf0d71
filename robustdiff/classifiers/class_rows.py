"""Values of training images under every class, on their device, read and written by places.

Of many classes a row holds a few, as in `curricula.sparse`, so that no (N, K) array is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from curricula.sparse import KEPT, MOST_DENSE, SparseClasses, unknown


@dataclass(frozen=True)
class CertainRows:
    """Rows that are sure of their label.

    Attributes:
        labels: (N,) int64.
        count: K.
    """

    labels: Tensor
    count: int

    def __getitem__(self, places: Tensor) -> Tensor:
        return F.one_hot(self.labels[places], self.count).float()


@dataclass(frozen=True)
class FewClasses:
    """Rows that hold R classes each.

    Attributes:
        values: (N, R) float32.
        classes: (N, R) int16, or int32 for many classes; distinct in each row.
        rest: (N,) float32, the value of each of the other K - R classes.
        count: K.
    """

    values: Tensor
    classes: Tensor
    rest: Tensor
    count: int

    @classmethod
    def of(cls, rows: SparseClasses, device: torch.device) -> "FewClasses":
        """Copy rows to a device."""
        parts = (rows.values, rows.classes, rows.rest)
        values, classes, rest = (torch.from_numpy(part).to(device) for part in parts)
        return cls(values, classes, rest, rows.count)

    def __getitem__(self, places: Tensor) -> Tensor:
        rest = self.rest[places][:, None].repeat(1, self.count)
        return rest.scatter(1, self.classes[places].long(), self.values[places])

    def __setitem__(self, places: Tensor, dense: Tensor) -> None:
        """Keep the largest values of (B, K) and the mean of the others, whose sum stays."""
        values, classes = dense.topk(self.values.shape[1], dim=1)
        left = max(self.count - self.values.shape[1], 1)
        self.values[places], self.classes[places] = values, classes.to(self.classes.dtype)
        self.rest[places] = (dense.sum(1) - values.sum(1)).clamp_min(0) / left

    def state(self) -> dict[str, Tensor]:
        """Return what changes."""
        return {"values": self.values, "classes": self.classes, "rest": self.rest}


def target_rows(
    targets: Tensor | SparseClasses, count: int, device: torch.device
) -> Tensor | CertainRows | FewClasses:
    """Return targets of which `[places]` are (B, K) float32 probabilities on a device.

    Args:
        targets: (N,) int64 labels, or (N, K) probabilities.
        count: K.
        device: Where they are read.
    """
    if isinstance(targets, SparseClasses):
        return FewClasses.of(targets, device)
    if targets.ndim == 1:
        return CertainRows(targets.to(device), count)
    return targets.float().to(device)


def zero_rows(rows: int, count: int, device: torch.device) -> Tensor | FewClasses:
    """Return (N, K) zeros to read and to write; of many classes each row keeps the largest."""
    if count <= MOST_DENSE:
        return torch.zeros(rows, count, device=device)
    found = FewClasses.of(unknown(rows, count), device)
    found.values.zero_()
    found.rest.zero_()
    found.classes[:] = torch.arange(KEPT, device=device)
    return found


def plain(rows: Tensor | FewClasses) -> Tensor | dict[str, Tensor]:
    """Return what a file keeps of rows."""
    return rows.state() if isinstance(rows, FewClasses) else rows


def restore(rows: Tensor | FewClasses, kept: Any) -> None:  # noqa: ANN401 as `plain` returned it
    """Take over what `plain` returned of rows of the same shape."""
    if isinstance(rows, FewClasses):
        assert isinstance(kept, Mapping)
        for name, part in rows.state().items():
            part.copy_(kept[name])
    else:
        rows.copy_(kept)
