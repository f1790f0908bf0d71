"""One step of training: the losses of a batch, their gradient, the optimiser, the average.

A step depends on three numbers that change from step to step. On a GPU they are tensors, so that a
step can be captured once and replayed; see `robustdiff.training.graph`.
"""

from torch import Tensor, nn

from robustdiff.diffusion.guidance import drop_labels
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.noise_levels import loss_weights, training_times
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.rng import Stream, normal, uniform
from robustdiff.training.ema import ema_decay, update_ema
from robustdiff.training.graph import Numbers
from robustdiff.training.objective import ClassMixture, mixed_output
from robustdiff.training.state import TrainState
from robustdiff.training.task import Task, total_steps


def batch_losses(
    model: Model,
    batch: tuple[Tensor, Tensor, Tensor],
    step: int | Tensor,
    task: Task,
    mixture: ClassMixture | None = None,
) -> Tensor:
    """Return the denoising loss of each example (algorithm 1 of the paper, lines 3 to 7).

    Args:
        model: The denoiser.
        batch: Images (B, C, H, W) float32 in [-1, 1]; labels (B,) int64 in [0, K], K where the
            label must not be used; sample indices (B,) int64, which key the draws.
        step: Number of the step; () int64 if it is a tensor.
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


def update(
    state: TrainState,
    task: Task,
    batch: tuple[Tensor, Tensor, Tensor],
    weights: Tensor | None,
    numbers: Numbers,
    *,
    scale: float,
) -> Tensor:
    """Change weights, moments and average by one batch, and return its loss, () float32.

    Args:
        state: Its model, optimiser and average are changed in place.
        task: See `Task`.
        batch: This process's part of the batch; see `batch_losses`.
        weights: (B,) weights of the examples' losses, None for equal ones.
        numbers: Of the step.
        scale: What the sum of the losses is multiplied by.
    """
    losses = batch_losses(task.bind(state.network), batch, numbers.step, task, state.mixture)
    loss = (losses if weights is None else losses * weights).sum() * scale
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), task.config.train.grad_clip)
    for group in state.optimizer.param_groups:
        group["lr"], group["capturable"] = numbers.rate, isinstance(numbers.rate, Tensor)
    state.optimizer.step()
    update_ema(state.ema, state.model, numbers.fade)
    return loss.detach()


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
    settings = task.config.train
    rate = learning_rate(
        state.step,
        total_steps(task.config, len(task.data)),
        peak=settings.lr,
        warmup=settings.warmup_steps,
        decay=settings.decay_steps,
    )
    numbers = Numbers(state.step, rate, 1 - ema_decay(settings.ema, state.step))
    # The processes' gradients are averaged, and their parts may differ in size by one.
    scale = task.workers.size / (batch_size or len(batch[0]))
    if state.graph is None:
        loss = update(state, task, batch, weights, numbers, scale=scale)
    else:
        loss = state.graph.run(
            lambda *values: update(state, task, values[:3], *values[3:], scale=scale),
            (*batch, weights),
            numbers,
        )
    state.step += 1
    state.losses.add(state.step, loss, batch[2])
