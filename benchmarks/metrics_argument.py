"""Which metric sees which fault: real images, damaged in one way at a time (docs/paper.md).

The paper argues (section 4.1) that FID and the inception score cannot tell whether a
class-conditional model obeys its condition, and proposes the NLL of the class. Three damages:

- labels shuffled: a share of the images are asked for under another image's class;
- classes dropped: fewer classes are generated, in the same number of images;
- modes dropped: of every class only some of ten clusters of its images are generated.

    python benchmarks/metrics_argument.py --data-dir DIR --out FOLDER [--image-size 14]

FOLDER gets argument.csv, argument.md and argument.png.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from sklearn.cluster import KMeans
from torch import Tensor

from robustdiff.classifiers.image import embed
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.metrics.classification import nll
from robustdiff.metrics.distribution import classwise_frechet, frechet_distance, inception_score
from robustdiff.metrics.evaluator import load_or_train
from robustdiff.metrics.neighbours import density_coverage
from robustdiff.progress import Report
from robustdiff.reports.figures import write_figure
from robustdiff.reports.intervals import cell, interval

METRICS = ("FID", "IS", "density", "coverage", "NLL", "class-wise FID")
CLUSTERS = 10


class Embedded(NamedTuple):
    """Images as the metrics see them: (N, D) features, (N, K) logits, (N,) labels."""

    features: Tensor
    logits: Tensor
    labels: Tensor

    def part(self, where: Tensor) -> "Embedded":
        """Return some of the images."""
        return Embedded(*(each[where] for each in self))


def shuffled(pool: Embedded, share: float, count: int, generator: torch.Generator) -> Embedded:
    """Take `count` images per class, and permute the labels of a share of them."""
    found = pool.part(_balanced(pool.labels, count, generator))
    order = torch.randperm(len(found.labels), generator=generator)
    chosen = order[: round(share * len(order))]
    labels = found.labels.clone()
    labels[chosen] = labels[chosen.roll(1)]
    return found._replace(labels=labels)


def without_classes(
    pool: Embedded, share: float, count: int, generator: torch.Generator
) -> Embedded:
    """Leave a share of the classes out; the others fill the same number of images."""
    k = pool.logits.shape[1]
    kept = torch.randperm(k, generator=generator)[: k - round(share * k)]
    there = pool.part(torch.isin(pool.labels, kept).nonzero()[:, 0])
    return there.part(_balanced(there.labels, count * k // len(kept), generator))


def without_modes(pool: Embedded, share: float, count: int, generator: torch.Generator) -> Embedded:
    """Leave the smallest clusters of every class out, until a share of its images is gone."""
    kept = []
    for label in pool.labels.unique():
        mine = (pool.labels == label).nonzero()[:, 0]
        clusters = KMeans(CLUSTERS, n_init=1, random_state=0).fit_predict(pool.features[mine])
        sizes = np.bincount(clusters, minlength=CLUSTERS)
        order = np.argsort(-sizes)
        least = np.searchsorted(np.cumsum(sizes[order]), max(count, (1 - share) * len(mine))) + 1
        kept.append(mine[torch.from_numpy(np.isin(clusters, order[:least]))])
    there = pool.part(torch.cat(kept))
    return there.part(_balanced(there.labels, count, generator))


def _balanced(labels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose `count` images of every class that is there, classes mixed."""
    order = torch.randperm(len(labels), generator=generator)
    chosen = torch.cat([order[labels[order] == label][:count] for label in labels.unique()])
    return chosen[torch.randperm(len(chosen), generator=generator)]


Damage = Callable[[Embedded, float, int, torch.Generator], Embedded]
DAMAGES: dict[str, tuple[Damage, tuple[float, ...]]] = {
    "labels shuffled": (shuffled, (0, 0.1, 0.25, 0.5, 1)),
    "classes dropped": (without_classes, (0, 0.1, 0.2, 0.3, 0.5)),
    "modes dropped": (without_modes, (0, 0.25, 0.5, 0.7)),
}


