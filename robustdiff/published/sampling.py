"""Sample images from the guided step that lies beside this file.

    python sample.py --classes 3,5 --per-class 10 --seed 0 --out samples

It needs numpy and pillow, and onnxruntime for step.onnx or torch for step.pt2. Image k is a
function of (seed, k, its class), the same as in robustdiff and in the pipeline for diffusers.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Doubles = NDArray[np.float64]
Step = Callable[[Doubles, float, NDArray[np.int64], float], Doubles]
"""(x_t (B, C, H, W), t, labels (B,), guidance weight) -> estimate of x_0, (B, C, H, W)."""

FILES = ("step.onnx", "step.pt2")
_MASK = 0xFFFFFFFF
_STREAM = 6


def load_step(path: Path) -> Step:
    """Return the guided step of a file of ONNX or of torch.export."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path)

        def by_onnx(x_t: Doubles, t: float, labels: NDArray[np.int64], weight: float) -> Doubles:
            numbers = {"t": np.array(t), "weight": np.array(weight, dtype=np.float64)}
            estimate: Doubles = session.run(None, {"x_t": x_t, "labels": labels, **numbers})[0]
            return estimate

        return by_onnx
    import torch

    program: Any = torch.export.load(path).module()

    def by_torch(x_t: Doubles, t: float, labels: NDArray[np.int64], weight: float) -> Doubles:
        numbers = [torch.tensor(number, dtype=torch.float64) for number in (t, weight)]
        with torch.no_grad():
            estimate = program(
                torch.from_numpy(x_t), numbers[0], torch.from_numpy(labels), numbers[1]
            )
        result: Doubles = estimate.numpy()
        return result

    return by_torch


