"""Class probabilities of images from classifiers that were not trained on the labels they judge.

The images are split into folds. In round one each fold's classifier trains on the given labels of
the other folds and predicts its own. From then on, where `decide` finds wrong labels, classifiers
train anew on what the round before says about all images: in the other folds by image and label,
in the own fold by the image alone.
"""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from curricula import Trust
from curricula.sparse import (
    MOST_DENSE,
    ClassValues,
    SparseClasses,
    compact,
    of_class,
    some_rows,
)
from curricula.types import Floats, Ints
from robustdiff.classifiers.image import Lessons, passes_for
from robustdiff.classifiers.networks import is_natural
from robustdiff.config.judging import JudgeConfig
from robustdiff.labels.checked import Checked, taught
from robustdiff.labels.decision import Decision, decide, hedged
from robustdiff.labels.folds import Plan, Work, judge_folds
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Progress
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
# Least probability of a class that a person saw; standard errors by which the checked classes must
# be likelier under another kind of noise than under the one that all labels speak for. Equal
# differences are beyond it from five on, so a few labels on which the judge errs change nothing.
_LEAST_SEEN_CLASS, _CLEARLY = 1e-4, 2.0


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


class Crossfitted(NamedTuple):
    """What the classifiers predict.

    Attributes:
        probabilities: (N, K) float32, rows sum to 1: those of the given label after one round, of
            the class after more; sparse, like the decision, for many classes.
        decision: What they say about the labels.
        margins: (N,) float32, areas under the margin of the classifiers of round one that learnt an
            image.
    """

    probabilities: ClassValues
    decision: Decision
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
    certain = None if num_classes > MOST_DENSE else F.one_hot(given.cpu(), num_classes)
    work = Work(images, labels, num_classes, None if certain is None else certain.float().numpy())
    predicted, margins = judge_folds(work, plan, folder, workers, progress)
    decision = workers.on_host(partial(decide, predicted, labels))
    # Later classifiers learn what was decided, so only round one tells the kinds of noise apart.
    by_image = {"by image": True, "by class": False}.get(decision.kind)
    for number in range(1, plan.rounds):
        if decision.kind in ("no evidence", "no noise"):
            break
        others, own = decision.mean_classes, decision.mean_image_classes
        work = work._replace(others=others, own=own, number=number)
        predicted, _ = judge_folds(work, plan, folder, workers, progress)
        decision = workers.on_host(partial(decide, predicted, labels, by_image=by_image))
    if plan.rounds == 1 and decision.kind not in ("no evidence", "no noise"):
        decision = hedged(decision, labels)
    return Crossfitted(predicted, decision, margins)


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
    judge says, corrected by what those teach. See `likeliest_decision` for the kind of noise.

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
    others, own = (_as_kept(targets, labels) for targets in about if targets is not None)
    work = Work(images, labels, others.shape[1], others, own, 1, checked.removed)
    predicted, margins = judge_folds(work, replace(plan, rounds=1), folder, ALONE, progress)
    decision = likeliest_decision(predicted, labels, checked)
    return Crossfitted(predicted, decision, margins)


def _as_kept(targets: ClassValues, given: Ints) -> ClassValues:
    if isinstance(targets, SparseClasses):
        return targets
    return compact(np.asarray(targets, dtype=np.float32), given)


def likeliest_decision(probabilities: ClassValues, given: Ints, checked: Checked) -> Decision:
    """Decide which labels are wrong, by noise of the kind that a person's decisions speak for.

    All labels have chosen a kind already. Another one is taken where the checked classes are
    clearly likelier under it: the sum of the differences in log-likelihood, label by label, is more
    than twice the root of the sum of their squares.

    Args:
        probabilities: (N, K); see `decide`.
        given: (N,) int64.
        checked: What a person said.
    """
    known = np.flatnonzero(checked.known)
    wrong = bool((checked.classes[known] != given[known]).any())

    def surprise(decision: Decision) -> Floats:
        seen = of_class(some_rows(decision.classes, known), checked.classes[known])
        return -np.log(np.maximum(seen.astype(np.float64), _LEAST_SEEN_CLASS))

    first, *others = (
        decide(probabilities, given, by_image=by_image, wrong_seen=wrong)
        for by_image in (None, False, True)
    )
    best, least = first, surprise(first).sum()
    for decision in (*others, hedged(first, given)):
        gained = surprise(first) - surprise(decision)
        clearly = gained.sum() > _CLEARLY * np.sqrt((gained**2).sum())
        if clearly and surprise(decision).sum() < least:
            best, least = decision, surprise(decision).sum()
    return best
