"""Which fault does each metric see? Held-out real images in the place of generated ones, damaged.

- copies: images that the generator was trained on;
- wrong labels: a share of the images are asked for under another image's class;
- labels of pairs: the same within pairs of classes, the first with the second and so on;
- blur: each image is mixed with its mean over 3 x 3 pixels;
- typical only: the half of each class that lies nearest to the mean of its features;
- modes dropped: of ten clusters of each class the smallest are left out, half of its images;
- repeated: every image ten times.

    python benchmarks/faults_seen.py --data-dir DIR [--dataset mnist --image-size 14] --out FOLDER

FOLDER gets faults.csv, a row for each fault and repetition, and faults.md, a table.
"""

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

from robustdiff.classifiers.image import embed
from robustdiff.config.images import DataConfig
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.metrics.cas import classification_accuracy
from robustdiff.metrics.catalogue import FURTHER, METRICS
from robustdiff.metrics.evaluator import load_or_train
from robustdiff.metrics.further import measure_further
from robustdiff.metrics.report import Reference, make_reference, measure, see
from robustdiff.progress import Report
from robustdiff.reports.intervals import interval

SHOWN = [metric for metric in (*METRICS, *FURTHER) if not metric.key.startswith("evaluator_")]
CLUSTERS = 10


class Pool(NamedTuple):
    """Images to choose from.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        features: (N, D) of the evaluator.
        rows: (N,) int64, their places in the held-out part; empty for training images.
    """

    images: Tensor
    labels: Tensor
    features: Tensor
    rows: Tensor

    def part(self, where: Tensor) -> "Pool":
        """Return some of the images."""
        rows = self.rows[where] if len(self.rows) else self.rows
        return Pool(self.images[where], self.labels[where], self.features[where], rows)

    def balanced(self, count: int, generator: torch.Generator) -> "Pool":
        """Choose `count` images of every class."""
        order = torch.randperm(len(self.labels), generator=generator)
        by_class = (order[self.labels[order] == label][:count] for label in self.labels.unique())
        return self.part(torch.cat(list(by_class)))


def within_pairs(labels: Tensor) -> Tensor:
    """Return the other class of the pair of each: 0 and 1, 2 and 3, and so on."""
    return labels + 1 - 2 * (labels % 2)


def wrong(share: float, *, pairs: bool) -> Callable[[Pool, int, torch.Generator], Pool]:
    """Return the fault of a share of wrong labels; each class keeps its number of images."""

    def damage(pool: Pool, count: int, generator: torch.Generator) -> Pool:
        found = pool.balanced(count, generator)
        labels, k = found.labels.clone(), len(found.labels.unique())
        for label in range(k):
            mine = (found.labels == label).nonzero()[: round(share * count), 0]
            shift = torch.arange(1, len(mine) + 1) % (k - 1) + 1  # to all other classes alike
            labels[mine] = within_pairs(found.labels[mine]) if pairs else (label + shift) % k
        return found._replace(labels=labels)

    return damage


def blurred(pool: Pool, count: int, generator: torch.Generator) -> Pool:
    """Mix each image half and half with its mean over 3 x 3 pixels."""
    found = pool.balanced(count, generator)
    pixels = found.images.float()
    mean = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return found._replace(images=((pixels + mean) / 2).round().to(torch.uint8))


