"""What is timed: this project, its own network in a plain loop, and peers, all on the same images.

Every contender trains class-conditionally with label dropout, AdamW and the same batch. Only this
project clips gradients, averages weights and derives every draw from (seed, step, sample); the
plain loops are what one would write first, in float32 unless their name says otherwise. The
peers' networks are sized to our number of parameters within 5 % (`DIFFUSERS`).
"""

import importlib.util
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, to_float, to_uint8
from robustdiff.data.registry import load_images
from robustdiff.data.stored import Reader, Stored
from robustdiff.device import pick_device
from robustdiff.diffusion.generate import class_labels, generate
from robustdiff.diffusion.guidance import drop_labels
from robustdiff.diffusion.model import Model, bind
from robustdiff.jobs.assemble import make_task
from robustdiff.labels.given import prepare_labels
from robustdiff.progress import Report
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.task import build_network

PRESET, BATCH = "mnist-small", 128
OURS, PLAIN = "robustdiff", "our network, plain fp32 loop"
# Preset -> widths of diffusers' network and channels of a head (None: one head, as ours has there),
# with which it has our size.
DIFFUSERS: dict[str, tuple[tuple[int, ...], int | None]] = {
    "digits": ((56, 80), 8),
    "mnist-small": ((32, 56, 112), 8),
    "cifar10-small": ((48, 80, 88, 160), None),
    "paper-mnist": ((80, 160, 160, 624), None),
    "cifar10": ((192, 352, 352, 384), 32),
}
# Preset -> (even) width and number of heads of denoising-diffusion-pytorch's network.
DENOISING_DIFFUSION: dict[str, tuple[int, int]] = {"digits": (22, 3), "mnist-small": (28, 3)}
SAMPLING_STEPS = 25
TIMESTEPS = 1000
P_UNCOND = 0.2


@dataclass(frozen=True)
class Contender:
    """One way to train a diffusion model.

    Attributes:
        parameters: Weights of its network.
        step: Makes one training step; returns the number of images it used.
        sample: Makes so many images with guidance, DDIM with `SAMPLING_STEPS`: (M, C, H, W) uint8
            on the CPU, of classes 0, 1, ..., K - 1, 0, ...
        error: Mean squared error of predicted noise on (x_0, labels, alpha_bar, eps).
    """

    parameters: int
    step: Callable[[], int]
    sample: Callable[[int], Tensor]
    error: Callable[[Tensor, Tensor, Tensor, Tensor], float]


