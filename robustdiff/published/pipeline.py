"""A class-conditional diffusion model, as a pipeline of diffusers."""

import inspect
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from robustdiff.data.arrays import to_uint8
from robustdiff.diffusion.guidance import Guidance, guide, guided_denoiser, rescale
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.samplers import Denoise, Noise
from robustdiff.rng import Stream, normal, stream_seed


class RobustdiffPipeline(DiffusionPipeline):
    """Generate images of classes.

    Args:
        unet: The network.
        scheduler: The noise schedule with its samplers, or a scheduler of diffusers that was made
            of its configuration.
        id2label: Class number, as text -> name; None for numbers alone.
        guidance_weight: Weight w of guidance where none is asked for: (1 + w) times the estimate
            under the class minus w times the one without.
        guidance_low: Earliest time at which guidance acts.
        guidance_high: Latest one.
        guidance_outside: What the other steps see: "null" (no class) or the "given" class.
        guidance_rescale: Share in [0, 1] to which guided outputs get the spread of unguided ones.
        guidance_every: Of so many steps with guidance the first runs the network without a class,
            too; the others reuse the difference. Schedulers of diffusers do so in every step.
    """

    model_cpu_offload_seq = "unet"

    def __init__(  # noqa: PLR0913 entries of model_index.json
        self,
        unet: ModelMixin,
        scheduler: SchedulerMixin,
        id2label: dict[str, str] | None = None,
        guidance_weight: float = 0.5,
        guidance_low: float = 0.0,
        guidance_high: float = 1.0,
        guidance_outside: str = "null",
        guidance_rescale: float = 0.0,
        guidance_every: int = 1,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(
            id2label=id2label,
            guidance_weight=guidance_weight,
            guidance_low=guidance_low,
            guidance_high=guidance_high,
            guidance_outside=guidance_outside,
            guidance_rescale=guidance_rescale,
            guidance_every=guidance_every,
        )

    @torch.no_grad()
    def __call__(  # noqa: PLR0913 as pipelines of diffusers have it
        self,
        class_labels: int | str | Sequence[int | str],
        *,
        num_inference_steps: int | None = None,
        guidance_weight: float | None = None,
        guidance_scale: float | None = None,
        seed: int = 0,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Generate one image of each class that is asked for.

        Args:
            class_labels: Numbers or names of classes.
            num_inference_steps: None for the scheduler's own number, 50 for one of diffusers.
            guidance_weight: w, at least 0; 0 is no guidance, None the model's own.
            guidance_scale: 1 + w in its place, as other pipelines have it.
            seed: Image k is a function of (seed, k, its class), as it is in robustdiff. Of a
                scheduler that draws noise and takes no generator, it settles the start alone.
            generator: Draws the noise in place of the seed.
            output_type: "pil", "np" (M, H, W, C) or "pt" (M, C, H, W), both float32 in [0, 1].
            return_dict: Whether the output is an `ImagePipelineOutput`, else a tuple.

        Raises:
            ValueError: If an argument is none of these.
        """
        if output_type not in ("pil", "np", "pt"):
            raise ValueError(f"output_type must be pil, np or pt, got {output_type!r}")
        if num_inference_steps is not None and num_inference_steps < 1:
            raise ValueError(f"num_inference_steps must be at least 1, got {num_inference_steps}")
        if self.unet.dtype != torch.float32:
            raise ValueError(
                f"the network normalises in float32, so its weights must be float32, got "
                f"{self.unet.dtype}; use torch.autocast for another precision"
            )
        one = isinstance(class_labels, int | str | np.integer)
        wanted: Any = [class_labels] if one else class_labels
        numbers = [self._number(label) for label in wanted]
        if not numbers:
            raise ValueError("class_labels must hold at least one class, got none")
        labels = torch.tensor(numbers, dtype=torch.int64, device=self._execution_device)
        guidance = self._guidance(guidance_weight, guidance_scale)
        noise = self._noise(labels, seed, generator)
        own = hasattr(self.scheduler, "states")
        steps = num_inference_steps or (self.scheduler.config.num_inference_steps if own else 50)
        if own:
            states = self._own_states(labels, guidance, noise, steps)
        else:
            each = _generators(seed, len(numbers)) if generator is None else generator
            states = self._other_states(labels, guidance, noise(-1), steps, each)
        with self.progress_bar(total=steps) as bar:
            for x_t in states:
                generated = x_t
                bar.update()
        images = _as_asked(to_uint8(generated).cpu(), output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _number(self, label: int | str) -> int:
        """Return the number of a class."""
        count = self.unet.config.num_classes
        names = self.config.id2label or {str(k): str(k) for k in range(count)}
        found = [k for k, name in names.items() if label in (name, int(k))]
        if not found:
            raise ValueError(
                f"the model has the classes 0 to {len(names) - 1}, {', '.join(names.values())}; "
                f"got {label!r}"
            )
        return int(found[0])

    def _guidance(self, weight: float | None, scale: float | None) -> Guidance:
        if weight is not None and scale is not None:
            raise ValueError("give guidance_weight or guidance_scale, which is 1 more, not both")
        if scale is not None:
            weight = scale - 1
        weight = self.config.guidance_weight if weight is None else weight
        if not 0 <= weight < math.inf:
            raise ValueError(
                f"guidance_weight must be at least 0 and guidance_scale 1, got {weight} and "
                f"{weight + 1}"
            )
        return Guidance(
            weight=weight,
            interval=(self.config.guidance_low, self.config.guidance_high),
            outside=self.config.guidance_outside,
            rescale=self.config.guidance_rescale,
            every=self.config.guidance_every,
        )

    def _noise(self, labels: Tensor, seed: int, generator: torch.Generator | None) -> Noise:
        """Return the noise of each step; that of step -1 is where sampling starts."""
        shape = (self.unet.config.in_channels, *self.unet.config.sample_size)
        number = torch.arange(labels.shape[0], device=labels.device)

        def noise(step: int) -> Tensor:
            if generator is not None:
                size = (labels.shape[0], *shape)
                drawn: Tensor = randn_tensor(size, generator=generator, device=labels.device)
                return drawn
            stream = Stream.SAMPLE if step < 0 else Stream.SAMPLE_STEP
            return normal(seed, stream, max(step, 0), number, shape)

        return noise

    def _network(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        output: Tensor = self.unet(x_t, t, labels).sample
        return output.float()

    def _own_states(
        self, labels: Tensor, guidance: Guidance, noise: Noise, steps: int
    ) -> Iterator[Tensor]:
        null, scheduler = self.unet.config.num_classes, self.scheduler
        model = Model(self._network, scheduler.schedule, scheduler.prediction, null)
        denoise: Denoise = guided_denoiser(model, labels, guidance)
        states: Iterator[Tensor] = scheduler.states(denoise, noise(-1), noise, steps)
        return states

    def _other_states(
        self,
        labels: Tensor,
        guidance: Guidance,
        start: Tensor,
        steps: int,
        generator: torch.Generator | list[torch.Generator],
    ) -> Iterator[Tensor]:
        """Yield the states of a scheduler of diffusers; guidance combines the network's outputs."""
        scheduler, null = self.scheduler, torch.full_like(labels, self.unet.config.num_classes)
        scheduler.set_timesteps(steps, device=labels.device)
        low, high = guidance.interval
        x_t = start * scheduler.init_noise_sigma
        # Few of those that draw noise in their steps take no generator, and most others take none.
        takes = "generator" in inspect.signature(scheduler.step).parameters
        options = {"generator": generator} if takes else {}
        for step in scheduler.timesteps:
            t = (step + 1) / scheduler.config.num_train_timesteps
            x = scheduler.scale_model_input(x_t, step)
            times = t.expand(labels.shape[0])
            if low <= float(t) <= high:
                conditional = output = self._network(x, times, labels)
                if guidance.weight > 0:
                    output = guide(conditional, self._network(x, times, null), guidance.weight)
                output = rescale(output, conditional, guidance.rescale)
            else:
                seen = null if guidance.outside == "null" else labels
                output = self._network(x, times, seen)
            x_t = scheduler.step(output, step, x_t, **options).prev_sample
            yield x_t


def _generators(seed: int, count: int) -> list[torch.Generator]:
    """Return a generator for each image, so that none depends on how many others there are.

    They are of the CPU, whose numbers are the same whatever device the network is on.
    """
    seeds = [stream_seed(seed, Stream.SAMPLE_STEP, number) for number in range(count)]
    return [torch.Generator().manual_seed(one) for one in seeds]


def _as_asked(pixels: Tensor, output_type: str) -> Any:  # noqa: ANN401 of three types
    """Return (M, C, H, W) uint8 images as PIL images, an array or a tensor."""
    if output_type == "pt":
        return pixels.float() / 255
    array = pixels.permute(0, 2, 3, 1).numpy()
    if output_type == "np":
        return array.astype(np.float32) / 255
    return [Image.fromarray(one[:, :, 0] if one.shape[2] == 1 else one) for one in array]
