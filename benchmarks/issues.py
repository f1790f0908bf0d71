"""How well does an audit find images that fit no class, and images that are there twice?

Plants such images among those of a dataset, a tenth in all: noise, scribbles, another dataset's
images, under labels drawn at random; copies under the same and under another label, and near copies
that are moved, cropped, brighter, compressed or grainy. Then looks for them as `robustdiff audit`
does and prints, for each kind, the share that is found, and for each issue the share of its images
that were planted. What is flagged besides is drawn with `--pictures`: datasets have copies of their
own.

    python benchmarks/issues.py --data-dir DIR --dataset folder --other mnist --other-dir DIR
"""

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from robustdiff.config.layers import resolve
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.jobs.audit import crossfit_findings, evidence_findings
from robustdiff.labels.evidence import dataset_of, is_given
from robustdiff.labels.given import prepare_labels
from robustdiff.labels.image_issues import NEAR, OFF_TOPIC, OTHER, copy_images, find_image_issues
from robustdiff.progress import Report
from robustdiff.reports.intervals import cell
from robustdiff.reports.pictures import image_grid, write_png

Pixels = NDArray[np.uint8]
Generator = np.random.Generator

SHARE = 0.1
STRANGE, EXACT = ("noise", "scribble", "other data"), ("copy, same label", "copy, other label")


def noise(rng: Generator, shape: tuple[int, int, int]) -> Pixels:
    """Return uniform, normal or coarse noise."""
    channels, height, width = shape
    kind = rng.integers(3)
    if kind == 0:
        return rng.integers(0, 256, shape).astype(np.uint8)
    if kind == 1:
        return _pixels(rng.normal(rng.uniform(60, 200), rng.uniform(20, 60), shape))
    coarse = rng.integers(0, 256, (channels, -(-height // 2), -(-width // 2)))
    return coarse.repeat(2, 1).repeat(2, 2)[:, :height, :width].astype(np.uint8)


def scribble(rng: Generator, shape: tuple[int, int, int]) -> Pixels:
    """Return a few random lines on an even ground."""
    channels, height, width = shape
    mode = "RGB" if channels == 3 else "L"

    def colour() -> tuple[int, ...] | int:
        drawn = tuple(rng.integers(0, 256, channels).tolist())
        return drawn if channels == 3 else drawn[0]

    canvas = Image.new(mode, (4 * width, 4 * height), colour())
    draw = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(2, 6)):
        points = rng.uniform(0, 4, (rng.integers(3, 9), 2)) * [width, height]
        thick = int(rng.integers(1, 3) * height / 8 + 1)
        draw.line([tuple(p) for p in points.tolist()], fill=colour(), width=thick, joint="curve")
    return _array(canvas.resize((width, height), Image.Resampling.BOX))


def moved(rng: Generator, image: Pixels) -> Pixels:
    """Shift an image by up to a tenth of its side; what was its border fills the gap."""
    most = max(1, round(image.shape[1] / 10))
    steps = [
        (y, x) for y in range(2 * most + 1) for x in range(2 * most + 1) if (y, x) != (most,) * 2
    ]
    y, x = steps[rng.integers(len(steps))]
    padded = np.pad(image, ((0, 0), (most, most), (most, most)), mode="edge")
    return padded[:, y : y + image.shape[1], x : x + image.shape[2]].copy()


def cropped(rng: Generator, image: Pixels) -> Pixels:
    """Enlarge a part of 85 to 95 % of the side."""
    side = image.shape[1]
    kept = round(side * rng.uniform(0.85, 0.95))
    y, x = rng.integers(0, side - kept + 1, 2)
    part = _picture(image[:, y : y + kept, x : x + kept])
    return _array(part.resize((image.shape[2], side), Image.Resampling.BILINEAR))


def brighter(rng: Generator, image: Pixels) -> Pixels:
    """Change contrast by up to 30 % and brightness by up to 20 of 255."""
    return _pixels((image - 128.0) * rng.uniform(0.7, 1.3) + 128 + rng.uniform(-20, 20))


def compressed(rng: Generator, image: Pixels) -> Pixels:
    """Compress as JPEG of quality 40 to 79."""
    buffer = io.BytesIO()
    _picture(image).save(buffer, "JPEG", quality=int(rng.integers(40, 80)))
    return _array(Image.open(buffer))


def grainy(rng: Generator, image: Pixels) -> Pixels:
    """Add normal noise of standard deviation 6 of 255."""
    return _pixels(image + rng.normal(0, 6, image.shape))


NEARLY: dict[str, Callable[[Generator, Pixels], Pixels]] = {
    "moved": moved,
    "cropped": cropped,
    "brighter": brighter,
    "compressed": compressed,
    "grainy": grainy,
}


def _pixels(values: NDArray[np.float64]) -> Pixels:
    return np.clip(values.round(), 0, 255).astype(np.uint8)


def _picture(image: Pixels) -> Image.Image:
    return Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0])


