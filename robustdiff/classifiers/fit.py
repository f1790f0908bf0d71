"""The training loop of all classifiers: AdamW, a one-cycle rate, labels clean or noisy."""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.types import Doubles
from robustdiff.progress import Progress, silent

_WEIGHT_DECAY = 1e-2


def fit(
    network: nn.Module,
    batches: Iterable[tuple[tuple[Tensor, ...], Tensor]],
    *,
    steps: int,
    learning_rate: float,
    transition: Doubles | None = None,
    least: float = 1e-12,
    progress: Progress = silent,
) -> None:
    """Train a classifier in place by cross-entropy; equal arguments give equal weights.

    Args:
        network: Maps the inputs of a batch to (B, K) logits.
        batches: (inputs, (B,) int64 labels in [0, K)) of each step, on the network's device.
        steps: Number of batches.
        learning_rate: Peak of the one-cycle schedule.
        transition: (K, K), T[clean, given], if the labels are noisy: softmax(logits) T is then
            compared with them, so that the logits are those of the clean class (forward correction,
            Patrini et al. 2017).
        least: Probabilities of given labels below it count as it, under a transition matrix.
        progress: Called with (steps done, steps in all) after each step.
    """
    device = next(network.parameters()).device
    noise = None if transition is None else torch.from_numpy(transition).float().to(device)
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, steps)
    for step, (inputs, labels) in enumerate(batches, start=1):
        logits = network(*inputs)
        if noise is None:
            loss = F.cross_entropy(logits, labels)
        else:
            loss = F.nll_loss((logits.softmax(1) @ noise).clamp_min(least).log(), labels)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        progress(step, steps)
