"""The training loop as a generator: the caller owns logging and files.

Nothing random is carried from step to step: every draw is keyed by (seed, stream, step, sample),
so a resumed run equals an uninterrupted one.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from curricula import Labels
from robustdiff.rng import Stream, uniform
from robustdiff.training.objective import make_mixture
from robustdiff.training.rounds import RoundDone, last_round, rounds_due, scoring_round
from robustdiff.training.state import TrainState
from robustdiff.training.step import train_step
from robustdiff.training.task import Task, total_steps


@dataclass(frozen=True)
class StepDone:
    """One optimiser step.

    Attributes:
        step: Steps so far.
        loss: At every `train.log_every`-th step and at the last, the mean over the steps since the
            previous such one; None at the others, because reading a loss waits for the device.
    """

    step: int
    loss: float | None


@dataclass(frozen=True)
class Prepared:
    """The objective's preparation, which precedes the first step.

    Attributes:
        seconds: Time that it took.
    """

    seconds: float


@dataclass(frozen=True)
class TrainingLabels:
    """The labels that training uses in place of the given ones, on the device.

    Attributes:
        labels: (N,) int64 in [0, K]; K is no label.
        weights: (N,) float32 weights of the samples' losses, or None for equal ones.
        cumulative: (N, K) float64 cumulative probabilities that each step draws labels from, or
            None to use `labels`.
    """

    labels: Tensor
    weights: Tensor | None
    cumulative: Tensor | None

    @classmethod
    def of(cls, labels: Labels, device: torch.device) -> Self:
        """Move a treatment's outcome to a device."""
        weights, soft = labels.weights, labels.soft
        return cls(
            torch.from_numpy(labels.labels).to(device),
            None if weights is None else torch.from_numpy(weights).float().to(device),
            None if soft is None else torch.from_numpy(soft.cumsum(axis=1)).to(device),
        )

    def draw(self, index: Tensor, seed: int, step: int) -> Tensor:
        """Return labels of some samples at a step, (B,) int64."""
        if self.cumulative is None:
            return self.labels[index]
        goal = uniform(seed, Stream.SOFT_LABEL, step, index)[:, :1]
        drawn = (goal >= self.cumulative[index]).sum(1)
        # The probabilities may sum to a little less than 1.
        return drawn.clamp_max(self.cumulative.shape[1] - 1)


def train(state: TrainState, task: Task) -> Iterator[StepDone | RoundDone | Prepared]:
    """Train to the configured number of steps.

    Args:
        state: Changed in place; continues wherever it stands.
        task: See `Task`.

    Yields:
        A `Prepared` if the objective needed preparation, a `StepDone` after each step and a
        `RoundDone` after each scoring round; the last round follows the last step, scores the
        labels with the final weights and leaves the state untouched.

    Raises:
        DivergedError: If a loss is not finite, when it is read: before a step yields it, and before
            a scoring round.
    """
    config = task.config
    steps = total_steps(config, len(task.data))
    batch_size = min(config.train.batch_size, len(task.data))
    device = task.data.given.device
    if state.mixture is None:
        started = time.perf_counter()
        mixture = task.workers.from_leader(lambda: make_mixture(task))
        if mixture is not None:
            state.mixture = mixture.to(device)
            yield Prepared(time.perf_counter() - started)
    while state.step < steps:
        if state.rounds < rounds_due(task, state.step):
            state.losses.read()
            yield from scoring_round(state, task)
        order = task.data.order(torch.from_numpy(state.sampler.order(state.epoch, task.given)))
        used = TrainingLabels.of(state.sampler.labels(task.given, task.num_classes), device)
        batches = max(1, len(order) // batch_size)
        end = min(batches, state.cursor + steps - state.step)
        starts = range(state.cursor * batch_size, end * batch_size, batch_size)
        rows = (task.workers.share(order[i : i + batch_size]) for i in starts)
        for x_0, _, index in task.data.batches(rows):
            labels = used.draw(index, config.seed, state.step)
            weights = None if used.weights is None else used.weights[index]
            size = min(batch_size, len(order))
            train_step(state, task, (x_0, labels, index), weights, batch_size=size)
            state.cursor += 1
            logged = state.step % config.train.log_every == 0 or state.step == steps
            yield StepDone(state.step, state.losses.take_mean() if logged else None)
        if state.cursor >= batches:
            state.epoch, state.cursor = state.epoch + 1, 0
    yield from last_round(state, task)
