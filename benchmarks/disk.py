"""Training from files against training from memory: images per second, and memory of the process.

`rates` writes an array of random images through the writer of the cache, as a first start does, and
trains on it in memory and in its file, in turn, in one process; then again with the file dropped
from the system's cache before every step. Ratios are of images per second, and of images per second
of CPU, which counts the threads that read and depends less on what else a machine does. `memory`
trains from the file alone, in a process of its own. `shards` goes the whole way from .tar files of
PNG: a first start, a second one, and training from the copy and without one.

    python -m benchmarks.disk rates [--images 1e6] [--presets mnist-small cifar10-small]
    python -m benchmarks.disk memory [--images 1e6] [--presets mnist-small]
    python -m benchmarks.disk shards [--images 50000]
"""

import argparse
import io
import json
import os
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.scale import memory_bytes
from benchmarks.speed.rates import ratio
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data import stored
from robustdiff.data.arrays import LabelledImages
from robustdiff.data.image_cache import Contents, mapped_array, write_cache
from robustdiff.data.registry import load_images
from robustdiff.device import keep_freed_memory, set_precision
from robustdiff.progress import Report
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.task import Task

CHANNELS, SIDE, CLASSES = 3, 32, 10
BLOCK, SHARDS, WARM_UP = 10_000, 5, 4
Numbers = dict[str, object]


def write_images(folder: Path, count: int) -> Path:
    """Write random images through the writer of the cache, if not yet there; return their file."""
    place = folder / f"{count}-{CHANNELS}"
    if (place / "images.json").exists():
        return next(place.glob("*.npy"))
    draw = np.random.default_rng(0)

    def decode(out: BinaryIO) -> tuple[Contents, bool]:
        for start in range(0, count, BLOCK):
            size = (min(BLOCK, count - start), CHANNELS, SIDE, SIDE)
            out.write(draw.integers(0, 256, size, dtype=np.uint8).data)
        return Contents(None, CHANNELS, [""] * count, [], []), True

    write_cache(place / "images", "0" * 16, SIDE, decode)
    return next(place.glob("*.npy"))


def steps_of(name: str, images: Tensor) -> tuple[Callable[[], int], int]:
    """Return what trains a step on images and returns how many it saw; and the batch."""
    config = resolve(preset(name), {"curriculum.name": "uniform", "train.steps": 10**9})
    given = torch.arange(len(images)) % CLASSES
    task = Task(
        config=config,
        data=LabelledImages(images, given),
        num_classes=CLASSES,
        dtype=set_precision(config.train.precision, torch.device("cpu")),
    )
    events = train(new_state(task), task)

    def step() -> int:
        next(event for event in events if isinstance(event, StepDone))
        return config.train.batch_size

    return step, config.train.batch_size


