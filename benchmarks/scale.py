"""What a curriculum costs at N samples: bytes of state, peak memory and time of each operation.

Every row runs in a process of its own under a limit on its memory (RLIMIT_DATA), so that a row
which needs more fails instead of taking the machine. The peak is the process's resident high-water
mark during the operation, above what it held before. Scores are made up; `plan` runs a whole
scoring round with a fake network on images of one pixel. `checkpoint` writes and reads checkpoints
of one score a sample, or of a thousand classes, without the weights. `judge-1000` runs the rounds
of `crossfit` on images of one pixel and 1,000 classes, one pass over them, and decides about
made-up probabilities.

    python benchmarks/scale.py [--samples 1e6 1e7 1e8] [--limit-gib 10] [--out scale.json]
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from curricula.sparse import KEPT, MOST_DENSE, ClassValues, unknown

# Row -> its curriculum, and the classes that its evidence keeps apart; 0 for one score a sample.
ROWS = {
    "uniform": ("uniform", 0), "pmi": ("pmi", 0), "small-loss": ("small-loss", 0),
    "aum": ("aum", 0), "forgetting": ("forgetting", 0), "margin": ("margin", 10),
    "margin-1000": ("margin", 1000),
}  # fmt: skip
NUM_CLASSES, MANY = 10, 1000
# Evidence is measured up to so many values held, and made up so many rows at a time.
MOST_CELLS, PIECE = 200_000_000, 1 << 20
# Checkpoints are written of up to so many bytes of scores.
MOST_BYTES = 2_000_000_000
# Bytes of state a sample of which checkpoints are written.
CHECKPOINTS = {"checkpoint": 8, "checkpoint-1000": 90}
BATCH = 512
PLAN_BATCH = 32_768


def state_bytes(state: dict[str, Any]) -> int:
    """Return the bytes of a sampler's state; arrays that share memory count once."""
    return sum({v.ctypes.data: v.nbytes for v in arrays(state)}.values())


def arrays(state: object) -> list[np.ndarray]:
    """Return the arrays in nested dicts."""
    if isinstance(state, dict):
        return [array for part in state.values() for array in arrays(part)]
    return [state] if isinstance(state, np.ndarray) else []


def measured(work: Callable[[], object]) -> dict[str, float]:
    """Return seconds and bytes at the peak above those held before."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_bytes("VmRSS")
    started = time.perf_counter()
    result = work()  # alive until the peak is read
    seconds = time.perf_counter() - started
    peak = memory_bytes("VmHWM")
    del result
    return {"seconds": seconds, "peak_bytes": max(0, peak - before)}


def memory_bytes(name: str) -> int:
    """Return an entry of this process's memory in /proc: VmRSS now, VmHWM at the peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name + ":"))


def row(name: str, count: int) -> dict[str, Any]:
    """Measure one curriculum's sampler on `count` samples."""
    from curricula import CurriculumSampler, Selection
    from robustdiff.labels.judge import judge

    curriculum, known = ROWS[name]
    classes = known or NUM_CLASSES
    given = np.arange(count) % classes
    treatment = "none" if name == "uniform" else "select"
    sampler = CurriculumSampler(
        curriculum, count, seed=0, selection=Selection(k=0.7, mk=0.3, treatment=treatment)
    )

    def scores(number: int) -> ClassValues:
        rng = np.random.default_rng(number)
        if known > MOST_DENSE:
            return sparse_evidence(given, classes, rng)
        shape = (count, classes) if known else (count,)
        found = rng.standard_normal(shape, dtype=np.float32)
        if known:
            found[np.arange(count), given] += 2
        else:
            found += np.where(given < 3, -2, 2)  # three labels in ten look wrong
        return found

    done: dict[str, Any] = {}
    if name != "uniform":
        for operation in ("first update", "update"):
            new = scores(len(done))
            done[operation] = measured(
                lambda new=new: sampler.update(new, lambda f: judge(sampler.curriculum, f, given))
            )
    done["epoch"] = measured(lambda: sampler.order(1))
    done["first batch"] = measured(lambda: sampler.order_by_index(2)[:BATCH])
    if name != "uniform":
        sampler.treatment = "null"
        done["labels"] = measured(lambda: sampler.labels(given, classes))
        done["first batch"] = measured(lambda: sampler.order_by_index(2)[:BATCH])
    return {"state_bytes": state_bytes(sampler.state_dict()), "operations": done}


