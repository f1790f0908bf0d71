"""The training loop as a generator: the caller owns logging and files.

Nothing random is carried from step to step: every draw is keyed by (seed, stream, step, sample),
so a resumed run equals an uninterrupted one.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

from curricula import Labels
from robustdiff.training.objective import make_mixture
from robustdiff.training.order import epoch_order
from robustdiff.training.rounds import RoundDone, last_round, rounds_due, scoring_round
from robustdiff.training.state import TrainState
from robustdiff.training.step import train_step
from robustdiff.training.task import Task, total_steps
from robustdiff.training.used_labels import TrainingLabels


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
        mixture = make_mixture(task)
        if mixture is not None:
            state.mixture = mixture.to(device)
            yield Prepared(time.perf_counter() - started)
    while state.step < steps:
        # Only between epochs: a run resumed within one must not score where it did not before.
        if state.cursor == 0 and state.rounds < rounds_due(task, state.step):
            state.losses.read()
            yield from scoring_round(state, task)
        # Where batches are asked for, so that no step waits for its own.
        place = task.data.rows_device
        order = epoch_order(state.sampler, state.epoch, task.given, place, task.workers)
        used = TrainingLabels.of(_used(state, task), device)
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


def _used(state: TrainState, task: Task) -> Labels:
    """Return the labels that training uses; the processes of a host share them."""
    if state.sampler.trust is None:
        return Labels(task.given)
    return task.workers.on_host(lambda: state.sampler.labels(task.given, task.num_classes))