def in_turn(folder: Path, name: str, args: argparse.Namespace) -> Numbers:
    """Train on images of memory and on the same of a file, in turn."""
    file = write_images(folder, args.images)
    memory, _ = steps_of(name, torch.from_numpy(np.load(file)))
    mapped, _ = steps_of(name, stored.tensor_of(mapped_array(file)))
    works = {"memory": memory, "file": mapped}
    found = compare(works, args.rounds)
    with file.open("rb") as opened:
        drop = partial(os.posix_fadvise, opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        cold = compare(works, args.rounds, drop)
    return {"preset": name, "images": args.images, "cached": found, "not cached": cold}


def compare(
    works: dict[str, Callable[[], int]],
    rounds: int,
    before_each: Callable[[], object] = lambda: None,
) -> Numbers:
    """Make a step of each work in turn; compare all with the first, by time and by CPU time."""
    clocks = {"wall": time.perf_counter, "CPU": time.process_time}
    taken: dict[str, dict[str, list[float]]] = {c: {w: [] for w in works} for c in clocks}
    for number in range(rounds + WARM_UP):
        for name, work in works.items():
            before_each()
            before = {clock: now() for clock, now in clocks.items()}
            seen = work()
            if number >= WARM_UP:
                for clock, now in clocks.items():
                    taken[clock][name].append(seen / (now() - before[clock]))
    first = next(iter(works))
    found: Numbers = {"images/s": {n: float(np.median(v)) for n, v in taken["wall"].items()}}
    for clock, speeds in taken.items():
        found[f"ratio, {clock}"] = {
            name: ratio(speeds[name], speeds[first])["median"] for name in works
        }
    return found


@contextmanager
def peak(name: str) -> Iterator[list[int]]:
    """Measure the peak of an entry of this process's memory in the block, in bytes above before."""
    found, done = [0], threading.Event()
    before = memory_bytes(name)

    def watch() -> None:
        while not done.wait(0.005):
            found[0] = max(found[0], memory_bytes(name) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        done.set()
        thread.join()


def memory_of(folder: Path, name: str, args: argparse.Namespace) -> Numbers:
    """Train from a file alone; return what the process holds, GiB."""
    file = write_images(folder, args.images)
    parts = ("VmRSS", "RssAnon", "RssFile")
    idle = {part: memory_bytes(part) / 2**30 for part in parts}
    step, batch = steps_of(name, stored.tensor_of(mapped_array(file)))
    most = dict.fromkeys(parts, 0.0)
    started, seen = time.perf_counter(), 0
    while time.perf_counter() - started < args.seconds:
        seen += step()
        most = {part: max(most[part], memory_bytes(part) / 2**30) for part in parts}
    size = file.stat().st_size / 2**30
    return {"preset": name, "batch": batch, "file": size, "seen": seen, "idle": idle, "most": most}


def write_shards(folder: Path, count: int) -> None:
    """Write .tar files of PNG, smooth random images, and their classes."""
    draw = np.random.default_rng(0)
    for number in range(SHARDS):
        with tarfile.open(folder / f"{number}.tar", "w") as tar:
            for row in range(number, count, SHARDS):
                pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                content = io.BytesIO()
                Image.fromarray(pixels).resize((SIDE, SIDE)).save(content, "png")
                label = str(row % CLASSES).encode()
                for kind, part in (("png", content.getvalue()), ("cls", label)):
                    entry = tarfile.TarInfo(f"{row:08}.{kind}")
                    entry.size = len(part)
                    tar.addfile(entry, io.BytesIO(part))


def from_shards(folder: Path, args: argparse.Namespace) -> Numbers:
    """Start on shards twice, and train on their copy and without one, in turn."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    (folder / "shards").mkdir()
    write_shards(folder / "shards", args.images)
    config = DataConfig(dataset="webdataset", data_dir=str(folder / "shards"))
    found: Numbers = {"images": args.images, "pixels, MB": args.images * CHANNELS * SIDE**2 / 1e6}
    for start in ("first", "second"):
        began, clock = time.perf_counter(), time.process_time()
        with peak("RssAnon") as most:
            images = load_images(config, Report())
        found |= {
            f"{start} start, s": time.perf_counter() - began,
            f"{start} start, CPU s": time.process_time() - clock,
            f"{start} start, peak RssAnon, MB": most[0] / 1e6,
        }
    each_time = load_images(replace(config, copy=False), Report())
    memory = images.train.whole().clone()  # type: ignore[attr-defined] # they are stored
    works = {"memory": memory, "file": images.train, "no copy": each_time.train}
    for name in args.presets:
        steps = {who: steps_of(name, train_images)[0] for who, train_images in works.items()}
        found[name] = compare(steps, args.rounds)
    return found


def main() -> None:
    """Measure, and print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("rates", "memory", "shards"))
    parser.add_argument("--images", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--presets", nargs="+", default=["mnist-small"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--folder", type=Path, help="keeps the arrays for another time")
    args = parser.parse_args()
    keep_freed_memory()
    stored.IN_MEMORY = 0  # so that fewer images are read as many are
    with tempfile.TemporaryDirectory() as name:
        folder = args.folder or Path(name)
        if args.what == "shards":
            print(json.dumps(from_shards(folder, args), indent=1))
            return
        measure = in_turn if args.what == "rates" else memory_of
        for each in args.presets:
            print(json.dumps(measure(folder, each, args), indent=1), flush=True)


if __name__ == "__main__":
    main()