def sparse_evidence(given: np.ndarray, classes: int, rng: np.random.Generator) -> ClassValues:
    """Make up evidence of many classes: three labels in ten are wrong, the right class is kept.

    The others are the largest of a thousand normal numbers, the mean of the rest is 0.
    """
    found = unknown(len(given), classes)
    found.rest[:] = 0
    for start in range(0, len(given), PIECE):
        labels = given[start : start + PIECE]
        steps = rng.integers(1, classes // KEPT, size=(len(labels), KEPT))
        steps[:, 0] = 0
        held = (labels[:, None] + steps.cumsum(axis=1)) % classes
        values = rng.normal(2.8, 0.3, size=held.shape)
        values[:, 0] = rng.standard_normal(len(labels))
        right = (rng.random(len(labels)) < 0.3).astype(int)
        values[np.arange(len(labels)), right] = rng.normal(8, 1, size=len(labels))
        order = held.argsort(axis=1)
        where = slice(start, start + PIECE)
        found.classes[where] = np.take_along_axis(held, order, axis=1)
        found.values[where] = np.take_along_axis(values, order, axis=1)
    return found


def plan(count: int) -> dict[str, Any]:
    """Measure a scoring round of `pmi`: every sample, one probe, a network that does nothing."""
    import torch

    from curricula import CURRICULA
    from robustdiff.data.arrays import LabelledImages
    from robustdiff.diffusion.model import Model
    from robustdiff.diffusion.process import PREDICTIONS, for_labels
    from robustdiff.diffusion.schedules import SCHEDULES
    from robustdiff.labels import scoring

    data = LabelledImages(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.arange(count) % NUM_CLASSES
    )
    fake = Model(
        lambda x_t, t, labels: (
            for_labels(x_t, len(labels)) * (labels < NUM_CLASSES).float()[:, None, None, None]
        ),
        SCHEDULES["cosine"],
        PREDICTIONS["v"],
        NUM_CLASSES,
    )
    # Images of one pixel.
    probing = scoring.Probing(seed=0, p_uncond=0.2, probes=1, batch_size=PLAN_BATCH)
    done = measured(
        lambda: scoring.prediction_scores(
            CURRICULA["pmi"], probing, data, fake, None, torch.arange(count), 0
        )
    )
    return {"state_bytes": 0, "operations": {"scoring round": done}}


def checkpoints(count: int, width: int) -> dict[str, Any]:
    """Measure checkpoints of `count` samples of so many bytes: scores within, and beside."""
    import torch

    from robustdiff.files.checkpoint import load_checkpoint, save_checkpoint, save_scores

    tensors = {"scores": torch.randint(256, (count, width), dtype=torch.uint8)}
    done: dict[str, Any] = {}

    def measure(operation: str, folder: Path, work: Callable[[], object]) -> None:
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        found = measured(work)
        after = {path: path.stat() for path in folder.iterdir()}
        new = [file.st_size for path, file in after.items() if file.st_mtime_ns != before.get(path)]
        done[operation] = found | {"bytes_written": sum(new)}

    def beside(folder: Path, step: int) -> None:
        held.append(save_scores(folder, tensors, 1, held[-1] if held else None))
        save_checkpoint(folder, {"step": step}, step, scores=held[-1])

    held: list[Any] = []
    with tempfile.TemporaryDirectory(dir=".") as within, tempfile.TemporaryDirectory(dir=".") as by:
        old, new = Path(within), Path(by)
        for step, which in enumerate(("first", "second"), start=1):
            state = {"step": step, "curriculum": tensors}
            measure(f"{which}, within", old, lambda s=state: save_checkpoint(old, s, s["step"]))
            measure(f"{which}, beside", new, lambda step=step: beside(new, step))
        measure("read, within", old, lambda: load_checkpoint(old))
        measure("read, beside", new, lambda: load_checkpoint(new))
    return {"state_bytes": count * width, "operations": done}


def judging(count: int) -> dict[str, Any]:
    """Measure what `crossfit` does between two epochs: both rounds of classifiers, the decision."""
    import torch

    from robustdiff.classifiers import image
    from robustdiff.classifiers.networks import ImageClassifier
    from robustdiff.labels.decision import decide
    from robustdiff.labels.folds import Plan, Work, judge_folds
    from robustdiff.parallel import ALONE
    from robustdiff.progress import silent

    image.make_classifier = lambda shape, k: ImageClassifier(torch.nn.Flatten(), 1, k)
    lessons = image.Lessons(seed=0, passes=1, early=2.0)
    plan = Plan(folds=2, splits=1, rounds=2, lessons=lessons, later=lessons)
    rng, given = np.random.default_rng(0), np.arange(count) % MANY
    said = sparse_evidence(given, MANY, rng)
    said.values[:] = np.exp(said.values)
    said.rest[:] = np.exp(0.5)  # mean of exp(z), z normal
    total = said.values.sum(axis=1) + said.left * said.rest
    said.values[:], said.rest[:] = said.values / total[:, None], said.rest / total
    work = Work(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), given, MANY, None)
    done = {"first round": measured(lambda: judge_folds(work, plan, None, ALONE, silent))}
    work = work._replace(others=said, own=said, number=1)
    done["later round"] = measured(lambda: judge_folds(work, plan, None, ALONE, silent))
    done["decision"] = measured(lambda: decide(said, given))
    return {"state_bytes": 0, "operations": done}


