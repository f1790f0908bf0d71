"""The labels of a training run, judged by classifiers of its images."""

from dataclasses import replace

from curricula.sparse import ClassValues
from robustdiff.labels.crossfit import Crossfitted, crossfit, make_plan
from robustdiff.labels.glance import glance
from robustdiff.progress import Progress
from robustdiff.training.task import Task


def judge_by_classifiers(task: Task, stage: str, *, rounds: int | None = None) -> Crossfitted:
    """Train classifiers as the configuration says, and ask them.

    Args:
        task: See `Task`.
        stage: What the progress is shown as.
        rounds: How often classifiers are trained, in place of what the configuration says.
    """
    settings = task.config.judge
    if rounds is not None:
        settings = replace(settings, rounds=rounds)
    images = task.data.images
    shape = tuple(images.shape[1:])
    plan = make_plan(settings, shape, len(images), seed=task.config.seed, dtype=task.dtype)
    return crossfit(
        images,
        task.data.given,
        task.num_classes,
        plan,
        progress=_progress(task, stage),
        folder=task.folder,
        workers=task.workers,
    )


def likely_classes(task: Task) -> ClassValues:
    """Return (N, K) probabilities that rank the classes of every image; see `glance`."""
    return glance(
        task.data.images,
        task.data.given,
        task.num_classes,
        seed=task.config.seed,
        progress=_progress(task, "looking for likely classes"),
        dtype=task.dtype,
        workers=task.workers,
    )


def _progress(task: Task, stage: str) -> Progress:
    shown = task.report.stage(stage)

    def progress(done: int, total: int) -> None:
        if task.workers.size == 1:  # others would wait for a process that has stopped
            task.check_stop()
        shown(done, total)

    return progress
