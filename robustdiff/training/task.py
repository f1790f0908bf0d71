"""The task of a training run: its configuration and data, its length, its network."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from curricula.types import Doubles, Ints
from robustdiff.config.sections import Config, ModelConfig
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.model import Model, bind
from robustdiff.diffusion.nets.unet import UNet, smallest_image
from robustdiff.diffusion.noise_levels import NoiseLevels
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.rng import Stream, stream_seed


@dataclass(frozen=True, kw_only=True)
class Task:
    """What training works on; nothing in it changes.

    Attributes:
        config: Configuration of the run.
        data: Images and given labels; the clean labels are not here.
        num_classes: K, also the null class.
        dtype: Compute precision.
        oracle: (N,) bool, whether each given label is right; None for every curriculum but
            "oracle".
        transition: (K, K) float64, T[clean, given], if the configuration gives it.
        probabilities: Returns (N, K) class probabilities by evidence from elsewhere, in place of
            trained classifiers; None if there is no such evidence.
        report: Receives the progress of long work besides the steps.
        workers: This process among those that train the model.
        folder: Where interrupted judging of labels is kept; None keeps none.
        check_stop: Called often while labels are judged; raises if the run is to stop.
    """

    config: Config
    data: LabelledImages
    num_classes: int
    dtype: torch.dtype
    oracle: NDArray[np.bool_] | None = None
    transition: Doubles | None = None
    probabilities: Callable[[], NDArray[np.floating]] | None = None
    report: Report = field(default_factory=Report)
    workers: Workers = ALONE
    folder: Path | None = None
    check_stop: Callable[[], None] = lambda: None

    @property
    def given(self) -> Ints:
        """Given labels, (N,) int64."""
        given: Ints = self.data.given.cpu().numpy()
        return given

    def bind(self, network: nn.Module) -> Model:
        """Return a network as this task's denoiser."""
        schedule, prediction = self.config.diffusion.schedule, self.config.diffusion.prediction
        return bind(network, schedule, prediction, null_class=self.num_classes, dtype=self.dtype)

    @property
    def noise_levels(self) -> NoiseLevels:
        """How training draws and weighs noise levels."""
        diffusion = self.config.diffusion
        return NoiseLevels(
            time_sampling=diffusion.time_sampling,
            log_snr_range=diffusion.log_snr_range,
            loss_weight=diffusion.loss_weight,
            min_snr=diffusion.min_snr,
            sigmoid_bias=diffusion.sigmoid_bias,
        )


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


def steps_per_pass(config: Config, num_samples: int) -> int:
    """Return the optimiser steps of one pass over the dataset; a last short batch is left out."""
    return max(1, num_samples // config.train.batch_size)


def total_steps(config: Config, num_samples: int) -> int:
    """Return the length of the run in optimiser steps."""
    return config.train.steps or steps_per_pass(config, num_samples) * (config.train.epochs or 1)
