"""Losses of the latest steps, left where they were computed: reading one waits for the device."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustdiff.errors import DivergedError
from robustdiff.parallel import ALONE, Workers


@dataclass
class Losses:
    """Mean losses of the steps since the last one that was logged.

    Attributes:
        lr: Learning rate, for the error message about a loss that is not finite.
        workers: Processes that each compute a part of every loss.
        known: Losses that have been read, in the order of the steps.
        unread: Of each later step its number, this process's share of the mean loss, () float32,
            and its samples, (B,) int64.
    """

    lr: float
    workers: Workers = ALONE
    known: list[float] = field(default_factory=list)
    unread: list[tuple[int, Tensor, Tensor]] = field(default_factory=list)

    def add(self, step: int, loss: Tensor, samples: Tensor) -> None:
        """Note the loss of a step without waiting for it."""
        self.unread.append((step, loss.detach(), samples))

    def read(self) -> list[float]:
        """Wait for the device and return all losses; every process must call it.

        Raises:
            DivergedError: If one is not finite; the weights cannot be used after that step.
        """
        if not self.unread:
            return self.known
        parts = torch.stack([loss for _, loss, _ in self.unread])
        values = (self.workers.total(parts) / self.workers.size).tolist()
        for value, (step, _, samples) in zip(values, self.unread, strict=True):
            if not math.isfinite(value):
                shown = ", ".join(str(i) for i in samples[:8].tolist())
                raise DivergedError(
                    f"the loss is {value} at step {step} (samples {shown}, ...); "
                    f"lower train.lr, now {self.lr:g}"
                )
        self.known += values
        self.unread = []
        return self.known

    def take_mean(self) -> float:
        """Return the mean of all losses and forget them; every process must call it.

        Raises:
            DivergedError: See `read`.
        """
        mean = float(np.mean(self.read()))
        self.known = []
        return mean
