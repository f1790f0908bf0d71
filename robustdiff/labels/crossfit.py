"""Class probabilities of images from classifiers that were not trained on the labels they judge.

The images are split into folds. In round one each fold's classifier trains on the given labels of
the other folds and predicts its own. From then on, where `decide` finds wrong labels, classifiers
train anew on what the round before says about all images: in the other folds by image and label,
in the own fold by the image alone.
"""

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curricula import Trust
from curricula.sparse import ClassValues, compact, dense, of_class, some_rows
from curricula.types import Floats, Ints
from robustdiff.classifiers.image import (
    Lessons,
    passes_for,
    predict,
    train_image_classifier,
)
from robustdiff.classifiers.networks import is_natural
from robustdiff.config.judging import JudgeConfig
from robustdiff.files.unfinished import Unfinished
from robustdiff.labels.checked import Checked, taught
from robustdiff.labels.decision import Decision, decide, hedged
from robustdiff.labels.rows import spread_folds
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Progress, part_of
from robustdiff.rng import Stream, stream_seed

# What the deeper network's classifiers see in a round: so many passes by effort, and of few images
# so many more that this many are seen, up to a number of passes.
_LEAST_SEEN, _MOST_PASSES = 60_000, 40
_SMOOTHING, _EARLY = 0.1, 2.0
# The small network sees so many: enough to learn the classes, not enough to learn the wrong labels
# by heart. Measured on the digits and on 12,000 MNIST images under 30 to 70 % noise.
_SMALL_PASSES, _SMALL_LEAST, _SMALL_MOST = 14, 12_000, 80_000
# Later rounds see this share of it: their targets are cleaner. With a half the digits suffer.
_SMALL_LATER = 2 / 3
# Up to so many natural images are split into so many folds, so many times: each is judged by the
# mean of as many classifiers.
_FEW, _FEW_FOLDS, _FEW_SPLITS = 5_000, 5, 2
# Least probability of a class that a person saw.
_LEAST_SEEN_CLASS = 1e-4
# Images that a piece of unfinished work is recognised by.
_RECOGNISED_BY = 64


@dataclass(frozen=True)
class Effort:
    """How long classifiers are trained.

    Attributes:
        rounds: How often.
        folds: Into how many the images are split.
        small_folds: The same for the small network.
        first: Passes of the deeper network over its images in round one.
        later: The same in later rounds, where it learns from all images.
    """

    rounds: int
    folds: int
    small_folds: int
    first: int
    later: int


EFFORTS = {
    "quick": Effort(rounds=1, folds=2, small_folds=2, first=14, later=7),
    "default": Effort(rounds=2, folds=4, small_folds=2, first=10, later=5),
    "thorough": Effort(rounds=2, folds=4, small_folds=4, first=24, later=12),
}


