"""The guided step as a file of torch.export or ONNX, with a script that samples by it."""

import contextlib
import importlib.util
import io
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robustdiff.config.sections import SampleConfig
from robustdiff.data.arrays import Subject
from robustdiff.diffusion.generate import sampling_grid
from robustdiff.diffusion.guidance import GuidedStep
from robustdiff.diffusion.model import Model
from robustdiff.published import sampling


def _shapes() -> tuple[Any, ...]:
    """Return which dimensions of the inputs are open: the number of images."""
    batch = torch.export.Dim("batch", min=1)
    return {0: batch}, None, {0: batch}, None


def _torch(step: GuidedStep, inputs: tuple[torch.Tensor, ...], folder: Path) -> None:
    program = torch.export.export(step, inputs, dynamic_shapes=_shapes())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights on other devices than the CPU
        torch.export.save(program, folder / "step.pt2")


def _onnx(step: GuidedStep, inputs: tuple[torch.Tensor, ...], folder: Path) -> None:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # of the exporter, about itself
        torch.onnx.export(
            step,
            inputs,
            folder / "step.onnx",
            dynamic_shapes=_shapes(),
            dynamo=True,
            input_names=["x_t", "t", "labels", "weight"],
            output_names=["x_0"],
            external_data=False,
            verbose=False,
        )


STEP_FORMATS: dict[str, Callable[[GuidedStep, tuple[torch.Tensor, ...], Path], None]] = {
    "torch": _torch,
    "onnx": _onnx,
}


def check_step(name: str, sample: SampleConfig) -> None:
    """Refuse what a file of the guided step, and the script beside it, cannot be.

    Args:
        name: Key of `STEP_FORMATS`.
        sample: Settings of sampling.

    Raises:
        ValueError: If a package is missing, the sampler draws noise or is another, or guidance is
            reused.
    """
    needed = ("onnx", "onnxscript") if name == "onnx" else ()
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        raise ValueError(
            f"format onnx needs {' and '.join(missing)}; install: pip install 'robustdiff[onnx]'"
        )
    if sample.sampler not in sampling.SAMPLERS or sample.eta > 0:
        raise ValueError(
            f"format {name} samples by {' or '.join(sampling.SAMPLERS)} with eta 0, got "
            f"{sample.sampler} with eta {sample.eta:g}; give another --sampler"
        )
    if sample.guidance_every > 1:
        raise ValueError(
            f"format {name} guides every step in full, got sample.guidance_every = "
            f"{sample.guidance_every}; give --guidance-every 1"
        )


def write_step(
    folder: Path,
    name: str,
    network: nn.Module,
    model: Model,
    subject: Subject,
    sample: SampleConfig,
) -> None:
    """Write a file of the guided step, step.json about it, and sample.py, which samples by it.

    Args:
        folder: An existing one.
        name: Key of `STEP_FORMATS`.
        network: In float32 on the CPU.
        model: The denoiser that holds it.
        subject: What the model makes images of.
        sample: Settings of sampling; the noise levels are fixed by them.
    """
    step = GuidedStep(network, model, phi=sample.guidance_rescale).eval().requires_grad_(False)
    double, count = torch.float64, 3  # any number but 1, which graphs treat as a case of its own
    inputs = (
        torch.zeros(count, *subject.image_shape, dtype=double),
        torch.tensor(0.5, dtype=double),
        torch.zeros(count, dtype=torch.int64),
        torch.tensor(1.0, dtype=double),
    )
    STEP_FORMATS[name](step, inputs, folder)
    grid = sampling_grid(model, sample)
    about: dict[str, Any] = {
        "sampler": sample.sampler,
        "levels": {name: getattr(grid, name).tolist() for name in ("t", "alpha", "sigma")},
        "guidance_weight": sample.guidance_weight,
        "guidance_interval": list(sample.guidance_interval),
        "guidance_outside": sample.guidance_outside,
        "image_shape": list(subject.image_shape),
        "class_names": list(subject.class_names),
    }
    (folder / "step.json").write_text(json.dumps(about, indent=1) + "\n")
    shutil.copyfile(sampling.__file__, folder / "sample.py")
