"""The classifiers of a round: each learns about the images of other folds, and judges its own."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curricula.sparse import (
    ClassValues,
    SparseClasses,
    compact,
    joined,
    picked,
    pieces,
    put_rows,
    some_rows,
)
from curricula.types import Floats, Ints
from robustdiff.classifiers.image import Lessons, train_image_classifier
from robustdiff.files.unfinished import Unfinished
from robustdiff.labels.rows import all_said, ask, nothing_said, spread_folds
from robustdiff.parallel import Workers
from robustdiff.progress import Progress, part_of
from robustdiff.side_by_side import side_by_side

# Images that a piece of unfinished work is recognised by.
_RECOGNISED_BY = 64
# Which images a classifier judges, and which it learns, (N,) each.
_Parts = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Plan:
    """What is trained; see `robustdiff.labels.crossfit.make_plan`.

    Attributes:
        folds: Into how many the images are split.
        splits: How many different splits the predictions are averaged over.
        rounds: How often classifiers are trained.
        lessons: How each is trained in round one; its seed is that of the first.
        later: How each is trained in later rounds.
    """

    folds: int
    splits: int
    rounds: int
    lessons: Lessons
    later: Lessons

    def in_words(self) -> str:
        """Describe it in a few words."""
        rounds = f"{self.rounds} rounds" if self.rounds > 1 else "one round"
        mirrored = ", with mirror images (--no-judge-flip: without)" if self.lessons.flip else ""
        return (
            f"{self.splits * self.folds * self.rounds} classifiers in {rounds}, "
            f"none of which learnt a label that it judges{mirrored}"
        )


class Work(NamedTuple):
    """What a round learns from.

    Attributes:
        images: (N, C, H, W) uint8.
        given: (N,) int64, by which folds are made.
        num_classes: K.
        others: (N, K) float32, what a classifier learns about images of the other folds; None for
            the given labels.
        own: The same about images of the fold that it judges; None where it learns nothing.
        number: The round, from 0.
        removed: (N,) bool, images that are not learnt; None for no such.
    """

    images: Tensor
    given: Ints
    num_classes: int
    others: ClassValues | None
    own: ClassValues | None = None
    number: int = 0
    removed: NDArray[np.bool_] | None = None


class Found(NamedTuple):
    """What classifiers predict for the images that they judge, and margins of those they learn."""

    predicted: ClassValues
    margins: Floats


def judge_folds(
    work: Work, plan: Plan, folder: Path | None, workers: Workers, progress: Progress
) -> Found:
    """Train and ask the classifiers of all splits and folds, which processes and threads share."""
    n, jobs = len(work.given), range(workers.rank, plan.splits * plan.folds, workers.size)
    said = [nothing_said(n, work.num_classes) for _ in range(plan.splits)]
    margins = np.zeros(n, np.float32)
    parts = [_parts(work, plan, job) for job in jobs]
    found = side_by_side(
        [partial(_job, work, plan, folder, *one) for one in zip(jobs, parts, strict=True)],
        work.images.device,
        part_of(progress, min(work.number, plan.rounds - 1), plan.rounds),
    )
    for some, job, (judged, learnt) in zip(found, jobs, parts, strict=True):
        put_rows(said[job // plan.folds], judged, some.predicted)
        margins[learnt] += some.margins
    means = [_divided(all_said(workers, one), plan.splits) for one in said]
    predicted = reduce(lambda one, two: _added(one, two, work.given), means)
    return Found(predicted, workers.total(torch.from_numpy(margins)).numpy())


def _parts(work: Work, plan: Plan, job: int) -> _Parts:
    """Return the parts of the images that the classifier of a job has."""
    split, part = divmod(job, plan.folds)
    judged = spread_folds(work.given, plan.folds, plan.lessons.seed + split) == part
    learnt = ~judged if work.own is None else np.ones_like(judged)
    if work.removed is not None:
        learnt &= ~work.removed
    return judged, learnt


def _job(
    work: Work, plan: Plan, folder: Path | None, job: int, parts: _Parts, progress: Progress
) -> Found:
    """Train and ask one classifier; the jobs of a round are numbered split by split."""
    lessons = plan.lessons if work.own is None else plan.later
    seed = lessons.seed + work.number * plan.splits * plan.folds + job
    path = None if folder is None else folder / f"round-{work.number + 1}-classifier-{job + 1}.pt"
    return _classifier(work, *parts, replace(lessons, seed=seed), path, progress)


def _classifier(
    work: Work,
    judged: NDArray[np.bool_],
    learnt: NDArray[np.bool_],
    lessons: Lessons,
    path: Path | None,
    progress: Progress,
) -> Found:
    """Train one classifier and ask it; take up what an interrupted process has kept of it."""
    rows, asked = (torch.from_numpy(np.flatnonzero(which)) for which in (learnt, judged))
    targets = _targets(work, judged, learnt)
    kept = None if path is None else Unfinished(path, _name(work.images, targets, rows, lessons))
    done = None if kept is None else kept.load()
    if done is None or "predicted" not in done:
        trained = train_image_classifier(
            work.images,
            targets,
            work.num_classes,
            lessons=lessons,
            rows=rows,
            unfinished=kept,
            progress=progress,
        )
        said = ask(trained.classifier, work.images, asked, work.given, lessons, progress)
        done = {"predicted": _plain(said), "margins": trained.margins.cpu()}
        if kept is not None:
            kept.save(done)
    else:
        progress(1, 1)
    said = done["predicted"]
    said = SparseClasses.of(said) if isinstance(said, dict) else said.numpy()
    return Found(said, done["margins"].numpy())


def _targets(
    work: Work, judged: NDArray[np.bool_], learnt: NDArray[np.bool_]
) -> Tensor | SparseClasses:
    """Return what a classifier learns about the images that it learns; see `Work`."""
    if work.others is None:
        return torch.from_numpy(work.given[learnt])
    targets = work.others if work.own is None else picked(judged, work.own, work.others)
    some = some_rows(targets, learnt)
    return some if isinstance(some, SparseClasses) else torch.from_numpy(some)


def _divided(values: ClassValues, by: int) -> ClassValues:
    if isinstance(values, SparseClasses):
        return replace(values, values=values.values / by, rest=values.rest / by)
    return np.asarray(values / by)


def _added(one: ClassValues, two: ClassValues, given: Ints) -> ClassValues:
    """Return the sum; sparse rows keep the largest of its values, a few rows at a time."""
    if not (isinstance(one, SparseClasses) or isinstance(two, SparseClasses)):
        return np.asarray(one + two)
    some = pieces(*one.shape)
    return joined([compact(one[where] + two[where], given[where]) for where in some])


def _plain(values: ClassValues) -> Tensor | dict[str, Any]:
    """Return what a file keeps of predictions."""
    if not isinstance(values, SparseClasses):
        return torch.from_numpy(values)
    return {
        name: torch.from_numpy(part) if isinstance(part, np.ndarray) else part
        for name, part in values.plain().items()
    }


def _name(images: Tensor, targets: Tensor | SparseClasses, rows: Tensor, lessons: Lessons) -> str:
    """Return a name of one training: a digest of all that it depends on, but of few images."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {lessons}".encode())
    some = rows[:: -(-len(rows) // _RECOGNISED_BY)]
    about = [targets] if isinstance(targets, Tensor) else list(_plain(targets).values())[:3]
    for part in (*about, rows, images[some.to(images.device)].cpu()):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
