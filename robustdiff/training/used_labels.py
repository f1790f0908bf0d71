"""The labels that training uses in place of the given ones, on the device."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from curricula import Labels
from curricula.sparse import SparseClasses, held
from robustdiff.rng import Stream, uniform


@dataclass(frozen=True)
class TrainingLabels:
    """The labels that training uses.

    Attributes:
        labels: (N,) int64 in [0, K]; K is no label.
        weights: (N,) float32 weights of the samples' losses, or None for equal ones.
        cumulative: (N, K) or (N, R) cumulative probabilities that each step draws labels from, or
            None to use `labels`.
        classes: (N, R) the classes of the latter; None where all are there.
        count: K, where it is needed.
    """

    labels: Tensor
    weights: Tensor | None
    cumulative: Tensor | None
    classes: Tensor | None = None
    count: int = 0

    @classmethod
    def of(cls, labels: Labels, device: torch.device) -> Self:
        """Move a treatment's outcome to a device."""
        weights, soft = labels.weights, labels.soft
        few = soft if isinstance(soft, SparseClasses) else None
        return cls(
            torch.from_numpy(labels.labels).to(device),
            None if weights is None else torch.from_numpy(weights).float().to(device),
            None if soft is None else torch.from_numpy(held(soft).cumsum(axis=1)).to(device),
            None if few is None else torch.from_numpy(few.classes).to(device),
            0 if few is None else few.count,
        )

    def draw(self, index: Tensor, seed: int, step: int) -> Tensor:
        """Return labels of some samples at a step, (B,) int64."""
        if self.cumulative is None:
            return self.labels[index]
        goal = uniform(seed, Stream.SOFT_LABEL, step, index)[:, :1]
        cumulative = self.cumulative[index]
        drawn = (goal >= cumulative).sum(1)
        # The probabilities may sum to a little less than 1.
        place = drawn.clamp_max(cumulative.shape[1] - 1)
        if self.classes is None:
            return place
        kept = self.classes[index].long()
        inside, left = kept.gather(1, place[:, None])[:, 0], self.count - kept.shape[1]
        if not left:
            return inside
        # What is left of the goal chooses among the classes left out, which are equally likely.
        total = cumulative[:, -1:].double()
        share = ((goal - total) / (1 - total).clamp_min(1e-12))[:, 0]
        other = (share * left).long().clamp(0, left - 1)
        for column in kept.unbind(1):  # ascending
            other = other + (other >= column)
        return torch.where(drawn < kept.shape[1], inside, other)
