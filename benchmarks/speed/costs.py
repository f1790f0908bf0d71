"""What curricula add to training, and how costs grow with samples, pixels, classes and width."""

import dataclasses
import functools
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed.rates import rates, ratio
from curricula import CURRICULA, CurriculumSampler, Selection
from robustdiff.config.names import CurriculumName
from robustdiff.config.sections import Config, CurriculumConfig
from robustdiff.data.arrays import Images, LabelledImages
from robustdiff.diffusion.model import Model
from robustdiff.jobs.assemble import make_task
from robustdiff.labels.given import prepare_labels
from robustdiff.labels.judge import judge
from robustdiff.labels.scoring import Probing, class_evidence, prediction_scores
from robustdiff.progress import Report
from robustdiff.training.judging import likely_classes
from robustdiff.training.loop import StepDone, train
from robustdiff.training.rounds import gather_evidence, glance_pays, rounds_due
from robustdiff.training.state import TrainState, new_state
from robustdiff.training.task import Task, total_steps

# Samples that a scoring round is timed on.
_SUBSET = 2_000


def _ready(config: Config, images: Images) -> tuple[TrainState, Task]:
    task = make_task(config, images, prepare_labels(config, images, Report()), Report())
    return new_state(task), task


def overhead(config: Config, images: Images, name: CurriculumName, seconds: float) -> float:
    """Return total time of a whole run with a curriculum over that of its training alone.

    A step, the first scoring round and a later one are timed, and multiplied by how many of each
    the run has. Scores of predictions are timed on `_SUBSET` samples at most: they cost the same
    for every sample.
    """
    curriculum = dataclasses.replace(config.curriculum, name=name)
    chosen = dataclasses.replace(config, curriculum=curriculum)
    count = len(images.train)
    steps = total_steps(config, count)
    per_step = _seconds_per_step(config, images, seconds)
    timed = images
    if CURRICULA[name].source != "classifier" and count > _SUBSET:
        rows = torch.arange(_SUBSET)
        timed = dataclasses.replace(
            images, train=images.train[rows], train_labels=images.train_labels[rows]
        )
    state, task = _ready(chosen, timed)
    if CURRICULA[name].needs_previous:
        state.take_snapshot()
    started = time.perf_counter()
    found = gather_evidence(state, task)
    first = later = time.perf_counter() - started
    assert found is not None
    _, whole = _ready(chosen, images)
    # A glance at the images takes about the same for any number of them, so it counts apart.
    glance = 0.0
    if CURRICULA[name].knows_classes and CURRICULA[name].source == "classes" and glance_pays(whole):
        glance = _seconds_of_a_glance(whole)
        first -= _seconds_of_a_glance(task)
    # The last round scores with the final weights; scores that are final before have no such round.
    rounds = rounds_due(whole, steps - 1) + (not CURRICULA[name].once)
    if rounds > 1:
        state.sampler.update(*found)
        state.rounds += 1
        started = time.perf_counter()
        gather_evidence(state, task)
        later = time.perf_counter() - started
    scoring = (first + later * (rounds - 1)) * count / len(timed.train)
    return 1 + (glance + scoring) / (per_step * steps)


def _seconds_of_a_glance(task: Task) -> float:
    started = time.perf_counter()
    likely_classes(task)
    return time.perf_counter() - started


def _seconds_per_step(config: Config, images: Images, seconds: float) -> float:
    state, task = _ready(config, images)
    events = train(state, task)
    next(events)
    next(events)
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        calls += isinstance(next(events), StepDone)
    return (time.perf_counter() - started) / calls


def scoring_rates(config: Config, images: Images, seconds: float) -> dict[str, dict[str, float]]:
    """Measure one probe of each kind of score, and the bare network beside it.

    The bare network sees as many images and labels in a call, in the same precision and without
    gradients: what it takes bounds a score from below.

    Returns:
        Score -> images a second, and their share of the bare network's.
    """
    state, task = _ready(config, images)
    model, rows = task.bind(state.ema), torch.arange(min(len(task.data), 1024))
    probing = Probing(
        seed=0,
        p_uncond=config.diffusion.p_uncond,
        probes=1,
        times=config.curriculum.probe_times,
        rivals=config.curriculum.rivals,
    )

    def predictions(name: str) -> int:
        prediction_scores(CURRICULA[name], probing, task.data, model, model, rows, 0)
        return len(rows)

    def classes() -> int:
        class_evidence(probing, task.data, model, None, rows, 0)
        return len(rows)

    works: dict[str, tuple[Callable[[], int], list[int]]] = {
        "margin, all classes": (classes, [images.num_classes])
    }
    for name in ("small-loss", "pmi", "dynamics-cond", "dynamics-uncond"):
        old = sum(forward.startswith("old_") for forward in CURRICULA[name].forwards)
        new = len(CURRICULA[name].forwards) - old
        works[name] = functools.partial(predictions, name), [new, old]
    found = {}
    for name, (score, labels) in works.items():
        bare = _bare(model, task.data.images, labels, probing.batch_size)
        taken = rates({"score": score, "bare": bare}, 3, seconds / 8)
        found[name] = {
            "images_per_second": sorted(taken["score"])[1],
            "share_of_bare_network": ratio(taken["score"], taken["bare"])["median"],
        }
    return found