# Rows that are not a sampler's, by name.
OTHERS = {
    "plan": plan,
    "judge-1000": judging,
    **{name: partial(checkpoints, width=width) for name, width in CHECKPOINTS.items()},
}


def worker(name: str, count: int, limit: int) -> None:
    """Measure one row in this process, and print it as JSON."""
    import torch

    torch.set_num_threads(1)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    found = OTHERS[name](count) if name in OTHERS else row(name, count)
    print(json.dumps(found))


def run(name: str, count: int, limit: int) -> dict[str, Any]:
    """Measure one row in a process of its own; a row over the limit has an "error"."""
    command = [sys.executable, __file__, "--worker", name, str(count), str(limit)]
    # Freed arrays go back to the system at once, so that no peak hides in memory held for later.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"curriculum": name, "samples": count, "error": last[0]}
    return {"curriculum": name, "samples": count, **json.loads(done.stdout)}


def shown(found: dict[str, Any]) -> list[str]:
    """Return the lines of the Markdown table for one row, one per operation."""
    start = f"| {found['curriculum']} | {found['samples']:,} |"
    if "error" in found:
        return [f"{start} - | - | {found['error']} | - | - |"]
    count = found["samples"]
    return [
        f"{start} {found['state_bytes'] / count:.1f} | {operation}"
        f"{', {:,} bytes'.format(cost['bytes_written']) if 'bytes_written' in cost else ''} | "
        f"{cost['peak_bytes'] / count:.1f} | {cost['peak_bytes'] / 2**30:.2f} | "
        f"{cost['seconds']:.2f} |"
        for operation, cost in found["operations"].items()
    ]


def main() -> None:
    """Measure all rows, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=float, nargs="+", default=[1e6, 1e7, 1e8])
    parser.add_argument("--curricula", nargs="+", default=[*ROWS, *OTHERS])
    parser.add_argument("--limit-gib", type=float, default=10)
    parser.add_argument("--out", type=Path, default=Path("scale.json"))
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker[0], *map(int, options.worker[1:]))
        return
    print("| curriculum | N | state, B / sample | operation | peak, B / sample | GiB | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    rows = []
    for count in map(int, options.samples):
        for name in options.curricula:
            known = ROWS.get(name, ("", 0))[1]
            if CHECKPOINTS.get(name, 0) * count > MOST_BYTES:
                continue
            if (KEPT if known > MOST_DENSE else known) * count > MOST_CELLS:
                continue
            rows.append(run(name, count, int(options.limit_gib * 2**30)))
            print("\n".join(shown(rows[-1])), flush=True)
    options.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