def typical(pool: Pool, count: int, generator: torch.Generator) -> Pool:
    """Choose from the half of each class nearest to the mean of its features."""
    kept = []
    for label in pool.labels.unique():
        mine = (pool.labels == label).nonzero()[:, 0]
        features = pool.features[mine]
        distances = (features - features.mean(dim=0)).square().sum(dim=1)
        kept.append(mine[distances.argsort()[: max(count, len(mine) // 2)]])
    return pool.part(torch.cat(kept)).balanced(count, generator)


def without_modes(pool: Pool, count: int, generator: torch.Generator) -> Pool:
    """Leave the smallest of ten clusters of every class out, until half of its images are gone."""
    kept = []
    for label in pool.labels.unique():
        mine = (pool.labels == label).nonzero()[:, 0]
        clusters = KMeans(CLUSTERS, n_init=1, random_state=0).fit_predict(pool.features[mine])
        order = np.argsort(-np.bincount(clusters, minlength=CLUSTERS))
        sizes = np.cumsum(np.bincount(clusters, minlength=CLUSTERS)[order])
        least = np.searchsorted(sizes, max(count, len(mine) / 2)) + 1
        kept.append(mine[torch.from_numpy(np.isin(clusters, order[:least]))])
    return pool.part(torch.cat(kept)).balanced(count, generator)


def repeated(pool: Pool, count: int, generator: torch.Generator) -> Pool:
    """Take a tenth of the images ten times."""
    few = pool.balanced(count // 10, generator)
    return few.part(torch.arange(len(few.labels)).repeat(10))


def intact(pool: Pool, count: int, generator: torch.Generator) -> Pool:
    """Take images as they are."""
    return pool.balanced(count, generator)


# Fault -> what makes it, and whether of training images.
FAULTS: dict[str, tuple[Callable[[Pool, int, torch.Generator], Pool], bool]] = {
    "none": (intact, False),
    "copies of training images": (intact, True),
    "wrong labels, 20 %": (wrong(0.2, pairs=False), False),
    "labels of pairs exchanged, 20 %": (wrong(0.2, pairs=True), False),
    "blur": (blurred, False),
    "typical images only": (typical, False),
    "modes dropped": (without_modes, False),
    "every image ten times": (repeated, False),
}


def figures(reference: Reference, images: Images, made: Pool) -> dict[str, float]:
    """Return key -> figure of images in the place of generated ones."""
    seen = see(reference, made.images, made.labels)
    measured = measure(reference, seen)
    found = measured | measure_further(reference, seen, measured)
    others = torch.ones(len(images.test), dtype=torch.bool)
    others[made.rows] = False  # what was learnt is no test
    tests = images.test[others], images.test_labels[others], images.num_classes
    right = classification_accuracy(made.images, made.labels, *tests, trainings=1)
    found["cas"] = float(right.double().mean())
    return {metric.key: found[metric.key] for metric in SHOWN if metric.key in found}


def experiment(
    images: Images, reference: Reference, count: int, repetitions: int
) -> dict[str, list[dict[str, float]]]:
    """Return fault -> figures of each repetition; repetition s chooses the same intact images."""
    evaluator = reference.evaluator
    held_out, none = torch.arange(len(images.test)), torch.zeros(0, dtype=torch.int64)
    pools = [
        Pool(part, labels, embed(evaluator, part)[0], rows)
        for part, labels, rows in (
            (images.test, images.test_labels, held_out),
            (images.train, images.train_labels, none),
        )
    ]
    return {
        name: [
            figures(
                reference,
                images,
                damage(pools[copies], count, torch.Generator().manual_seed(seed)),
            )
            for seed in range(repetitions)
        ]
        for name, (damage, copies) in FAULTS.items()
    }


# Metrics of which more is better; of the others less is, but density: further from real is worse.
_MORE = {
    *("inception_score", "label_accuracy", "coverage", "cas", "precision", "recall"),
    *("class_density", "class_coverage", "density"),
}


def marked(key: str, rows: list[dict[str, float]], intact: list[dict[str, float]]) -> str:
    """Format a figure: bold where the fault makes it worse, in italics where it makes it better.

    It counts as made worse or better where the mean of the differences from the intact images,
    repetition by repetition, is further from 0 than its own 95 % interval.
    """
    mean, _ = interval([row[key] for row in rows])
    change, half = interval([a[key] - b[key] for a, b in zip(rows, intact, strict=True)])
    shown = f"{mean:.3f}"
    if rows is intact or half is None or abs(change) <= half:
        return shown
    return f"**{shown}**" if (change < 0) == (key in _MORE) else f"*{shown}*"


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """Return the table in Markdown: a row for each metric, a column for each fault."""
    lines = ["| metric | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for metric in SHOWN:
        if metric.key in found["none"][0]:
            cells = (marked(metric.key, rows, found["none"]) for rows in found.values())
            lines.append(f"| {metric.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--train-size", type=int)
    parser.add_argument("--per-class", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--evaluators", type=Path, default=Path("runs/evaluators"))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    config = DataConfig(
        dataset=given.dataset,
        data_dir=given.data_dir,
        image_size=given.image_size,
        train_size=given.train_size,
    )
    images = load_images(config, Report())
    evaluator, digest = load_or_train(given.evaluators, images, images.train_labels, seed=0)
    reference = make_reference(
        real=images.train,
        real_labels=images.train_labels,
        heldout=images.test,
        heldout_labels=images.test_labels,
        counts=[given.per_class] * images.num_classes,
        evaluator=evaluator,
        seed=0,
    )
    found = experiment(images, reference, given.per_class, given.repetitions)
    given.out.mkdir(parents=True, exist_ok=True)
    with (given.out / "faults.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        keys = list(found["none"][0])
        writer.writerow(["fault", "repetition", *keys])
        for name, rows in found.items():
            for number, row in enumerate(rows):
                writer.writerow([name, number, *(row[key] for key in keys)])
    text = table(found)
    (given.out / "faults.md").write_text(text)
    print(f"evaluator {digest}\n\n{text}")


if __name__ == "__main__":
    main()
