"""Generate images from a trained network; image k depends on its number alone."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from robustdiff.config.sections import SampleConfig
from robustdiff.data.arrays import to_uint8
from robustdiff.diffusion.guidance import Guidance, Guide, classifier_free, guided_denoiser
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.samplers import SAMPLERS, last
from robustdiff.diffusion.schedules import Grid, time_grid
from robustdiff.progress import Progress, silent
from robustdiff.rng import Stream, normal


def sampling_grid(model: Model, sample: SampleConfig) -> Grid:
    """Return the noise levels of a sampling run."""
    spacing = sample.spacing or SAMPLERS[sample.sampler].spacing
    return time_grid(model.schedule, sample.steps, sample.t_start, spacing=spacing, rho=sample.rho)


def _steps(
    model: Model,
    labels: Tensor,
    number: Tensor,
    image_shape: tuple[int, ...],
    sample: SampleConfig,
    seed: int,
    guide: Guide,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the state after each step and the first estimate of x_0 in it, for some images."""
    guidance = Guidance(
        weight=sample.guidance_weight,
        interval=sample.guidance_interval,
        outside=sample.guidance_outside,
        rescale=sample.guidance_rescale,
        every=sample.guidance_every,
        guide=guide,
    )
    denoise = guided_denoiser(model, labels[number], guidance)
    estimates: list[Tensor] = []

    def watched(x_t: Tensor, t: Tensor) -> Tensor:
        estimates.append(denoise(x_t, t))
        return estimates[-1]

    sampler = SAMPLERS[sample.sampler]
    states = sampler.run(
        watched,
        _start(seed, number, image_shape),
        sampling_grid(model, sample),
        noise=lambda i: normal(seed, Stream.SAMPLE_STEP, i, number, image_shape),
        **{name: getattr(sample, name) for name in sampler.options},
    )
    for state in states:
        yield state, estimates[0]
        estimates.clear()


def _start(seed: int, number: Tensor, image_shape: tuple[int, ...]) -> Tensor:
    return normal(seed, Stream.SAMPLE, 0, number, image_shape)


def _batches(numbers: Tensor, sample: SampleConfig) -> Iterator[tuple[Tensor, int]]:
    """Yield the image numbers of each batch, and how many of the first are wanted, not padding."""
    batches = torch.split(numbers, sample.batch_size)
    for number in batches:
        # A network is compiled anew for every shape, so the last batch is filled up.
        extra = len(batches[0]) - len(number) if sample.compile else 0
        yield torch.cat([number, number[-1:].expand(extra)]), len(number)


@torch.no_grad()
def generate(  # noqa: PLR0913 an image depends on as much
    model: Model,
    labels: Tensor,
    image_shape: tuple[int, ...],
    *,
    sample: SampleConfig,
    seed: int,
    numbers: Tensor | None = None,
    guide: Guide = classifier_free,
    progress: Progress = silent,
) -> Tensor:
    """Generate one image per label.

    Args:
        model: The denoiser, on the device of `labels`.
        labels: (M,) int64 classes to generate.
        image_shape: (C, H, W).
        sample: Settings of sampler and guidance, and the batch size.
        seed: Image k is a function of (seed, k, labels[k]), to rounding: in bfloat16 the number of
            images in a batch moves single pixels by 1.
        numbers: (L,) int64 which of the M images to make, None for all.
        guide: The kind of guidance, that of `sample.guidance`.
        progress: Called with (images done, images in all) after each batch.

    Returns:
        (M, C, H, W) uint8 on the CPU, or (L, C, H, W).
    """
    numbers = torch.arange(len(labels)) if numbers is None else numbers
    if len(numbers) == 0:  # the share of one of many processes; networks compute nothing of nothing
        return torch.zeros(0, *image_shape, dtype=torch.uint8)
    images = []
    for number, count in _batches(numbers.to(labels.device), sample):
        steps = _steps(model, labels, number, image_shape, sample, seed, guide)
        x_t, _ = last(steps)
        images.append(to_uint8(x_t[:count]).cpu())
        progress(sum(map(len, images)), len(numbers))
    return torch.cat(images)


class Trajectory(NamedTuple):
    """The states and estimates that led to images.

    Attributes:
        x_t: (M, S + 1, C, H, W) float32 states, from noise to image.
        x_0: (M, S, C, H, W) float32 estimates in [-1, 1], the first of each step.
        t: (S + 1,) float64 times of the states.
    """

    x_t: Tensor
    x_0: Tensor
    t: Tensor


@torch.no_grad()
def generate_trajectory(
    model: Model,
    labels: Tensor,
    image_shape: tuple[int, ...],
    *,
    sample: SampleConfig,
    seed: int,
    guide: Guide = classifier_free,
    progress: Progress = silent,
) -> Trajectory:
    """Generate one image per label and keep every state; see `generate`, whose images it makes."""
    parts = []
    for number, count in _batches(torch.arange(len(labels), device=labels.device), sample):
        steps = _steps(model, labels, number, image_shape, sample, seed, guide)
        x_t, x_0 = zip(*steps, strict=True)
        states = torch.stack([_start(seed, number, image_shape), *x_t], dim=1)
        pair = (states, torch.stack(x_0, dim=1))
        parts.append([part[:count].float().cpu() for part in pair])
        progress(int(number[-1]) + 1, len(labels))
    all_x_t, all_x_0 = (torch.cat(part) for part in zip(*parts, strict=True))
    return Trajectory(all_x_t, all_x_0, sampling_grid(model, sample).t)


def class_labels(num_samples: int, num_classes: int) -> Tensor:
    """Return (num_samples,) int64 labels 0, 1, ..., K - 1, 0, 1, ...: equal numbers per class."""
    return torch.arange(num_samples) % num_classes
