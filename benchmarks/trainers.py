"""Labels for other trainers: do they beat plain training under 40 % noise, by our metrics?

Trains as examples/diffusers_unet.py (a plain loop) and examples/lightning_unet.py do, on digits,
with three seeds, and measures the images that they generate. What is already in the folder is not
run again.

    python -m benchmarks.trainers FOLDER [--epochs 25] [--seeds 3]
"""

import argparse
import json
import sys
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robustdiff.config.sections import Config
from robustdiff.data.registry import load_images
from robustdiff.metrics.evaluator import load_or_train
from robustdiff.metrics.report import evaluate
from robustdiff.progress import Report
from robustdiff.reports.intervals import interval

sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

TRAINERS = {"plain loop": "diffusers_unet", "Lightning": "lightning_unet"}
METHODS = {
    "plain": "labels as given",
    "scored": "`ScoredLabels`",
    "judged": "`RobustLabels`",
}
# Labels that are judged before training are the same whatever the trainer.
ARMS = [(t, m) for t in TRAINERS for m in METHODS if (t, m) != ("Lightning", "judged")]


def measured(file: Path, folder: Path) -> dict[str, Any]:
    """Return the figures of generated images beside those of real ones."""
    images = load_images(Config().data, Report())
    evaluator, _ = load_or_train(folder, images, images.train_labels, seed=0)
    with np.load(file) as found:
        generated, classes = (torch.from_numpy(found[name]) for name in ("images", "classes"))
    return evaluate(
        real=images.train,
        real_labels=images.train_labels,
        heldout=images.test,
        heldout_labels=images.test_labels,
        generated=generated,
        generated_labels=classes,
        evaluator=evaluator,
        seed=0,
    )


def run(folder: Path, epochs: int, seeds: int) -> list[dict[str, Any]]:
    """Train and measure what the folder lacks; return all rows."""
    rows = []
    for seed, (trainer, method) in product(range(seeds), ARMS):
        name = TRAINERS[trainer]
        file = folder / f"{name}-{method}-{epochs}-{seed}.npz"
        if not file.exists():
            example = import_module(name)
            example.finish(example.train(method, epochs, seed, "quick"), file)
        row = {"trainer": trainer, "method": method, "seed": seed}
        rows.append(row | measured(file, folder))
        shown = {key: value for key, value in rows[-1].items() if not isinstance(value, list)}
        print(json.dumps(shown), flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table of the documentation: means and 95 % intervals over the seeds."""
    lines = ["| trainer | labels | class-wise FID | label accuracy |", "|---|---|---|---|"]
    for trainer, method in ARMS:
        own = [row for row in rows if (row["trainer"], row["method"]) == (trainer, method)]
        shown = [_shown([row[key] for row in own]) for key in ("class_fid", "label_accuracy")]
        lines.append(f"| {trainer} | {METHODS[method]} | {' | '.join(shown)} |")
    floors = rows[0]["class_fid_floor"], rows[0]["label_accuracy_real"]
    lines.append(f"| | real images | {floors[0]:.2f} | {floors[1]:.3f} |")
    return "\n".join(lines)


def _shown(values: list[float]) -> str:
    mean, half = interval(values)
    return f"{mean:.3g}" if half is None else f"{mean:.3g} ± {half:.2g}"


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    print(table(run(given.folder, given.epochs, given.seeds)))


if __name__ == "__main__":
    main()
