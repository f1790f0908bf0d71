"""The training step and the training loop, as a generator: the caller owns logging and files.

Nothing random is carried from step to step: every draw is keyed by (seed, stream, step, sample),
so a resumed run equals an uninterrupted one.
"""

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from curricula import (
    CURRICULA,
    CurriculumSampler,
    Labels,
    Selection,
    Trust,
    random_scores,
    trusted,
)
from robustdiff.config import Config, CurriculumConfig, ModelConfig
from robustdiff.crossfit import crossfit
from robustdiff.data import LabelledImages
from robustdiff.ema import ema_decay, update_ema
from robustdiff.errors import DivergedError
from robustdiff.guidance import drop_labels
from robustdiff.judge import judge
from robustdiff.model import Model, bind
from robustdiff.nets.unet import UNet, smallest_image
from robustdiff.process import diffuse, per_image
from robustdiff.rng import Stream, normal, stream_seed, uniform
from robustdiff.scoring import Probing, class_evidence, prediction_scores

Scores = NDArray[np.float64]


def _silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


@dataclass(frozen=True)
class StepDone:
    """One optimiser step.

    Attributes:
        step: Steps so far.
        loss: Mean loss of the batch.
    """

    step: int
    loss: float


@dataclass(frozen=True)
class RoundDone:
    """One scoring round.

    Attributes:
        step: Steps so far.
        scores: (N,) float64 smoothed scores, high = trusted.
        trust: What they say about the labels.
        label_used: (N,) bool, whether training uses the given label.
        seconds: Time that the round took.
    """

    step: int
    scores: Scores
    trust: Trust
    label_used: NDArray[np.bool_]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """What training works on; nothing in it changes.

    Attributes:
        config: Configuration of the run.
        data: Images and given labels; nothing here knows the clean ones.
        num_classes: K, also the null class.
        dtype: Compute precision.
        oracle: (N,) bool, whether each given label is right; None unless the curriculum is the
            upper bound that may know.
        progress: Called with (what, done, in all) during long work besides the steps.
    """

    config: Config
    data: LabelledImages
    num_classes: int
    dtype: torch.dtype
    oracle: NDArray[np.bool_] | None = None
    progress: Callable[[str, int, int], None] = _silent

    @property
    def given(self) -> NDArray[np.int64]:
        """Given labels, (N,) int64."""
        given: NDArray[np.int64] = self.data.given.cpu().numpy()
        return given

    def bind(self, network: nn.Module) -> Model:
        """Return a network as this task's denoiser."""
        return bind(network, self.config.diffusion, self.num_classes, self.dtype)