def measure(real: Embedded, centres: Tensor, made: Embedded, seed: int) -> dict[str, float]:
    """Return all metrics; class-wise FID over the classes that were made.

    Args:
        real: Images to compare with.
        centres: (C, D) features of real images of all classes alike, for density and coverage.
        made: Images in the place of generated ones.
        seed: Seed of the splits of the inception score.
    """
    classes = made.labels.unique()
    asked = torch.isin(real.labels, classes)
    number = torch.zeros(int(classes.max()) + 1, dtype=torch.int64)
    number[classes] = torch.arange(len(classes))
    density, coverage = density_coverage(centres, made.features)
    return {
        "FID": frechet_distance(real.features, made.features),
        "IS": inception_score(made.logits, seed),
        "density": density,
        "coverage": coverage,
        "NLL": nll(made.logits, made.labels),
        "class-wise FID": classwise_frechet(
            real.features[asked],
            number[real.labels[asked]],
            made.features,
            number[made.labels],
            len(classes),
        )[0],
    }


def experiment(
    real: Embedded, pool: Embedded, count: int, repetitions: int
) -> dict[str, dict[float, list[dict[str, float]]]]:
    """Return damage -> share -> metrics of each repetition; the images differ between those."""
    found: dict[str, dict[float, list[dict[str, float]]]] = {}
    for name, (damage, shares) in DAMAGES.items():
        found[name] = {}
        for share in shares:
            rows = []
            for seed in range(repetitions):
                generator = torch.Generator().manual_seed(seed)
                centres = real.features[_balanced(real.labels, count, generator)]
                made = damage(pool, share, count, generator)
                rows.append(measure(real, centres, made, seed))
            found[name][share] = rows
    return found


def figure(found: dict[str, dict[float, list[dict[str, float]]]]) -> Figure:
    """Draw every metric against the strength of every damage; scales are shared by columns."""
    drawing = Figure(figsize=(13, 6.5), dpi=110, layout="constrained")
    grid = drawing.subplots(len(found), len(METRICS), sharex="row", sharey="col")
    for axes, metric in zip(grid[0], METRICS, strict=True):
        axes.set_title(metric)
    for panels, (name, by_share) in zip(grid, found.items(), strict=True):
        for axes, metric in zip(panels, METRICS, strict=True):
            figures = [interval([row[metric] for row in rows]) for rows in by_share.values()]
            means, halves = ([f[i] or 0 for f in figures] for i in (0, 1))
            axes.errorbar(list(by_share), means, yerr=halves, marker="o", ms=3, capsize=2)
            if metric in ("FID", "NLL", "class-wise FID"):
                axes.set_yscale("log")
            axes.grid(alpha=0.3)
            axes.tick_params(labelleft=True)
        panels[0].set_ylabel(name)
        panels[0].set_xlabel("share")
    return drawing


def main() -> None:
    """Measure, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--per-class", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--evaluators", type=Path, default=Path("runs/evaluators"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = DataConfig(dataset=given.dataset, data_dir=given.data_dir, image_size=given.image_size)
    images = load_images(config, Report())
    judge, digest = load_or_train(
        given.evaluators,
        images,
        images.train_labels,
        seed=0,
    )
    real = Embedded(*embed(judge, images.train), images.train_labels)
    pool = Embedded(*embed(judge, images.test), images.test_labels)
    found = experiment(real, pool, given.per_class, given.repetitions)
    given.out.mkdir(parents=True, exist_ok=True)
    lines = ["| damage | share | " + " | ".join(METRICS) + " |", "|---" * 8 + "|"]
    with (given.out / "argument.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["damage", "share", "repetition", *METRICS])
        for name, by_share in found.items():
            for share, rows in by_share.items():
                for number, row in enumerate(rows):
                    table.writerow([name, share, number, *(row[metric] for metric in METRICS)])
                figures = " | ".join(cell([row[metric] for row in rows]) for metric in METRICS)
                lines.append(f"| {name} | {share:g} | {figures} |")
    text = "\n".join(lines) + "\n"
    (given.out / "argument.md").write_text(text)
    write_figure(figure(found), given.out / "argument.png")
    print(f"evaluator {digest}\n\n{text}")


if __name__ == "__main__":
    main()
