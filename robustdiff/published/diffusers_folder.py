"""A model as a folder that diffusers loads: weights, configurations, and their code."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustdiff.config.sections import Config
from robustdiff.data.arrays import Subject
from robustdiff.diffusion.schedules import SCHEDULES
from robustdiff.files.weights import save_weights
from robustdiff.published.flatten import flatten
from robustdiff.runs.folder import PUBLISHED_PREFIX, PublishedRun

# Part of the folder -> the module that becomes its code, and the class that diffusers makes of it.
_CODE = {
    "": ("pipeline", "RobustdiffPipeline"),
    "unet": ("unet", "RobustdiffUNet"),
    "scheduler": ("scheduler", "RobustdiffScheduler"),
}
_PREDICTION_TYPES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
# The version whose formats these are; diffusers asks for one.
_DIFFUSERS = "0.30.0"
_TRAIN_STEPS = 1000
# Nichol & Dhariwal 2021, section 3.2: so large a beta at most.
_LARGEST_BETA = 0.999


def write_pipeline(folder: Path, network: nn.Module, subject: Subject, config: Config) -> None:
    """Write what `DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)` reads.

    Args:
        folder: An existing one.
        network: Its weights are written.
        subject: What the model makes images of.
        config: Its sections `model`, `diffusion` and `sample` are written.
    """
    sample = config.sample
    low, high = sample.guidance_interval
    parts = {name: [_module(name), kind] for name, (_, kind) in _CODE.items()}
    index: dict[str, Any] = {
        "_class_name": parts.pop(""),
        "_diffusers_version": _DIFFUSERS,
        "id2label": {str(k): name for k, name in enumerate(subject.class_names)},
        "guidance_weight": sample.guidance_weight,
        "guidance_low": low,
        "guidance_high": high,
        "guidance_outside": sample.guidance_outside,
        "guidance_rescale": sample.guidance_rescale,
        "guidance_every": sample.guidance_every,
        **parts,
    }
    for name, (module, _) in _CODE.items():
        (folder / name).mkdir(exist_ok=True)
        code = flatten(f"robustdiff.published.{module}")
        (folder / name / f"{_module(name)}.py").write_text(code, "utf-8")
    channels, *size = subject.image_shape
    about_network = {
        "model": dataclasses.asdict(config.model),
        "in_channels": channels,
        "num_classes": subject.num_classes,
        "sample_size": size,
    }
    _write_json(folder / "model_index.json", index)
    _write_config(folder / "unet" / "config.json", "unet", about_network)
    _write_config(
        folder / "scheduler" / "scheduler_config.json", "scheduler", scheduler_config(config)
    )
    save_weights(PublishedRun(folder).weights_file, network, prefix=PUBLISHED_PREFIX)


def scheduler_config(config: Config) -> dict[str, Any]:
    """Return the configuration of the scheduler, which schedulers of diffusers read, too.

    Those start below the last discrete step, whose noise is 20,000 times the image: there an error
    of eps is one of the image 20,000 times as large, and Heun's first step multiplies any error by
    hundreds. And they clip nothing: the DDIM of diffusers would step with the noise that belongs to
    the estimate before it was clipped.
    """
    sample, diffusion = config.sample, config.diffusion
    return {
        "num_train_timesteps": _TRAIN_STEPS,
        "trained_betas": discrete_betas(diffusion.schedule),
        "prediction_type": _PREDICTION_TYPES[diffusion.prediction],
        "timestep_spacing": "leading",
        "clip_sample": False,
        "schedule": diffusion.schedule,
        "sampler": sample.sampler,
        "num_inference_steps": sample.steps,
        **{
            name: getattr(sample, name)
            for name in ("spacing", "rho", "t_start", "v", "eta", "churn")
        },
    }


def discrete_betas(schedule: str) -> list[float]:
    """Return the betas of a schedule in 1000 steps, step i being the time (i + 1) / 1000.

    Their products, of 1 - beta, are alpha_t^2, but for the noise at the latest times, where beta
    is cut at 0.999.
    """
    times = torch.arange(1, _TRAIN_STEPS + 1, dtype=torch.float64) / _TRAIN_STEPS
    alpha_bar = SCHEDULES[schedule](times)[0] ** 2
    before = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    betas: list[float] = (1 - alpha_bar / before).clamp(max=_LARGEST_BETA).tolist()
    return betas


def _module(part: str) -> str:
    return f"robustdiff_{_CODE[part][0]}"


def _write_config(path: Path, part: str, entries: dict[str, Any]) -> None:
    head = {"_class_name": _CODE[part][1], "_diffusers_version": _DIFFUSERS}
    _write_json(path, {**head, **entries})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