@dataclass
class TrainState:
    """Everything that training changes; its state dicts make a checkpoint.

    Attributes:
        model: The trained network.
        ema: Its averaged weights, in evaluation mode.
        optimizer: AdamW over `model`.
        curriculum: Scores and draws.
        snapshot: EMA weights at the previous scoring round, None before the first.
        step: Optimiser steps so far.
        epoch: Current epoch of the curriculum.
        cursor: Batches of the epoch already used.
        rounds: Scoring rounds done, whether or not they gave scores.
    """

    model: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    curriculum: CurriculumSampler
    snapshot: nn.Module | None = None
    step: int = 0
    epoch: int = 0
    cursor: int = 0
    rounds: int = 0

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers only."""
        curriculum = self.curriculum.state_dict()
        for name, value in curriculum.items():
            if isinstance(value, np.ndarray):
                curriculum[name] = torch.from_numpy(value)
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "curriculum": curriculum,
            "snapshot": None if self.snapshot is None else self.snapshot.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "cursor": self.cursor,
            "rounds": self.rounds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.curriculum.load_state_dict(state["curriculum"])
        if state["snapshot"] is not None:
            self.snapshot = copy.deepcopy(self.ema)
            self.snapshot.load_state_dict(state["snapshot"])
        self.step, self.rounds = state["step"], state["rounds"]
        self.epoch, self.cursor = state["epoch"], state["cursor"]


@dataclass(frozen=True)
class Told:
    """What training is told in place of the given labels, on the device.

    Attributes:
        labels: (N,) int64 in [0, K]; K is no label.
        weights: (N,) float32, or None.
        soft: (N, K) float64 cumulative probabilities that labels are drawn from, or None.
    """

    labels: Tensor
    weights: Tensor | None
    soft: Tensor | None

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
        if self.soft is None:
            return self.labels[index]
        goal = uniform(seed, Stream.SOFT_LABEL, step, index)[:, :1]
        drawn = (goal >= self.soft[index]).sum(1)
        # The probabilities may sum to a little less than 1.
        return drawn.clamp_max(self.soft.shape[1] - 1)


def build_network(
    model: ModelConfig, image_shape: tuple[int, ...], num_classes: int, seed: int
) -> UNet:
    """Build the network with weights that depend on the seed alone.

    Args:
        model: Sizes.
        image_shape: (C, H, W).
        num_classes: K.
        seed: Seed of the run.

    Returns:
        The network on the CPU.

    Raises:
        ValueError: If the images are too small for the network's poolings.
    """
    smallest, patch = smallest_image(model), model.patch_size
    if min(image_shape[1:]) < smallest or any(side % patch for side in image_shape[1:]):
        raise ValueError(
            f"model.channels {list(model.channels)} with model.patch_size {patch} needs images of "
            f"at least {smallest} pixels a side, a multiple of the patch size, "
            f"got {image_shape[1]} x {image_shape[2]}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, Stream.INIT))
        return UNet(model, image_channels=image_shape[0], num_classes=num_classes)


def new_state(task: Task) -> TrainState:
    """Return the state before the first step, on the device of the data."""
    config, data = task.config, task.data
    shape = tuple(data.images.shape[1:])
    model = build_network(config.model, shape, task.num_classes, config.seed)
    model = model.to(device=data.images.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    ema = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.train.lr, fused=True)
    curriculum = CurriculumSampler(
        config.curriculum.name,
        len(data),
        seed=config.seed,
        selection=_selection(config.curriculum),
    )
    return TrainState(model, ema, optimizer, curriculum)


def _selection(setting: CurriculumConfig) -> Selection:
    return Selection(
        treatment=setting.treatment,
        smoothing=setting.smoothing,
        temperature=setting.temperature,
        k=setting.k,
        dk=setting.dk,
        mk=setting.mk,
    )


def steps_per_pass(config: Config, num_samples: int) -> int:
    """Return the optimiser steps of one pass over the dataset; a last short batch is left out."""
    return max(1, num_samples // config.train.batch_size)


def total_steps(config: Config, num_samples: int) -> int:
    """Return the length of the run in optimiser steps."""
    return config.train.steps or steps_per_pass(config, num_samples) * (config.train.epochs or 1)


def batch_losses(
    model: Model, batch: tuple[Tensor, Tensor, Tensor], step: int, task: Task
) -> Tensor:
    """Return the denoising loss of each example (algorithm 1 of the paper, lines 3 to 7).

    Args:
        model: The denoiser.
        batch: Images (B, C, H, W) float32 in [-1, 1]; labels (B,) int64 in [0, K], K where the
            label must not be used; sample indices (B,) int64, which key the draws.
        step: Number of the step.
        task: See `Task`.

    Returns:
        (B,) float32, unreduced.
    """
    x_0, labels, index = batch
    seed, p_uncond = task.config.seed, task.config.diffusion.p_uncond
    t = uniform(seed, Stream.TIME, step, index)[:, 0]
    drop = uniform(seed, Stream.LABEL_DROP, step, index)[:, 0]
    eps = normal(seed, Stream.NOISE, step, index, tuple(x_0.shape[1:]))
    labels = drop_labels(labels, drop, p_uncond, model.null_class)
    alpha, sigma = (per_image(part, x_0) for part in model.schedule(t))
    x_t = diffuse(x_0, eps, alpha, sigma)
    output = model.network(x_t, t, labels)
    target = model.prediction.target(x_0, eps, alpha, sigma)
    return (output - target).square().flatten(1).mean(1)


def train_step(
    state: TrainState,
    task: Task,
    batch: tuple[Tensor, Tensor, Tensor],
    weights: Tensor | None = None,
) -> float:
    """Make one optimiser step and update the average.

    Args:
        state: Changed in place.
        task: See `Task`.
        batch: See `batch_losses`.
        weights: (B,) weights of the examples' losses, None for equal ones.

    Returns:
        Mean weighted loss of the batch.

    Raises:
        DivergedError: If the loss is not finite; the state is left as it was.
    """
    setting = task.config.train
    losses = batch_losses(task.bind(state.model), batch, state.step, task)
    loss = (losses if weights is None else losses * weights).mean()
    value = float(loss.detach())
    if not math.isfinite(value):
        shown = ", ".join(str(i) for i in batch[2][:8].tolist())
        raise DivergedError(
            f"the loss is {value} at step {state.step + 1} (samples {shown}, ...); "
            f"lower train.lr, now {setting.lr:g}"
        )
    state.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(state.model.parameters(), setting.grad_clip)
    warmth = min(1.0, (state.step + 1) / max(1, setting.warmup_steps))
    for group in state.optimizer.param_groups:
        group["lr"] = setting.lr * warmth
    state.optimizer.step()
    update_ema(state.ema, state.model, ema_decay(setting.ema, state.step))
    state.step += 1
    return value


def rounds_due(task: Task, step: int) -> int:
    """Return how many scoring rounds should be done by a step.

    Counted in passes over the dataset, not in epochs of the curriculum: those shrink with the
    selection, and the cost of scoring should not grow by that.
    """
    setting = task.config.curriculum
    if CURRICULA[setting.name].once:
        return 1
    passes = step // steps_per_pass(task.config, len(task.data))
    if passes < setting.warmup:
        return 0
    return (passes - setting.warmup) // setting.score_every + 1


def measure(state: TrainState, task: Task) -> Scores | None:
    """Measure evidence about the labels from the state as it is.

    Args:
        state: Not changed.
        task: See `Task`.

    Returns:
        (N,) or (N, K) float64, see `robustdiff.judge.judge`; None where there is no score, or no
        previous round to compare with.

    Raises:
        ValueError: If the curriculum needs the clean labels and they are not known.
    """
    curriculum, config = state.curriculum.curriculum, task.config
    match curriculum.source:
        case "none":
            return None
        case "random":
            return random_scores(config.seed, state.rounds, len(task.data))
        case "clean":
            if task.oracle is None:
                raise ValueError(
                    "curriculum 'oracle' needs the clean labels, and they are not known"
                )
            return np.where(task.oracle, 1.0, -1.0)
        case "classifier":
            return crossfit(
                task.data.images,
                task.data.given,
                task.num_classes,
                seed=config.seed,
                progress=lambda done, total: task.progress("judging the labels", done, total),
            )
    probing = Probing(
        seed=config.seed, p_uncond=config.diffusion.p_uncond, settings=config.curriculum
    )
    model = task.bind(state.ema)
    if curriculum.source == "classes":
        evidence = state.curriculum.evidence
        return class_evidence(probing, task.data, model, evidence, state.rounds)
    old = None if state.snapshot is None else task.bind(state.snapshot)
    return prediction_scores(curriculum, probing, task.data, model, old, state.rounds)


def train(state: TrainState, task: Task) -> Iterator[StepDone | RoundDone]:
    """Train to the configured number of steps.

    Args:
        state: Changed in place; continues wherever it stands.
        task: See `Task`.

    Yields:
        A `StepDone` after each step and a `RoundDone` after each scoring round, the last one after
        the last step: it judges the final weights and leaves the state untouched.
    """
    setting = task.config
    steps = total_steps(setting, len(task.data))
    batch_size = min(setting.train.batch_size, len(task.data))
    while state.step < steps:
        if state.rounds < rounds_due(task, state.step):
            yield from _scoring_round(state, task)
        order = torch.from_numpy(state.curriculum.order(state.epoch))
        told = Told.of(
            state.curriculum.labels(task.given, task.num_classes), task.data.given.device
        )
        batches = max(1, len(order) // batch_size)
        while state.cursor < batches and state.step < steps:
            x_0, _, index = task.data[
                order[state.cursor * batch_size : (state.cursor + 1) * batch_size]
            ]
            labels = told.draw(index, setting.seed, state.step)
            weights = None if told.weights is None else told.weights[index]
            loss = train_step(state, task, (x_0, labels, index), weights)
            state.cursor += 1
            yield StepDone(state.step, loss)
        if state.cursor >= batches:
            state.epoch, state.cursor = state.epoch + 1, 0
    if state.curriculum.curriculum.once or (final := _timed(state, task)) is None:
        return
    evidence, seconds = final
    smoothed = state.curriculum.smoothed(evidence)
    scores, trust = judge(state.curriculum.curriculum, smoothed, task.given, task.num_classes)
    yield RoundDone(state.step, scores, trust, _used(state, task, trust), seconds)


def _timed(state: TrainState, task: Task) -> tuple[Scores, float] | None:
    started = time.perf_counter()
    evidence = measure(state, task)
    return None if evidence is None else (evidence, time.perf_counter() - started)


def _used(state: TrainState, task: Task, trust: Trust) -> NDArray[np.bool_]:
    """Return which given labels training uses as they are."""
    if state.curriculum.treatment in ("none", "select"):
        return np.ones(len(trust.right), dtype=bool)
    return trusted(trust.right, task.given)


def _scoring_round(state: TrainState, task: Task) -> Iterator[RoundDone]:
    """Take in a round's evidence and remember the weights that made it."""
    measured = _timed(state, task)
    state.rounds += 1
    sampler = state.curriculum
    if sampler.curriculum.needs_previous:
        state.snapshot = copy.deepcopy(state.ema)
    if measured is None:
        return
    evidence, seconds = measured
    scores = sampler.update(
        evidence, lambda found: judge(sampler.curriculum, found, task.given, task.num_classes)
    )
    assert sampler.trust is not None
    used = _used(state, task, sampler.trust)
    yield RoundDone(state.step, scores, sampler.trust, used, seconds)
