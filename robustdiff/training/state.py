"""Everything that training changes; a checkpoint holds it."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from curricula import CurriculumSampler, Selection
from robustdiff.device import check_compiler
from robustdiff.diffusion.nets.unet import UNet
from robustdiff.files.caches import keep_compiled
from robustdiff.parallel import Workers
from robustdiff.training.graph import StepGraph
from robustdiff.training.losses import Losses
from robustdiff.training.objective import ClassMixture
from robustdiff.training.optimizer import adamw
from robustdiff.training.task import Task, build_network


@dataclass
class TrainState:
    """Everything that training changes; its state dicts make a checkpoint.

    Attributes:
        model: The trained network.
        network: What a training step calls: `model`, wrapped so that all processes' gradients meet,
            and compiled if asked to.
        ema: Its averaged weights, in evaluation mode.
        optimizer: AdamW over `model`.
        sampler: Scores of the samples, and the draw of each epoch.
        workers: Those that train it.
        losses: Of the latest steps.
        build: Makes a network like `ema` that is not spread over processes.
        graph: Runs its steps on a GPU; None on a CPU, with several processes or a mixture.
        snapshot: EMA weights at the previous scoring round, None before the first.
        step: Optimiser steps so far.
        epoch: Current epoch of the curriculum.
        cursor: Batches of the epoch already used.
        rounds: Scoring rounds done, whether or not they gave scores.
        mixture: Classes behind the given labels; None for the plain objective, or before training.
    """

    model: nn.Module
    network: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    sampler: CurriculumSampler
    workers: Workers
    losses: Losses
    build: Callable[[], nn.Module]
    graph: StepGraph | None = None
    snapshot: nn.Module | None = None
    step: int = 0
    epoch: int = 0
    cursor: int = 0
    rounds: int = 0
    mixture: ClassMixture | None = None

    def averaged(self) -> nn.Module:
        """Return the averaged network whole; all processes must call it."""
        if not self.workers.shard:
            return self.ema
        from robustdiff.training.sharding import whole_weights

        network = self.build()
        network.load_state_dict(whole_weights(self.ema, everywhere=True))
        return network

    def take_snapshot(self) -> None:
        """Remember the averaged weights, for the next scoring round."""
        self.snapshot = self.averaged() if self.workers.shard else copy.deepcopy(self.ema)

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers only; all processes must call it.

        With sharded weights only the leader's is complete.

        Raises:
            DivergedError: If a loss is not finite; the weights cannot be used then.
        """
        losses = [*self.losses.read()]
        return {
            **self._weights(),
            "curriculum": _as_tensors(self.sampler.state_dict(), {}),
            "snapshot": None if self.snapshot is None else self.snapshot.state_dict(),
            "step": self.step,
            "epoch": self.epoch,
            "cursor": self.cursor,
            "rounds": self.rounds,
            "losses": losses,
            "mixture": None if self.mixture is None else self.mixture.state_dict(),
        }

    def _weights(self) -> dict[str, Any]:
        if not self.workers.shard:
            return {
                "model": self.model.state_dict(),
                "ema": self.ema.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
        from robustdiff.training.sharding import whole_optimizer, whole_weights

        return {
            "model": whole_weights(self.model),
            "ema": whole_weights(self.ema),
            "optimizer": whole_optimizer(self.model, self.optimizer),
        }

    def _load_weights(self, state: dict[str, Any]) -> None:
        if not self.workers.shard:
            self.model.load_state_dict(state["model"])
            self.ema.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            _lay_out_alike(self.optimizer)
            return
        from robustdiff.training.sharding import load_optimizer, load_weights

        load_weights(self.model, state["model"])
        load_weights(self.ema, state["ema"])
        load_optimizer(self.model, self.optimizer, state["optimizer"])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned, whatever the number of processes was."""
        self._load_weights(state)
        self.sampler.load_state_dict(state["curriculum"])
        if state["snapshot"] is not None:
            self.snapshot = self.build()
            self.snapshot.load_state_dict(state["snapshot"])
        self.step, self.rounds = state["step"], state["rounds"]
        self.epoch, self.cursor = state["epoch"], state["cursor"]
        self.losses.known, self.losses.unread = [*state["losses"]], []
        if state["mixture"] is not None:
            device = next(self.ema.parameters()).device
            self.mixture = ClassMixture.from_state(state["mixture"]).to(device)


def _as_tensors(value: Any, known: dict[int, Tensor]) -> Any:  # noqa: ANN401 nested plain data
    """Return nested dicts with tensors in place of arrays; an array held twice is one tensor."""
    if isinstance(value, dict):
        return {name: _as_tensors(part, known) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return known.setdefault(id(value), torch.from_numpy(value))
    return value


def _lay_out_alike(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's moments the memory layout of their parameters.

    The fused optimiser walks both in the order of memory, and a checkpoint of sharded weights has
    another layout than these.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)


def new_state(task: Task) -> TrainState:
    """Return the state before the first step, on the device of the data."""
    config, data, workers = task.config, task.data, task.workers
    shape = tuple(data.images.shape[1:])

    def trained() -> UNet:
        network = build_network(config.model, shape, task.num_classes, config.seed)
        return network.to(device=data.images.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def averaged() -> UNet:
        return trained().eval().requires_grad_(requires_grad=False)

    model, ema = trained(), averaged()
    if workers.shard:
        from robustdiff.training.sharding import spread

        for whole in (model, ema):
            spread(whole, whole.levels(), workers.size)
    optimizer = adamw(model, config.train.lr, spread=workers.shard)
    curriculum = config.curriculum
    selection = Selection(
        treatment=curriculum.treatment,
        smoothing=curriculum.smoothing,
        temperature=curriculum.temperature,
        k=curriculum.k,
        dk=curriculum.dk,
        mk=curriculum.mk,
    )
    sampler = CurriculumSampler(curriculum.name, len(data), seed=config.seed, selection=selection)
    device = data.images.device
    one = torch.zeros(1, device=device)
    network = workers.averaging(model, one.new_zeros(1, *shape), one, one.long())
    if config.train.compile:
        check_compiler("train.compile")
        keep_compiled()
        network.compile()
    losses = Losses(config.train.lr, workers)
    # Several processes exchange gradients; what a mixture leaves out is known on the GPU only.
    alone = workers.size == 1 and config.objective.name == "plain"
    graph = StepGraph(device) if alone and device.type == "cuda" else None
    return TrainState(model, network, ema, optimizer, sampler, workers, losses, averaged, graph)
