"""Everything that training changes; a checkpoint holds it."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from curricula import CurriculumSampler, Selection
from robustdiff.config import CurriculumConfig
from robustdiff.objective import ClassMixture
from robustdiff.task import Task, build_network


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
        mixture: Classes behind the given labels; None for the plain objective, or before training.
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
    mixture: ClassMixture | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and plain numbers only."""
        curriculum = self.curriculum.state_dict()
        for part in (curriculum, curriculum["trust"] or {}):
            for name, value in part.items():
                if isinstance(value, np.ndarray):
                    part[name] = torch.from_numpy(value)
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
            "mixture": None if self.mixture is None else self.mixture.state_dict(),
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
        if state["mixture"] is not None:
            device = next(self.ema.parameters()).device
            self.mixture = ClassMixture.from_state(state["mixture"]).to(device)


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