@dataclass(frozen=True)
class Plan:
    """What is trained; see `make_plan`.

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


class Crossfitted(NamedTuple):
    """What the classifiers predict.

    Attributes:
        probabilities: (N, K) float32, rows sum to 1: those of the given label after one round, of
            the class after more; sparse, like the decision, for many classes.
        decision: What they say about the labels.
        outputs: (N, K) float32, what the classifiers of round one that learnt an image predicted
            for it meanwhile, on average.
        margins: (N,) float32, their areas under the margin.
    """

    probabilities: ClassValues
    decision: Decision
    outputs: Floats
    margins: Floats


def make_plan(
    settings: JudgeConfig,
    shape: tuple[int, ...],
    count: int,
    *,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> Plan:
    """Settle what the settings leave open.

    Args:
        settings: Of the judge.
        shape: (C, H, W) of the images.
        count: How many there are.
        seed: Seed of the run.
        dtype: Precision of the deeper network's products.
    """
    effort, natural = EFFORTS[settings.effort], is_natural(shape)
    few = natural and count <= _FEW
    folds = effort.folds if natural else effort.small_folds
    folds = settings.folds or (_FEW_FOLDS if few else folds)
    learnt = max(count * (folds - 1) // folds, 1)
    lessons = Lessons(
        seed=stream_seed(seed, Stream.CROSSFIT) % 2**32,
        passes=passes_for(learnt, min(max(_SMALL_PASSES * learnt, _SMALL_LEAST), _SMALL_MOST)),
        flip=shape[0] == 3 if settings.flip is None else settings.flip,
    )
    later = replace(
        lessons, passes=passes_for(count, round(_SMALL_LATER * learnt * lessons.passes))
    )
    if natural:
        lessons = replace(lessons, smoothing=_SMOOTHING, early=_EARLY, dtype=dtype)
        first, more = (
            max(passes, min(_LEAST_SEEN // images, _MOST_PASSES))
            for passes, images in ((effort.first, learnt), (effort.later, count))
        )
        # Cleaned targets are soft enough, and need no protection from wrong labels.
        later = replace(lessons, passes=more, smoothing=0.0, early=0.0)
        lessons = replace(lessons, passes=first)
    rounds = settings.rounds or effort.rounds
    return Plan(folds, _FEW_SPLITS if few else 1, rounds, lessons, later)


def crossfit(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    plan: Plan,
    *,
    progress: Progress,
    folder: Path | None = None,
    workers: Workers = ALONE,
) -> Crossfitted:
    """Predict the classes of images by classifiers that were not trained on their labels.

    Args:
        images: (N, C, H, W) uint8.
        given: (N,) int64 in [0, K).
        num_classes: K.
        plan: What is trained.
        progress: Called with (steps done, steps in all).
        folder: Where interrupted work is kept, and goes on from; None keeps none.
        workers: Those that share the work.

    Returns:
        Predictions and decision of the last round; a round that finds nothing to clean is the last.
        The evidence of one round is weak, so the mean of all explanations decides then.
    """
    labels = given.cpu().numpy()
    others: Tensor
    own: Tensor | None
    others, own = F.one_hot(given.cpu(), num_classes).float(), None
    first = _round(_Work(images, labels, others, own, 0), plan, folder, workers, progress)
    predicted = compact(first.predicted, labels)
    decision = workers.on_host(partial(decide, predicted, labels))
    # Later classifiers learn what was decided, so only round one tells the kinds of noise apart.
    by_image = {"by image": True, "by class": False}.get(decision.kind)
    for number in range(1, plan.rounds):
        if decision.kind in ("no evidence", "no noise"):
            break
        others, own = (
            torch.from_numpy(dense(mean))
            for mean in (decision.mean_classes, decision.mean_image_classes)
        )
        last = _round(_Work(images, labels, others, own, number), plan, folder, workers, progress)
        predicted = compact(last.predicted, labels)
        decision = workers.on_host(partial(decide, predicted, labels, by_image=by_image))
    if plan.rounds == 1 and decision.kind not in ("no evidence", "no noise"):
        decision = hedged(decision, labels)
    return Crossfitted(predicted, decision, first.outputs, first.margins)


def crossfit_again(
    images: Tensor,
    given: Tensor,
    known: Trust,
    checked: Checked,
    plan: Plan,
    *,
    progress: Progress,
    folder: Path | None = None,
) -> Crossfitted:
    """Judge labels once more, after a person has checked some of them.

    One round learns what is known by now: the checked classes, and of the others what an earlier
    judge says, corrected by what those teach. Which kind of noise there is, they tell, too.

    Args:
        images: (N, C, H, W) uint8.
        given: (N,) int64 in [0, K).
        known: What an earlier judge found, who compares the classes.
        checked: What a person said; removed images are not learnt.
        plan: What is trained: the lessons of later rounds.
        progress: See `crossfit`.
        folder: See `crossfit`.

    Returns:
        See `crossfit`; the decision is still without what a person said, see `taught`.
    """
    labels = given.cpu().numpy()
    about = (taught(known, labels, checked).classes, known.image_classes)
    others, own = (
        torch.from_numpy(np.asarray(dense(targets), dtype=np.float32))
        for targets in about
        if targets is not None
    )
    work = _Work(images, labels, others, own, 1, checked.removed)
    found = _round(work, replace(plan, rounds=1), folder, ALONE, progress)
    predicted = compact(found.predicted, labels)
    decision = likeliest_decision(predicted, labels, checked)
    return Crossfitted(predicted, decision, found.outputs, found.margins)


def likeliest_decision(probabilities: ClassValues, given: Ints, checked: Checked) -> Decision:
    """Decide which labels are wrong, by noise of the kind that a person's decisions speak for.

    Args:
        probabilities: (N, K); see `decide`.
        given: (N,) int64.
        checked: What a person said.
    """
    known = np.flatnonzero(checked.known)
    wrong = bool((checked.classes[known] != given[known]).any())

    def likelihood(decision: Decision) -> float:
        seen = of_class(some_rows(decision.classes, known), checked.classes[known])
        return float(np.log(np.maximum(seen, _LEAST_SEEN_CLASS)).sum())

    found = [
        decide(probabilities, given, by_image=by_image, wrong_seen=wrong)
        for by_image in (None, False, True)
    ]
    return max([*found, hedged(found[0], given)], key=likelihood)


class _Work(NamedTuple):
    """What a round learns from.

    Attributes:
        images: (N, C, H, W) uint8.
        given: (N,) int64, by which folds are made.
        others: (N, K) float32, what a classifier learns about images of the other folds.
        own: The same about images of the fold that it judges; None where it learns nothing.
        number: The round, from 0.
        removed: (N,) bool, images that are not learnt; None for no such.
    """

    images: Tensor
    given: Ints
    others: Tensor
    own: Tensor | None
    number: int
    removed: NDArray[np.bool_] | None = None


class _Found(NamedTuple):
    """What classifiers predict for the images that they judge, and about those they learn."""

    predicted: Floats
    outputs: Floats
    margins: Floats


def _round(
    work: _Work, plan: Plan, folder: Path | None, workers: Workers, progress: Progress
) -> _Found:
    """Train and ask the classifiers of all splits and folds, which processes share."""
    first, jobs = work.own is None, plan.splits * plan.folds
    predicted, outputs = (np.zeros(work.others.shape, np.float32) for _ in range(2))
    found = _Found(predicted, outputs, np.zeros(len(work.given), np.float32))
    for job in range(workers.rank, jobs, workers.size):
        split, part = divmod(job, plan.folds)
        judged = spread_folds(work.given, plan.folds, plan.lessons.seed + split) == part
        learnt = ~judged if first else np.ones_like(judged)
        if work.removed is not None:
            learnt &= ~work.removed
        lessons = plan.lessons if first else plan.later
        some = _classifier(
            work,
            judged,
            learnt,
            replace(lessons, seed=lessons.seed + work.number * jobs + job),
            None if folder is None else folder / f"round-{work.number + 1}-classifier-{job + 1}.pt",
            part_of(progress, min(work.number, plan.rounds - 1) * jobs + job, plan.rounds * jobs),
        )
        found.predicted[judged] += some.predicted / plan.splits
        found.outputs[learnt] += some.outputs
        found.margins[learnt] += some.margins
    found = _Found(*(workers.total(torch.from_numpy(part)).numpy() for part in found))
    total = found.outputs.sum(1, keepdims=True)
    return found._replace(outputs=found.outputs / np.maximum(total, 1e-12))


def _classifier(
    work: _Work,
    judged: NDArray[np.bool_],
    learnt: NDArray[np.bool_],
    lessons: Lessons,
    path: Path | None,
    progress: Progress,
) -> _Found:
    """Train one classifier and ask it; take up what an interrupted process has kept of it."""
    targets = work.others
    if work.own is not None:
        targets = torch.where(torch.from_numpy(judged)[:, None], work.own, targets)
    rows, asked = (torch.from_numpy(np.flatnonzero(which)) for which in (learnt, judged))
    targets = targets[rows]
    kept = None if path is None else Unfinished(path, _name(work.images, targets, rows, lessons))
    done = None if kept is None else kept.load()
    if done is None or "predicted" not in done:
        trained = train_image_classifier(
            work.images,
            targets,
            targets.shape[1],
            lessons=lessons,
            rows=rows,
            unfinished=kept,
            progress=progress,
        )
        predicted = predict(
            trained.classifier, work.images, asked, flip=lessons.flip, dtype=lessons.dtype
        )
        done = {
            "predicted": predicted,
            "outputs": trained.outputs.cpu(),
            "margins": trained.margins.cpu(),
        }
        if kept is not None:
            kept.save(done)
    else:
        progress(1, 1)
    return _Found(*(done[name].numpy() for name in _Found._fields))


def _name(images: Tensor, targets: Tensor, rows: Tensor, lessons: Lessons) -> str:
    """Return a name of one training: a digest of all that it depends on, but of few images."""
    digest = hashlib.sha256(f"{tuple(images.shape)} {lessons}".encode())
    some = rows[:: -(-len(rows) // _RECOGNISED_BY)]
    for part in (targets, rows, images[some.to(images.device)].cpu()):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()
