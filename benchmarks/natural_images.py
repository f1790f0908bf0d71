"""What do wrong labels cost on natural images, and what wins it back?

The tables of docs/natural-images.md: CIFAR-10 as a folder, trained on at 16 x 16 pixels (or 32 x
32, briefly or for longer) under four kinds of wrong labels. One draw of each noise serves all
methods and seeds. Labels are judged once, at 32 x 32 pixels, as anyone can who has the original
images; every method that judges gets these class probabilities, and `tdsm` the transition matrix
that they show. Runs lie under --out/runs-16 (-32, -32-long); what is there is not done again, and
several processes may share the work.

    python benchmarks/natural_images.py --cifar DIR --human FILE --out DIR METHOD ...
    robustdiff compare DIR/runs-16
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from corruptions.readers import read_labels
from robustdiff.config.layers import Layer, resolve
from robustdiff.config.presets import preset
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.device import pick_device, set_precision
from robustdiff.files.atomic import write_atomic
from robustdiff.jobs.study import Cell, run_study
from robustdiff.labels.crossfit import crossfit, make_plan
from robustdiff.labels.decision import decide
from robustdiff.labels.given import prepare_labels
from robustdiff.progress import Report

NOISE: dict[str, dict[str, Any]] = {
    "symmetric-40": {"rate": 0.4},
    "asymmetric-40": {"type": "asymmetric", "rate": 0.4, "class_map": "cifar10"},
    "worse": {"labels_key": "worse_label"},
    "aggregated": {"labels_key": "aggre_label"},
    # What does a method cost where nothing is wrong? Only if asked for.
    "right": {},
}
WRONG = tuple(name for name, noise in NOISE.items() if noise)
METHODS: dict[str, Layer] = {
    "uniform": {},
    "crossfit": {"curriculum": {"name": "crossfit"}},
    "crossfit-soft": {"curriculum": {"name": "crossfit", "treatment": "soft"}},
    "crossfit-null": {"curriculum": {"name": "crossfit", "treatment": "null"}},
    "oracle": {"curriculum": {"name": "oracle"}},
    "pmi": {"curriculum": {"name": "pmi"}},
    "margin": {"curriculum": {"name": "margin"}},
    "dynamics-label": {"curriculum": {"name": "dynamics-label"}},
    "tdsm": {"objective": {"name": "tdsm"}},
}
SIZES: dict[str, list[Layer]] = {
    "16": [preset("cifar-16")],
    # A narrow first level, an additional last one.
    "32": [
        preset("cifar-16"),
        {"data": {"image_size": 32}, "model": {"channels": [32, 128, 128, 128]}},
    ],
    "32-long": [preset("cifar10-small"), {"train": {"steps": 6000, "decay_steps": 1500}}],
}
MEASURED: Layer = {"eval": {"num_samples": 5000, "cas": True}, "sample": {"batch_size": 1000}}


def folder(path: Path) -> dict[str, str]:
    """Return the data section of a folder."""
    return {"dataset": "folder", "data_dir": str(path)}


def draw(name: str, images: Images, cifar: Path, human: Path) -> np.ndarray:
    """Return the given labels of one noise, (N,) int64 in the order of the folder's images."""
    noise = NOISE[name]
    if "labels_key" not in noise:
        return prepare_labels(
            resolve({"data": folder(cifar), "noise": noise}), images, Report()
        ).given
    everyone = read_labels(human, noise["labels_key"]).given
    assert everyone is not None
    assert images.paths is not None
    return everyone[[int(Path(path).stem) for path in images.paths]]


def judged(images: Images, given: np.ndarray, path: Path) -> None:
    """Judge labels with effort `default` and write the class probabilities."""
    device = pick_device("auto")
    plan = make_plan(
        resolve({}).judge,
        tuple(images.train.shape[1:]),
        len(given),
        seed=0,
        dtype=set_precision("auto", device),
    )
    found = crossfit(
        images.train.to(device),
        torch.from_numpy(given),
        images.num_classes,
        plan,
        progress=Report().stage("judging"),
        folder=path.with_suffix(".unfinished"),
    )
    write_atomic(path, lambda file: np.savez(file, found.probabilities))


def cells(
    out: Path,
    cifar: Path,
    methods: list[str],
    seeds: list[int],
    noises: Sequence[str] = WRONG,
    size: str = "16",
    *,
    compiled: bool = False,
) -> list[Cell]:
    """Return all runs at a size, seed by seed; one with clean labels is always among them."""
    found = []
    for seed in seeds:
        data = {"data": folder(cifar), "seed": seed}
        base = [*SIZES[size], data, MEASURED, {"train": {"compile": compiled}}]
        found.append(Cell(Path("clean") / "uniform" / f"s{seed}", resolve(*base)))
        for name in noises:
            noise = {"noise": {"labels": str(out / f"{name}.labels.npy")}}
            evidence_of = {
                "crossfit": {"judge": {"probabilities": str(out / f"{name}.probs.npz")}},
                "tdsm": {"objective": {"matrix": str(out / f"{name}.probs.matrix.npy")}},
            }
            for method in methods:
                evidence = evidence_of.get(method.partition("-")[0], {})
                config = resolve(*base, noise, METHODS[method], evidence)
                found.append(Cell(Path(name) / method / f"s{seed}", config))
    return found


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--cifar", type=Path, required=True, help="CIFAR-10, files named by index")
    parser.add_argument("--human", type=Path, required=True, help="CIFAR-10_human.pt")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--noise", nargs="+", choices=NOISE, default=list(WRONG))
    parser.add_argument("--size", choices=SIZES, default="16", help="pixels a side, how long")
    parser.add_argument("--compile", action="store_true", help="compile all networks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    images = load_images(resolve({"data": folder(options.cifar)}).data, Report())
    for name in options.noise:
        labels = options.out / f"{name}.labels.npy"
        if not labels.exists():
            given = draw(name, images, options.cifar, options.human)
            write_atomic(labels, lambda file, given=given: np.save(file, given))
        if not (path := options.out / f"{name}.probs.npz").exists():
            judged(images, np.load(labels), path)
        if not (file := path.with_suffix(".matrix.npy")).exists():
            (probabilities,) = np.load(path).values()
            found = decide(probabilities, np.load(labels)).transition
            write_atomic(file, lambda file, found=found: np.save(file, found))
    runs = cells(
        options.out,
        options.cifar,
        options.methods,
        options.seeds,
        options.noise,
        options.size,
        compiled=options.compile,
    )
    outcome = run_study(runs, options.out / f"runs-{options.size}", Report())
    for line in outcome.failed:
        print(line)


if __name__ == "__main__":
    main()
