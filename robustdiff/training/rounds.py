"""Scoring rounds: when they are due, the evidence they gather, the trust that follows from it."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import binom
from torch import Tensor

from curricula import CURRICULA, Trust, random_scores, trusted
from curricula.sampler import Judge
from curricula.sparse import ClassValues, SparseClasses, compact, likeliest
from curricula.types import Floats, Ints
from robustdiff.config.sections import Config
from robustdiff.diffusion.model import Model
from robustdiff.labels.decision import Decision, decide
from robustdiff.labels.judge import judge
from robustdiff.labels.probabilities import by_decision, label_scores
from robustdiff.labels.rows import merged_rows
from robustdiff.labels.scoring import Probing, class_evidence, every_class, prediction_scores
from robustdiff.training.judging import judge_by_classifiers, likely_classes
from robustdiff.training.state import TrainState
from robustdiff.training.task import Task, steps_per_pass

# Of fewer images all classes are tried: it takes no time, and classifiers would learn too little.
_LEAST_GLANCED = 1_000
# Classes that were not tried lie below those that were by this share of a mean gain, times their
# place in the order of the glance. Of .03, .1 and .3 the largest that found the noise in every
# round, with one rival and with two (MNIST 14 x 14, asymmetric 40 %).
_BELOW = 0.1
# How likely classifiers that know nothing are taken for some that do.
_CHANCE = 1e-3


@dataclass(frozen=True)
class RoundDone:
    """One scoring round.

    Attributes:
        step: Steps so far.
        number: Which round of the run it is, counted from 1.
        scores: (N,) float32 smoothed scores, high = trusted.
        trust: Trust in the labels that follows from the evidence.
        label_used: (N,) bool, whether training uses the given label.
        seconds: Time that the round took.
    """

    step: int
    number: int
    scores: Floats
    trust: Trust
    label_used: NDArray[np.bool_]
    seconds: float


def rounds_due(task: Task, step: int) -> int:
    """Return how many scoring rounds should be done by a step.

    Counted in passes over the dataset, not in epochs of the curriculum: those shrink with the
    selection, and the cost of scoring should not grow by that.
    """
    curriculum = task.config.curriculum
    if CURRICULA[curriculum.name].once:
        return 1
    passes = step // steps_per_pass(task.config, len(task.data))
    if passes < curriculum.warmup:
        return 0
    return (passes - curriculum.warmup) // curriculum.score_every + 1


def gather_evidence(state: TrainState, task: Task) -> tuple[ClassValues, Judge] | None:
    """Measure evidence about the labels from the state as it is.

    Args:
        state: Not changed.
        task: See `Task`.

    Returns:
        Evidence, (N,) or (N, K) floats, and the function from it to scores and trust; None where
        there is no score, or no previous round to compare with.

    Raises:
        ValueError: If the curriculum needs the clean labels and they are not known.
    """
    curriculum, given = state.sampler.curriculum, task.given
    if curriculum.source == "classifier" and task.probabilities is not None:
        read = task.probabilities
        probabilities = task.workers.from_leader(lambda: compact(read(), given))
        return probabilities, lambda p: _trusted(decide(p, given), given)
    if curriculum.source == "classifier":
        found = judge_by_classifiers(task, "judging the labels")
        return found.probabilities, lambda _: _trusted(found.decision, given)
    evidence = _evidence(state, task)
    return None if evidence is None else (evidence, lambda e: judge(curriculum, e, given))


def _trusted(found: Decision, given: Ints) -> tuple[Floats, Trust]:
    trust, _ = by_decision(found, given)
    return label_scores(trust, given), trust


def _evidence(state: TrainState, task: Task) -> ClassValues | None:
    """Return the evidence of a curriculum that trains no classifiers, None where there is none."""
    curriculum, config = state.sampler.curriculum, task.config
    match curriculum.source:
        case "none":
            return None
        case "random":
            return random_scores(config.seed, state.rounds, len(task.data))
        case "clean":
            if task.oracle is None:
                raise ValueError(
                    "curriculum 'oracle' needs the clean labels, and they are not known"
                )
            return np.where(task.oracle, 1.0, -1.0)
    model, probing = task.bind(state.averaged()), _probing(config)
    rows = torch.arange(len(task.data))
    if state.sampler.evidence is not None:
        rotate = config.curriculum.rotate
        rows = rows[rows % rotate == state.rounds % rotate]
    rows = task.workers.share(rows)
    if curriculum.source == "classes":
        if curriculum.reduce is None:
            return _class_evidence(state, task, model, rows)
        gains = every_class(probing, task.data, model, rows, state.rounds)
        return curriculum.reduce(task.workers.merged(gains), task.given)
    old = None if state.snapshot is None else task.bind(state.snapshot)
    scores = prediction_scores(curriculum, probing, task.data, model, old, rows, state.rounds)
    return None if scores is None else task.workers.merged(scores)


def _class_evidence(state: TrainState, task: Task, model: Model, rows: Tensor) -> ClassValues:
    """Return how much worse other classes fit than the given one, (N, K); NaN where not tried."""
    previous, probing = state.sampler.evidence, _probing(task.config)
    glanced = _glanced(task) if previous is None and glance_pays(task) else None
    likely = previous if glanced is None else glanced
    if isinstance(glanced, SparseClasses):
        probing = replace(probing, rivals=None)  # all classes that are kept
    found = class_evidence(probing, task.data, model, likely, rows, state.rounds)
    if isinstance(found, SparseClasses):
        found = merged_rows(task.workers, found, chosen=likely is None)
        # Classes that were not tried count as much as the least likely one that was.
        return found if glanced is None else replace(found, rest=found.values.min(axis=1))
    gains = task.workers.merged(found)
    if glanced is None:
        return gains
    assert not isinstance(glanced, SparseClasses)
    return _filled(gains, glanced)


def _glanced(task: Task) -> ClassValues | None:
    """Return what ranks the classes of every image; None where classifiers cannot tell many."""
    likely = likely_classes(task)
    if isinstance(likely, SparseClasses):
        hits = int((likeliest(likely) == task.given).sum())
        commonest = np.bincount(task.given).max() / len(task.given)
        if binom.sf(hits - 1, len(task.given), commonest) >= _CHANCE:
            task.report.message(
                f"classifiers name {hits / len(task.given):.2%} of the given labels, no more than "
                f"by chance: the first round tries all {task.num_classes:,} classes"
            )
            return None
    return likely


def _filled(gains: Floats, likely: Floats) -> Floats:
    """Put classes that were not tried below those that were, (N, K), the less likely the lower.

    If they were equal to the worst that was tried, each would weigh as much as it does.
    """
    order = (-likely).argsort(axis=1, kind="stable").argsort(axis=1)
    below = _BELOW * np.nanmean(np.abs(gains)) * (1 + order)
    worst = np.nanmin(gains, axis=1, keepdims=True)
    return np.where(np.isnan(gains), worst - below, gains).astype(np.float32)


def glance_pays(task: Task) -> bool:
    """Return whether the first round tries the classes that classifiers find likely, not all."""
    rivals = task.config.curriculum.rivals
    few = rivals is not None and rivals + 1 < task.num_classes
    return few and len(task.data) >= _LEAST_GLANCED


def _probing(config: Config) -> Probing:
    return Probing(
        seed=config.seed,
        p_uncond=config.diffusion.p_uncond,
        probes=config.curriculum.probes,
        times=config.curriculum.probe_times,
        rivals=config.curriculum.rivals,
        redrawn=config.curriculum.pairing == "redrawn",
    )


def scoring_round(state: TrainState, task: Task) -> Iterator[RoundDone]:
    """Gather evidence, update the sampler, and remember the weights for the next round."""
    started = time.perf_counter()
    found = gather_evidence(state, task)
    state.rounds += 1
    sampler = state.sampler
    if sampler.curriculum.needs_previous:
        state.take_snapshot()
    if found is None:
        return
    scores = sampler.take(task.workers.on_host(lambda: sampler.revised(*found)))
    assert sampler.trust is not None
    yield _done(state, task, state.rounds, scores, sampler.trust, started)


def last_round(state: TrainState, task: Task) -> Iterator[RoundDone]:
    """Score the labels with the final weights; the state stays as it is."""
    started = time.perf_counter()
    sampler = state.sampler
    if sampler.curriculum.once or (found := gather_evidence(state, task)) is None:
        return
    _, scores, trust = task.workers.on_host(lambda: sampler.revised(*found))
    yield _done(state, task, state.rounds + 1, scores, trust, started)


def _done(
    state: TrainState, task: Task, number: int, scores: Floats, trust: Trust, started: float
) -> RoundDone:
    used = np.ones(len(scores), dtype=bool)
    if state.sampler.treatment not in ("none", "select"):
        used = trusted(trust.right, task.given)
    return RoundDone(state.step, number, scores, trust, used, time.perf_counter() - started)
