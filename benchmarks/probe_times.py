"""Which noise levels carry the label: AUROC of pmi and margin against the time t of one probe.

Plain training on noisy labels; its averaged weights then score a part of the images with one probe
in each of 12 ranges of t. Prints a table in Markdown.

    python benchmarks/probe_times.py --preset mnist-14 --data-dir DIR [--noise-type asymmetric]
"""

import argparse

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from curricula import CURRICULA
from curricula.scores import class_margin
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.config.sections import Config
from robustdiff.data.arrays import LabelledImages
from robustdiff.data.registry import load_images
from robustdiff.diffusion.model import Model
from robustdiff.jobs.assemble import make_task
from robustdiff.labels.given import prepare_labels
from robustdiff.labels.scoring import Probing, class_evidence, prediction_scores
from robustdiff.progress import Report
from robustdiff.reports.figures import figure_png
from robustdiff.training.loop import train
from robustdiff.training.state import new_state

SCORES = ("pmi", "margin")


def measured(
    model: Model, data: LabelledImages, flipped: np.ndarray, rows: torch.Tensor, bins: int
) -> list[tuple[float, dict[str, float]]]:
    """Return (middle of a range of t, score -> AUROC) for equal ranges that fill (0, 1).

    Args:
        model: Averaged weights.
        data: Images and given labels.
        flipped: (N,) bool, which labels are wrong.
        rows: (M,) int64 images to score.
        bins: Number of ranges.
    """
    right, given = ~flipped[rows.numpy()], data.given[rows].cpu().numpy()
    found = []
    for number in range(bins):
        low, high = (max(number, 1e-3) / bins, (number + 1) / bins)
        probing = Probing(seed=0, p_uncond=0.0, probes=1, times=(low, high), rivals=None)
        pmi = prediction_scores(CURRICULA["pmi"], probing, data, model, None, rows, 0)
        assert pmi is not None
        gains = class_evidence(probing, data, model, None, rows, 0)[rows.numpy()]
        scores = {"pmi": pmi[rows.numpy()], "margin": class_margin(gains, given)}
        aurocs = {name: float(roc_auc_score(right, scores[name])) for name in SCORES}
        found.append(((low + high) / 2, aurocs))
    return found


def trained(config: Config) -> tuple[Model, LabelledImages, np.ndarray]:
    """Train as configured; return the averaged model, its data, and which labels are wrong."""
    images = load_images(config.data, Report())
    labels = prepare_labels(config, images, Report())
    task = make_task(config, images, labels, Report())
    state = new_state(task)
    for _ in train(state, task):
        pass
    return task.bind(state.averaged()), task.data, labels.flipped


def curve_figure(found: list[tuple[float, dict[str, float]]], title: str) -> Figure:
    """Draw AUROC against t."""
    figure = Figure(figsize=(6, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for name in SCORES:
        axes.plot([t for t, _ in found], [aurocs[name] for _, aurocs in found], "o-", label=name)
    axes.set_xlabel("t of the probe")
    axes.set_ylabel("AUROC of one probe")
    axes.set_title(title)
    axes.legend(frameon=False)
    return figure


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="digits")
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--noise-type", default="symmetric")
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bins", type=int, default=12)
    parser.add_argument("--images", type=int, default=1500, help="how many are scored")
    parser.add_argument("--png", help="also draw the curves here")
    told = parser.parse_args()
    noise = {"type": told.noise_type, "rate": told.noise}
    layer = {"seed": told.seed, "noise": noise, "data": {"data_dir": told.data_dir}}
    model, data, flipped = trained(resolve(preset(told.preset), layer))
    rows = torch.arange(0, len(data), max(1, len(data) // told.images))
    found = measured(model, data, flipped, rows, told.bins)
    title = f"{told.preset}, {told.noise_type} {told.noise:g}"
    print(f"{title}, {len(rows)} images, one probe\n")
    print("| t | pmi | margin |\n|---|---|---|")
    for t, aurocs in found:
        print(f"| {t:.2f} | {aurocs['pmi']:.3f} | {aurocs['margin']:.3f} |")
    if told.png is not None:
        with open(told.png, "wb") as file:
            file.write(figure_png(curve_figure(found, title)))


if __name__ == "__main__":
    main()