def _array(picture: Image.Image) -> Pixels:
    pixels = np.asarray(picture)
    return pixels.transpose(2, 0, 1).copy() if pixels.ndim == 3 else pixels[None].copy()


class Planted(NamedTuple):
    """A dataset with planted images.

    Attributes:
        images: (N, C, H, W) uint8.
        given: (N,) int64.
        kinds: (N,) what was planted, "" for the dataset's own images.
        partners: (N,) int64, the image that a planted one is a copy of; -1 for none.
    """

    images: Pixels
    given: NDArray[np.int64]
    kinds: NDArray[np.str_]
    partners: NDArray[np.int64]


def plant(
    images: Pixels, labels: NDArray[np.int64], num_classes: int, others: Pixels, seed: int
) -> Planted:
    """Plant a tenth: an eighth each of five kinds, and three eighths of near copies."""
    rng = np.random.default_rng(seed)
    shape, each = images.shape[1:], round(SHARE * len(images) / 8)
    whole = _picture(images[0])
    added: list[tuple[Pixels, int, str, int]] = []
    for kind in STRANGE:
        for _ in range(each):
            if kind == "other data":
                picture = _picture(others[rng.integers(len(others))]).convert(whole.mode)
                image = _array(picture.resize(whole.size, Image.Resampling.BILINEAR))
            else:
                image = (noise if kind == "noise" else scribble)(rng, shape)
            added.append((image, int(rng.integers(num_classes)), kind, -1))
    sources = iter(rng.permutation(len(images)).tolist())
    for kind in (*EXACT, *NEARLY):
        for _ in range(each if kind in EXACT else max(1, round(3 * each / len(NEARLY)))):
            source = next(sources)
            label = int(labels[source])
            if kind == EXACT[1]:
                label = int((label + rng.integers(1, num_classes)) % num_classes)
            copy = NEARLY[kind](rng, images[source]) if kind in NEARLY else images[source]
            added.append((copy, label, kind, source))
    own = len(images)
    order = rng.permutation(own + len(added))
    place = np.append(np.argsort(order), -1)
    more, given, kinds, partners = zip(*added, strict=True)
    return Planted(
        np.concatenate([images, np.stack(more)])[order],
        np.concatenate([labels, given]).astype(np.int64)[order],
        np.array([""] * own + list(kinds))[order],
        place[np.concatenate([np.full(own, -1), partners]).astype(int)][order],
    )


