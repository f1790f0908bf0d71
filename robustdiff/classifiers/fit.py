"""How the weights of all classifiers are trained: recipes, steps, losses for wrong labels."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from curricula.types import Doubles

# The rate starts at this share of its peak and reaches it after another share of the steps.
_FIRST_RATE, _RISE = 0.2, 0.2
_MOMENTUM = 0.9
# Agreement with what was learnt before stays this far below 1, where its logarithm is infinite.
_AGREEMENT_GAP = 1e-4


@dataclass(frozen=True)
class Recipe:
    """How steps are made.

    Attributes:
        optimiser: "adamw" with a one-cycle rate, or "sgd" with Nesterov's momentum and a rate that
            rises linearly and falls linearly to 0.
        learning_rate: Peak of the rate.
        weight_decay: As the optimiser defines it.
        batch_size: Images a step; fewer if there are fewer.
    """

    optimiser: Literal["adamw", "sgd"]
    learning_rate: float
    weight_decay: float
    batch_size: int


class Fit:
    """The training of one classifier, which can be stopped after any step and taken up again.

    Args:
        network: Maps the inputs of a batch to (B, K) logits; trained in place.
        recipe: How steps are made.
        steps: Number of steps in all.
        dtype: Precision of the network's products; its weights stay float32.
    """

    def __init__(
        self, network: nn.Module, recipe: Recipe, steps: int, dtype: torch.dtype = torch.float32
    ) -> None:
        self.network = network
        self.dtype = dtype
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        self.device_type = weights[0].device.type
        peak, decay = recipe.learning_rate, recipe.weight_decay
        self.optimiser: torch.optim.Optimizer
        self.schedule: Any
        if recipe.optimiser == "adamw":
            self.optimiser = torch.optim.AdamW(weights, weight_decay=decay)
            self.schedule = OneCycleLR(self.optimiser, peak, steps)
        else:
            self.optimiser = torch.optim.SGD(
                weights, peak, momentum=_MOMENTUM, nesterov=True, weight_decay=decay
            )
            self.schedule = LambdaLR(self.optimiser, lambda step: _triangle(step / steps))

    def step(self, inputs: tuple[Tensor, ...], loss: Callable[[Tensor], Tensor]) -> Tensor:
        """Take one step; return the logits before it, (B, K) float32.

        Args:
            inputs: Of the network.
            loss: (B, K) float32 logits -> scalar.
        """
        with torch.autocast(self.device_type, self.dtype, enabled=self.dtype != torch.float32):
            logits: Tensor = self.network(*inputs).float()
        self.optimiser.zero_grad()
        loss(logits).backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        return logits.detach()

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on besides its batch."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])


def _triangle(done: float) -> float:
    if done < _RISE:
        return _FIRST_RATE + (1 - _FIRST_RATE) * done / _RISE
    return max(0.0, 1 - done) / (1 - _RISE)


def forward_corrected(
    logits: Tensor, labels: Tensor, transition: Doubles, least: float = 1e-12
) -> Tensor:
    """Return the cross-entropy of labels that are noisy under a known matrix.

    softmax(logits) T is compared with them, so that the logits are those of the clean class
    (forward correction, Patrini et al. 2017).

    Args:
        logits: (B, K).
        labels: (B,) int64.
        transition: (K, K), T[clean, given].
        least: Probabilities of given labels below it count as it.
    """
    noise = torch.from_numpy(transition).float().to(logits.device)
    return F.nll_loss((logits.softmax(1) @ noise).clamp_min(least).log(), labels)


def early_learning(logits: Tensor, learnt: Tensor, weight: float) -> Tensor:
    """Return the early-learning regulariser (Liu et al. 2020, eq. 6), negative.

    weight * mean log(1 - <p, learnt>) holds the network to what it predicted before: classes are
    learnt before single wrong labels are.

    Args:
        logits: (B, K).
        learnt: (B, K) running means of the network's probabilities for the same images.
        weight: Its weight beside the cross-entropy.
    """
    agreement = (learnt * logits.softmax(1)).sum(1).clamp(max=1 - _AGREEMENT_GAP)
    return weight * torch.log1p(-agreement).mean()