def _size(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def _noisy(x_0: Tensor, alpha_bar: Tensor, eps: Tensor) -> Tensor:
    signal = alpha_bar[:, None, None, None]
    return signal.sqrt() * x_0 + (1 - signal).sqrt() * eps


def ours(config: Config, images: Images, *, captured: bool = True) -> Contender:
    """Train as `robustdiff train` does, all that belongs to a step included.

    Args:
        config: Its configuration.
        images: The dataset.
        captured: Whether a GPU's steps become a graph, as they do in training.
    """
    task = make_task(config, images, prepare_labels(config, images, Report()), Report())
    state = new_state(task)
    if not captured:
        state.graph = None
    events = train(state, task)
    shape = tuple(images.train.shape[1:])
    device = task.data.images.device

    def step() -> int:
        torch.backends.cudnn.deterministic = True  # as it was before another contender's step
        next(event for event in events if isinstance(event, StepDone))
        return config.train.batch_size

    def sample(count: int) -> Tensor:
        setting = replace(config.sample, sampler="ddim", steps=SAMPLING_STEPS, batch_size=count)
        labels = class_labels(count, images.num_classes).to(device)
        return generate(task.bind(state.ema), labels, shape, sample=setting, seed=0)

    return Contender(_size(state.model), step, sample, _error_of(task.bind(state.ema)))


def _error_of(model: Model) -> Callable[[Tensor, Tensor, Tensor, Tensor], float]:
    """Return `Contender.error` of one of our models."""

    @torch.inference_mode()
    def error(x_0: Tensor, labels: Tensor, alpha_bar: Tensor, eps: Tensor) -> float:
        found = model.eps(_noisy(x_0, alpha_bar, eps), cosine_times(alpha_bar), labels)
        return float((found - eps).square().mean())

    return error


def cosine_times(alpha_bar: Tensor) -> Tensor:
    """Return the times at which the cosine schedule has these alpha_bar, (B,) float64."""
    offset = 0.008
    ratio = torch.acos(alpha_bar.double().sqrt()) / (torch.pi / 2)
    return (ratio * (1 + offset) - offset).clamp(0, 1)


def plain(config: Config, images: Images) -> Contender:
    """Train our network with the loop that one would write first, in float32."""
    network = build_network(config.model, tuple(images.train.shape[1:]), images.num_classes, 0)
    schedule, prediction = config.diffusion.schedule, config.diffusion.prediction
    k, dtype, device = images.num_classes, torch.float32, pick_device("auto")
    network = network.to(device)
    model = bind(network, schedule, prediction, null_class=k, dtype=dtype)

    def loss(x_0: Tensor, labels: Tensor) -> Tensor:
        t = torch.rand(len(x_0), dtype=torch.float64, device=device)
        alpha, sigma = (part.float()[:, None, None, None] for part in model.schedule(t))
        eps = torch.randn_like(x_0)
        dropped = torch.rand(len(x_0), device=device)
        labels = drop_labels(labels, dropped, P_UNCOND, images.num_classes)
        output = network(alpha * x_0 + sigma * eps, t, labels)
        return F.mse_loss(output, model.prediction.target(x_0, eps, alpha, sigma))

    def sample(count: int) -> Tensor:
        setting = replace(config.sample, sampler="ddim", steps=SAMPLING_STEPS, batch_size=count)
        labels = class_labels(count, images.num_classes).to(device)
        return generate(model, labels, tuple(images.train.shape[1:]), sample=setting, seed=0)

    step = _loop(network, loss, config, images)
    return Contender(_size(network), step, sample, _error_of(model))


def _loop(
    network: nn.Module,
    loss: Callable[[Tensor, Tensor], Tensor],
    config: Config,
    images: Images,
    dtype: torch.dtype = torch.float32,
) -> Callable[[], int]:
    """Return one step of a plain loop: batch, loss, backward pass, AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.train.lr)
    half, device = dtype != torch.float32, next(network.parameters()).device
    train, known = images.train.to(device), images.train_labels.to(device)

    def step() -> int:
        # Ours asks for convolutions that give equal bits; whoever does not ask need not wait.
        torch.backends.cudnn.deterministic = False
        index = torch.randint(len(train), (config.train.batch_size,), device=device)
        x_0, labels = to_float(train[index]), known[index]
        with torch.autocast(device.type, dtype) if half else nullcontext():
            value = loss(x_0, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        return len(index)

    return step


def diffusers(
    config: Config,
    images: Images,
    name: str,
    dtype: torch.dtype = torch.float32,
    *,
    compiled: bool = False,
) -> Contender:
    """Train diffusers' UNet2DModel, attention in every level, with its schedulers."""
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    channels, null, device = images.train.shape[1], images.num_classes, pick_device("auto")
    widths, head = DIFFUSERS[name]
    # Its levels halve the side, which must divide: 28 x 28 pixels become 32 x 32 for four levels.
    side, margin = images.train.shape[-1], -images.train.shape[-1] % 2 ** (len(widths) - 1)
    frame = (margin // 2, margin - margin // 2) * 2
    network: Any = UNet2DModel(
        sample_size=side + margin,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=1,
        block_out_channels=widths,
        down_block_types=("AttnDownBlock2D",) * len(widths),
        up_block_types=("AttnUpBlock2D",) * len(widths),
        num_class_embeds=null + 1,
        norm_num_groups=8,
        attention_head_dim=head,
    ).to(device)
    if compiled:
        network.compile()
    noiser = DDPMScheduler(TIMESTEPS, beta_schedule="squaredcos_cap_v2")
    half = dtype != torch.float32

    def predict(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype) if half else nullcontext():
            framed = F.pad(x_t, frame) if margin else x_t
            output: Tensor = network(framed, t, labels).sample
        return (F.pad(output, [-width for width in frame]) if margin else output).float()

    def loss(x_0: Tensor, labels: Tensor) -> Tensor:
        t = torch.randint(TIMESTEPS, (len(x_0),), device=device)
        eps, dropped = torch.randn_like(x_0), torch.rand(len(x_0), device=device)
        labels = drop_labels(labels, dropped, P_UNCOND, null)
        return F.mse_loss(predict(noiser.add_noise(x_0, eps, t), t, labels), eps)

    @torch.inference_mode()
    def sample(count: int) -> Tensor:
        sampler: Any = DDIMScheduler(TIMESTEPS, beta_schedule="squaredcos_cap_v2")
        sampler.set_timesteps(SAMPLING_STEPS)
        labels = torch.cat([torch.arange(count) % null, torch.full((count,), null)]).to(device)
        x_t = torch.randn(count, *images.train.shape[1:], device=device)
        w = config.sample.guidance_weight
        for t in sampler.timesteps:
            given, none = predict(torch.cat([x_t, x_t]), t, labels).chunk(2)
            x_t = sampler.step((1 + w) * given - w * none, t, x_t).prev_sample
        return to_uint8(x_t).cpu()

    def error(x_0: Tensor, labels: Tensor, alpha_bar: Tensor, eps: Tensor) -> float:
        alphas = noiser.alphas_cumprod.to(alpha_bar.device)
        nearest = (alphas[None] - alpha_bar[:, None]).abs().argmin(1)
        with torch.inference_mode():
            found = predict(_noisy(x_0, alpha_bar, eps), nearest, labels)
        return float((found - eps).square().mean())

    return Contender(_size(network), _loop(network, loss, config, images, dtype), sample, error)


def denoising_diffusion_pytorch(
    config: Config,
    images: Images,
    width: int,
    heads: int,
    dtype: torch.dtype = torch.float32,
) -> Contender:
    """Train denoising-diffusion-pytorch's classifier-free Unet with its own loss and sampler."""
    from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet

    channels, side = images.train.shape[1], images.train.shape[-1]
    network = Unet(
        width, images.num_classes, P_UNCOND, channels=channels, dim_mults=(1, 2, 4),
        attn_heads=heads,
    ).to(pick_device("auto"))  # fmt: skip
    diffusion = GaussianDiffusion(
        network, image_size=side, timesteps=TIMESTEPS, sampling_timesteps=SAMPLING_STEPS,
        ddim_sampling_eta=0.0,
    ).to(pick_device("auto"))  # fmt: skip

    def loss(x_0: Tensor, labels: Tensor) -> Tensor:
        return diffusion((x_0 + 1) / 2, classes=labels)

    def sample(count: int) -> Tensor:
        labels = (torch.arange(count) % images.num_classes).to(pick_device("auto"))
        scale = 1 + config.sample.guidance_weight
        with torch.inference_mode():
            made = diffusion.sample(labels, cond_scale=scale, rescaled_phi=0.0)
        return to_uint8(2 * made - 1).cpu()

    def error(x_0: Tensor, labels: Tensor, alpha_bar: Tensor, eps: Tensor) -> float:
        nearest = (diffusion.alphas_cumprod[None] - alpha_bar[:, None]).abs().argmin(1)
        with torch.inference_mode():
            found = network(_noisy(x_0, alpha_bar, eps), nearest, labels, cond_drop_prob=0.0)
        return float((found - eps).square().mean())

    return Contender(_size(network), _loop(network, loss, config, images, dtype), sample, error)


def with_the_host(images: Images) -> Images:
    """Return the same images as those that are read when they are used, and move in batches."""
    pixels = images.train.numpy()
    reader = Reader(pixels.shape, lambda rows: pixels[rows], decodes=True)
    return replace(images, train=Stored(reader))


def contenders(config: Config, images: Images, name: str) -> dict[str, Callable[[], Contender]]:
    """Return name -> builder of everything that can be timed on these images here."""
    found: dict[str, Callable[[], Contender]] = {
        OURS: lambda: ours(config, images),
        "robustdiff, pixels not folded": lambda: ours(
            replace(config, model=replace(config.model, patch_size=1)), images
        ),
        PLAIN: lambda: plain(config, images),
    }
    on_gpu = pick_device("auto").type == "cuda"
    if on_gpu:
        training = replace(config.train, compile=True)
        found["robustdiff, compiled"] = lambda: ours(replace(config, train=training), images)
        found["robustdiff, no graph"] = lambda: ours(config, images, captured=False)
        found["robustdiff, images stay with the host"] = lambda: ours(config, with_the_host(images))
    if name in DIFFUSERS and importlib.util.find_spec("diffusers") is not None:
        found["diffusers UNet2DModel"] = lambda: diffusers(config, images, name)
        found["diffusers UNet2DModel, bf16 autocast"] = lambda: diffusers(
            config, images, name, torch.bfloat16
        )
        if on_gpu:
            found["diffusers UNet2DModel, bf16 autocast, compiled"] = lambda: diffusers(
                config, images, name, torch.bfloat16, compiled=True
            )
    if (
        name in DENOISING_DIFFUSION
        and importlib.util.find_spec("denoising_diffusion_pytorch") is not None
    ):
        width, heads = DENOISING_DIFFUSION[name]
        found["denoising-diffusion-pytorch"] = lambda: denoising_diffusion_pytorch(
            config, images, width, heads
        )
        found["denoising-diffusion-pytorch, bf16 autocast"] = lambda: denoising_diffusion_pytorch(
            config, images, width, heads, torch.bfloat16
        )
    return found


def load(name: str, data_dir: str, **training: int) -> tuple[Config, Images]:
    """Return a preset's configuration and images."""
    layer = {"data": {"data_dir": data_dir}, "train": training}
    config = resolve(preset(name), layer)
    return config, load_images(config.data, Report())


def three_steps(name: str, data_dir: str) -> None:
    """Make three steps of one contender, for its memory to be seen."""
    config, images = load(PRESET, data_dir, batch_size=BATCH)
    contender = contenders(config, images, PRESET)[name]()
    for _ in range(3):
        contender.step()