def _bare(model: Model, images: Tensor, labels: list[int], batch_size: int) -> Callable[[], int]:
    """Return a forward of the network under so many labels an image, one call for each entry."""
    count, device = batch_size // sum(labels), images.device
    x_t = torch.randn(count, *images.shape[1:], device=device)
    t = torch.rand(count, dtype=torch.float64, device=device)

    @torch.inference_mode()
    def forward() -> int:
        for each in filter(None, labels):
            tried = torch.arange(count * each, device=device) % model.null_class
            model.network(x_t, t, tried)
        return count

    return forward


def shared_encoder(config: Config, images: Images, count: int = 256) -> dict[str, float]:
    """Compare K classes of an image in one call, shared layers once, with K images in a call.

    Returns:
        The gain in time and the largest difference of outputs.
    """
    state, task = _ready(config, images)
    model: Model = task.bind(state.ema)
    x_t = torch.randn(count, *images.train.shape[1:], device=task.data.images.device)
    t = torch.rand(count, dtype=torch.float64, device=x_t.device)
    labels = torch.arange(images.num_classes, device=x_t.device).repeat(count, 1)
    k = images.num_classes

    def together() -> torch.Tensor:
        return model.eps_under(x_t, t, labels)

    def apart() -> torch.Tensor:
        eps = model.eps(x_t.repeat_interleave(k, 0), t.repeat_interleave(k), labels.flatten())
        return eps.reshape(*labels.shape, *x_t.shape[1:])

    times, outputs = {}, {}
    with torch.inference_mode():
        for name, work in (("together", together), ("apart", apart)):
            work()
            started = time.perf_counter()
            outputs[name] = work()
            times[name] = time.perf_counter() - started
    difference = float((outputs["together"] - outputs["apart"]).abs().max())
    return {"gain": times["apart"] / times["together"], "difference": difference}


def growth(seconds: float) -> dict[str, dict[float, float]]:
    """Return what grows -> {size: seconds}, on made-up images and a small network."""
    return {
        "N: draw and update of pmi": {
            n: _curriculum_seconds(n) for n in (1_000, 4_000, 16_000, 60_000)
        },
        "N: scoring round of pmi": {n: _round_seconds(n) for n in (1_000, 4_000, 16_000)},
        "pixels a side: training step": {
            side: _step_seconds(side, 1, 10, seconds) for side in (8, 16, 32, 64)
        },
        "width: training step": {
            width: _step_seconds(16, width, 10, seconds) for width in (1, 2, 4, 8)
        },
        "K: training step": {k: _step_seconds(16, 1, k, seconds) for k in (2, 10, 50, 250)},
        "K: margin, all classes, an image": {k: _margin_seconds(k) for k in (2, 5, 10, 20, 50)},
    }


def made_up(count: int, side: int, classes: int) -> Images:
    """Return random grey images, their classes in turn."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    labels = torch.arange(count) % classes
    names = tuple(f"c{k}" for k in range(classes))
    return Images(
        name="made-up",
        train=images,
        train_labels=labels,
        test=images[:classes],
        test_labels=labels[:classes],
        class_names=names,
    )


def _config(width: int = 1) -> Config:
    config = Config()
    model = dataclasses.replace(config.model, channels=(16 * width, 32 * width), patch_size=2)
    setting = CurriculumConfig(name="pmi", probes=1)
    training = dataclasses.replace(config.train, batch_size=64)
    return dataclasses.replace(config, model=model, curriculum=setting, train=training)


def _curriculum_seconds(count: int) -> float:
    sampler = CurriculumSampler("pmi", count, seed=0, selection=Selection(treatment="select"))
    scores = torch.randn(count).numpy()
    given = (torch.arange(count) % 10).numpy()
    started, calls = time.perf_counter(), 0
    while time.perf_counter() - started < 1:
        sampler.update(scores, lambda new: judge(sampler.curriculum, new, given))
        sampler.order(calls)
        calls += 1
    return (time.perf_counter() - started) / calls


def _round_seconds(count: int) -> float:
    state, task = _ready(_config(), made_up(count, 16, 10))
    gather_evidence(state, task)
    started = time.perf_counter()
    gather_evidence(state, task)
    return time.perf_counter() - started


def _step_seconds(side: int, width: int, classes: int, seconds: float) -> float:
    config = dataclasses.replace(_config(width), curriculum=CurriculumConfig())
    return _seconds_per_step(config, made_up(max(640, classes), side, classes), seconds)


def _margin_seconds(classes: int) -> float:
    images = made_up(max(256, classes), 16, classes)
    state, task = _ready(_config(), images)
    data = LabelledImages(images.train, images.train_labels)
    probing = Probing(seed=0, p_uncond=0.2, probes=1)
    rows = torch.arange(256)
    started = time.perf_counter()
    class_evidence(probing, data, task.bind(state.ema), None, rows, 0)
    return (time.perf_counter() - started) / len(rows)


def start_seconds(folder: Path) -> dict[str, float]:
    """Return seconds of `--help`, and from the start of `train` to its first step."""
    command = [sys.executable, "-m", "robustdiff"]
    started = time.perf_counter()
    subprocess.run([*command, "--help"], check=True, capture_output=True)
    found = {"--help": time.perf_counter() - started}
    started = time.perf_counter()
    words = [*command, "train", "--steps", "1000", "--out", str(folder / "first-step")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training 1/"):
                found["train to the first step"] = time.perf_counter() - started
                process.kill()
                break
    return found
