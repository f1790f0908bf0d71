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
from robustdiff.schedules import time_grid


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
    guidance = Guidance(
        weight=setting.guidance_weight,
        interval=setting.guidance_interval,
        outside=setting.guidance_outside,
    )
    images = []
    for number in torch.split(numbers.to(labels.device), setting.batch_size):
        states = SAMPLERS[setting.sampler](
            guided_denoiser(model, labels[number], guidance),
            normal(seed, Stream.SAMPLE, 0, number, image_shape),
            grid,
            noise=lambda i, which=number: normal(  # type: ignore[misc]
                seed, Stream.SAMPLE_STEP, i, which, image_shape
            ),
            v=setting.v,
        )
        images.append(to_uint8(last(states)).cpu())
        progress(sum(map(len, images)), len(numbers))
    return torch.cat(images)


def class_labels(num_samples: int, num_classes: int) -> Tensor:
    """Return (num_samples,) int64 labels 0, 1, ..., K - 1, 0, 1, ...: equal numbers per class."""
    return torch.arange(num_samples) % num_classes