def measure(planted: Planted, kinds: dict[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Return the share of each planted kind that is found, and of each issue that was planted.

    A copy is found if it or its source is flagged; images with such a copy count as planted.
    """
    copied = np.isin(np.arange(len(planted.kinds)), planted.partners)
    expected = {OFF_TOPIC: STRANGE, NEAR: (EXACT[0], *NEARLY), OTHER: (EXACT[1],)}
    result: dict[str, float] = {}
    for issue, found in kinds.items():
        for kind in expected[issue]:
            rows = np.flatnonzero(planted.kinds == kind)
            hit = found[rows]
            if issue != OFF_TOPIC:
                hit = hit | found[planted.partners[rows]]
            if len(rows):
                result[kind] = float(hit.mean())
        meant = np.isin(planted.kinds, expected[issue]) | (copied & (issue != OFF_TOPIC))
        result[f"precision of {issue}"] = float(meant[found].mean()) if found.any() else 1.0
        result[f"{issue} besides"] = float((found & ~meant).mean())
    return result


def one(given: argparse.Namespace, config: Config, seed: int) -> dict[str, float]:
    """Plant, look and measure once."""
    whole = load_images(config.data, Report())
    chosen = np.sort(np.random.default_rng(seed).permutation(len(whole.train))[: given.count])
    part = whole.part(torch.from_numpy(chosen))
    others = resolve({"data": {"dataset": given.other, "data_dir": str(given.other_dir)}}).data
    pixels, labels = part.train.numpy(), part.train_labels.numpy()
    planted = Planted(pixels, labels, np.full(len(labels), ""), np.full(len(labels), -1))
    if not given.clean:
        foreign = load_images(others, Report()).train[:5000].numpy()
        planted = plant(pixels, labels, whole.num_classes, foreign, seed)
    images = Images(
        name=whole.name,
        train=torch.from_numpy(planted.images),
        train_labels=torch.from_numpy(planted.given),
        test=whole.test[:0],
        test_labels=whole.test_labels[:0],
        class_names=whole.class_names,
    )
    started = time.monotonic()
    probabilities = None if given.judge == "none" else _judged(config, images)
    judged = time.monotonic()
    issues = find_image_issues(images, planted.given, probabilities, Report())
    seconds = {"judge, s": judged - started, "search, s": time.monotonic() - judged}
    if given.pictures is not None:
        besides = np.flatnonzero(issues.is_copy & (planted.kinds == ""))[:100]
        if len(besides):
            pairs = zip(images.train[besides], copy_images(images, issues, besides), strict=True)
            shown = torch.stack([image for pair in pairs for image in pair])
            write_png(given.pictures, image_grid(shown, 20))
    return measure(planted, issues.kinds) | seconds


def _judged(config: Config, images: Images) -> NDArray[np.floating] | None:
    """Return class probabilities by the image alone."""
    labels = prepare_labels(config, images, Report())
    if is_given(config.judge):
        found = evidence_findings(dataset_of(config, images, labels), labels, config, Report())
    else:
        found = crossfit_findings(images, labels, config, Report(), Path("unfinished"))
    return found.trust.image_classes


def main() -> None:
    """Measure and print a table of means over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="folder")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--other", default="mnist", help="dataset of the other data's images")
    parser.add_argument("--other-dir", type=Path, default=Path("data"))
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument(
        "--judge", choices=("classifiers", "features", "none"), default="classifiers"
    )
    parser.add_argument("--clean", action="store_true", help="plant nothing")
    parser.add_argument("--pictures", type=Path, help="PNG of near copies that were not planted")
    given = parser.parse_args()
    judge = {"effort": "quick"}
    if given.judge == "features":
        judge["features"] = "efficientnet-lite0"
    data = {"dataset": given.dataset, "data_dir": str(given.data_dir), "whole": True}
    if given.image_size:
        data["image_size"] = given.image_size
    layers = [{"data": data, "judge": judge, "seed": seed} for seed in given.seeds]
    rows = [one(given, resolve(layer), layer["seed"]) for layer in layers]
    for row in rows:
        print(json.dumps(row), flush=True)
    print("| figure | mean |\n|---|---|")
    for key in rows[0]:
        print(f"| {key} | {cell([row[key] for row in rows])} |")


if __name__ == "__main__":
    main()