def start_noise(seed: int, count: int, shape: Sequence[int]) -> Doubles:
    """Return standard normal noise, (count, *shape): Philox4x32-10 and the Box-Muller transform."""
    blocks = -(-math.prod(shape) // 4)
    k0, k1 = map(int, np.random.SeedSequence([seed, _STREAM]).generate_state(2, np.uint32))
    c0, c3 = np.broadcast_arrays(np.arange(blocks)[None, :], np.arange(count)[:, None])
    c1 = c2 = np.zeros_like(c0)
    with np.errstate(over="ignore"):
        for _ in range(10):
            high, low = c0 * 0xD2511F53, c2 * 0xCD9E8D57
            c0, c2 = ((low >> 32) & _MASK) ^ c1 ^ k0, ((high >> 32) & _MASK) ^ c3 ^ k1
            c1, c3 = low & _MASK, high & _MASK
            k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
    u = (np.concatenate([c0, c2], 1).astype(np.float32) + np.float32(1)) * np.float32(2**-32)
    radius = np.sqrt(-2 * np.minimum(np.log(u), 0))
    turn = np.concatenate([c1, c3], 1).astype(np.float32)
    angle = turn * np.float32(2 * math.pi * 2**-32)
    values = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return values[:, : math.prod(shape)].reshape(count, *shape).astype(np.float64)


def dpm_solver_2m(
    denoise: Callable[[Doubles, float], Doubles], x_t: Doubles, levels: dict[str, list[float]]
) -> Doubles:
    """Sample by the second-order multistep DPM-Solver++ (Lu et al. 2022, algorithm 2)."""
    alpha, sigma = np.array(levels["alpha"]), np.array(levels["sigma"])
    with np.errstate(divide="ignore"):
        half_log_snr = np.log(alpha) - np.log(sigma)  # infinite at the clean end
    previous, last = x_t, len(alpha) - 2
    for i in range(last + 1):
        x_0 = denoise(x_t, levels["t"][i])
        h = half_log_snr[i + 1] - half_log_snr[i]
        slope_free = x_0
        if 0 < i < last:
            slope_free = x_0 + (x_0 - previous) * h / (2 * (half_log_snr[i] - half_log_snr[i - 1]))
        x_t = sigma[i + 1] / sigma[i] * x_t - alpha[i + 1] * np.expm1(-h) * slope_free
        previous = x_0
    return x_t


def ddim(
    denoise: Callable[[Doubles, float], Doubles], x_t: Doubles, levels: dict[str, list[float]]
) -> Doubles:
    """Sample by DDIM without noise (Song, Meng & Ermon 2021, eq. 12)."""
    alpha, sigma = levels["alpha"], levels["sigma"]
    for i in range(len(alpha) - 1):
        x_0 = denoise(x_t, levels["t"][i])
        x_t = alpha[i + 1] * x_0 + sigma[i + 1] * (x_t - alpha[i] * x_0) / sigma[i]
    return x_t


SAMPLERS = {"dpm-solver++": dpm_solver_2m, "ddim": ddim}


def sample(
    step: Step, about: dict[str, Any], labels: NDArray[np.int64], seed: int, weight: float
) -> NDArray[np.uint8]:
    """Generate one image per label, (M, C, H, W).

    Args:
        step: The guided step.
        about: Content of step.json.
        labels: (M,) class numbers.
        seed: Seed of the images.
        weight: Weight w of guidance, 0 for none.
    """
    low, high = about["guidance_interval"]
    null = np.full_like(labels, len(about["class_names"]))
    outside = null if about["guidance_outside"] == "null" else labels

    def denoise(x_t: Doubles, t: float) -> Doubles:
        return step(x_t, t, labels, weight) if low <= t <= high else step(x_t, t, outside, 0.0)

    start = start_noise(seed, len(labels), about["image_shape"])
    images = SAMPLERS[about["sampler"]](denoise, start, about["levels"])
    return np.clip(np.round((images + 1) * 127.5), 0, 255).astype(np.uint8)


def _classes(text: str | None, names: Sequence[str]) -> list[int]:
    if text is None:
        return list(range(len(names)))
    known = {str(number): number for number in range(len(names))}
    known |= {name: number for number, name in enumerate(names)}
    for part in text.split(","):
        if part not in known:
            raise SystemExit(
                f"--classes takes numbers from 0 to {len(names) - 1} or names, {', '.join(names)}; "
                f"got {part!r}"
            )
    return [known[part] for part in text.split(",")]


def main() -> None:
    """Write samples.npz and samples.png, a grid with one column for each class."""
    here = Path(__file__).parent
    about = json.loads((here / "step.json").read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description="Sample images from the guided step.")
    parser.add_argument("--classes", help="numbers or names, e.g. 3,5; all by default")
    parser.add_argument("--per-class", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--guidance-weight", type=float, default=about["guidance_weight"])
    parser.add_argument("--out", type=Path, default=Path("samples"), help="folder")
    found = next((here / name for name in FILES if (here / name).exists()), None)
    parser.add_argument("--step", type=Path, default=found, help="file of the step")
    wanted = parser.parse_args()
    if wanted.per_class < 1 or wanted.seed < 0 or not wanted.guidance_weight >= 0:
        parser.error("--per-class must be at least 1, --seed and --guidance-weight at least 0")
    classes = _classes(wanted.classes, about["class_names"])
    labels = np.array(classes * wanted.per_class)
    images = sample(load_step(wanted.step), about, labels, wanted.seed, wanted.guidance_weight)
    wanted.out.mkdir(parents=True, exist_ok=True)
    np.savez(wanted.out / "samples.npz", images=images, labels=labels)
    rows = images.reshape(wanted.per_class, len(classes), *images.shape[1:])
    grid = rows.transpose(0, 3, 1, 4, 2).reshape(rows.shape[0] * rows.shape[3], -1, images.shape[1])
    Image.fromarray(grid[:, :, 0] if grid.shape[2] == 1 else grid).save(wanted.out / "samples.png")


if __name__ == "__main__":
    main()
