"""Generate images from a trained network; image k depends on its number alone."""

from collections.abc import Callable

import torch
from torch import Tensor

from robustdiff.config import SampleConfig
from robustdiff.data import to_uint8
from robustdiff.guidance import Guidance, guided_denoiser
from robustdiff.model import Model
from robustdiff.rng import Stream, normal
from robustdiff.samplers import SAMPLERS, last
from robustdiff.schedules import Grid, time_grid


def sampling_grid(model: Model, setting: SampleConfig) -> Grid:
    """Return the noise levels that a setting asks for."""
    own = "karras" if setting.sampler == "edm" else "even"
    return time_grid(
        model.schedule,
        setting.steps,
        setting.t_start,
        spacing=setting.spacing or own,
        rho=setting.rho,
    )


@torch.inference_mode()
def generate(
    model: Model,
    labels: Tensor,
    image_shape: tuple[int, ...],
    *,
    setting: SampleConfig,
    seed: int,
    numbers: Tensor | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Generate one image per label.

    Args:
        model: The denoiser, on the device of `labels`.
        labels: (M,) int64 classes to generate.
        numbers: (L,) int64 which of the M images to make, None for all.
        image_shape: (C, H, W).
        setting: Sampler and guidance.
        seed: Image k is a function of (seed, k, labels[k]), whatever the batch size.
        progress: Called with (images done, images in all) after each batch.

    Returns:
        (M, C, H, W) uint8 on the CPU, or (L, C, H, W).
    """
    numbers = torch.arange(len(labels)) if numbers is None else numbers
    grid = time_grid(model.schedule, setting.steps, setting.t_start)
    grid = sampling_grid(model, setting)
