"""The training step and the training loop, as a generator: the caller owns logging and files.

Nothing random is carried from step to step: every draw is keyed by (seed, stream, step, sample),
so a resumed run equals an uninterrupted one.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from curricula import Labels
from robustdiff.diffusion.guidance import drop_labels
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.noise_levels import loss_weights, training_times
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.rng import Stream, normal, uniform
from robustdiff.training.ema import ema_decay, update_ema
from robustdiff.training.objective import ClassMixture, make_mixture, mixed_output
from robustdiff.training.rounds import RoundDone, last_round, rounds_due, scoring_round
from robustdiff.training.state import TrainState
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


def batch_losses(
    model: Model,
    batch: tuple[Tensor, Tensor, Tensor],
    step: int,
    task: Task,
    mixture: ClassMixture | None = None,
) -> Tensor:
    """Return the denoising loss of each example (algorithm 1 of the paper, lines 3 to 7).

    Args:
        model: The denoiser.
        batch: Images (B, C, H, W) float32 in [-1, 1]; labels (B,) int64 in [0, K], K where the
            label must not be used; sample indices (B,) int64, which key the draws.
        step: Number of the step.
        task: See `Task`.
        mixture: Classes behind the labels; None for the plain objective.

    Returns:
        (B,) float32, unreduced.
    """
    x_0, labels, index = batch
    seed, levels = task.config.seed, task.noise_levels
    t = training_times(uniform(seed, Stream.TIME, step, index)[:, 0], model.schedule, levels)
    drop = uniform(seed, Stream.LABEL_DROP, step, index)[:, 0]
    eps = normal(seed, Stream.NOISE, step, index, tuple(x_0.shape[1:]))
    labels = drop_labels(labels, drop, task.config.diffusion.p_uncond, model.null_class)
    alpha, sigma = (per_image(part, x_0) for part in model.schedule(t))
    x_t = diffuse(x_0, eps, alpha, sigma)
    if mixture is None:
        output = model.network(x_t, t, labels)
    else:
        output = mixed_output(
            model.network,
            x_t,
            t,
            labels,
            mixture.weights(x_t, t, labels),
            gradient=task.config.objective.gradient,
        )
    target = model.prediction.target(x_0, eps, alpha, sigma)
    losses = (output - target).square().flatten(1).mean(1)
    weights = loss_weights(t, model.schedule, model.prediction, levels)
    return losses if weights is None else losses * weights.to(losses.dtype)


def learning_rate(step: int, steps: int, *, peak: float, warmup: int = 0, decay: int = 0) -> float:
    """Return the learning rate of a step: it rises linearly, stays at its peak, falls linearly.

    Args:
        step: Number of the step, from 0.
        steps: Length of the run.
        peak: Rate between warm-up and decay.
        warmup: First steps, over which it rises.
        decay: Last steps, over which it falls to 0.
    """
    return peak * min(1.0, (step + 1) / max(1, warmup)) * min(1.0, (steps - step) / max(1, decay))


def train_step(
    state: TrainState,
    task: Task,
    batch: tuple[Tensor, Tensor, Tensor],
    weights: Tensor | None = None,
    *,
    batch_size: int | None = None,
) -> None:
    """Make one optimiser step and update the average.

    Nothing here waits for the device, except where a mixture leaves out classes of little weight.

    Args:
        state: Changed in place; its `losses` get the mean weighted loss of the whole batch.
        task: See `Task`.
        batch: This process's part of the batch; see `batch_losses`.
        weights: (B,) weights of the examples' losses, None for equal ones.
        batch_size: Examples in the parts of all processes together; None if this is the only one.
    """
    settings, workers = task.config.train, task.workers
    losses = batch_losses(task.bind(state.network), batch, state.step, task, state.mixture)
    # The processes' gradients are averaged, and their parts may differ in size by one.
    scale = workers.size / (batch_size or len(losses))
    loss = (losses if weights is None else losses * weights).sum() * scale
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), settings.grad_clip)
    rate = learning_rate(
        state.step,
        total_steps(task.config, len(task.data)),
        peak=settings.lr,
        warmup=settings.warmup_steps,
        decay=settings.decay_steps,
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.optimizer.step()
    update_ema(state.ema, state.model, ema_decay(settings.ema, state.step))
    state.step += 1
    state.losses.add(state.step, loss, batch[2])


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
        # On the device, so that no step waits for its batch.
        order = torch.from_numpy(state.sampler.order(state.epoch, task.given)).to(device)
        used = TrainingLabels.of(state.sampler.labels(task.given, task.num_classes), device)
        batches = max(1, len(order) // batch_size)
        while state.cursor < batches and state.step < steps:
            batch = order[state.cursor * batch_size : (state.cursor + 1) * batch_size]
            x_0, _, index = task.data[task.workers.share(batch)]
            labels = used.draw(index, config.seed, state.step)
            weights = None if used.weights is None else used.weights[index]
            train_step(state, task, (x_0, labels, index), weights, batch_size=len(batch))
            state.cursor += 1
            logged = state.step % config.train.log_every == 0 or state.step == steps
            yield StepDone(state.step, state.losses.take_mean() if logged else None)
        if state.cursor >= batches:
            state.epoch, state.cursor = state.epoch + 1, 0
    yield from last_round(state, task)
