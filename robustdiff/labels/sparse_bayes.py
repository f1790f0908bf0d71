"""Bayes' rule for many classes of which every row keeps a few: what the dense arrays would give.

The classes that a row leaves out share one value, but not their priors or their columns of T, so
their sum is that of all classes less those kept; it is stored as their mean. No (N, K) array is
made, and the time does not depend on K but for arrays of (K, K).
"""

from typing import NamedTuple

import numpy as np

from curricula.sparse import SparseClasses, empty_like, of_class, pieces
from curricula.types import Doubles, Floats, Ints

_TINY = 1e-300


class Sums(NamedTuple):
    """Sums over rows, of p = p(class | image) and q = p(class | image, label).

    Attributes:
        likelihood: Sum of log p(label | image).
        scale: Sum of (q - p) times the evidence.
        bias: (K,) sum of q - p.
        counts: (K, K) sum of q by class and label.
        guesses: Expected number of labels that were guessed.
    """

    likelihood: float
    scale: float
    bias: Doubles
    counts: Doubles
    guesses: float = 0.0


class _Logits(NamedTuple):
    """exp(scale * evidence + bias), each row up to a factor.

    Attributes:
        own: (K,) exp(bias).
        classes: (M, R) int64.
        kept: (M, R) of the classes kept.
        rest: (M,) of one class left out, without its bias.
        left: (M,) sum of those left out.
        total: (M,) sum of all.
    """

    own: Doubles
    classes: Ints
    kept: Doubles
    rest: Doubles
    left: Doubles
    total: Doubles


def _logits(evidence: SparseClasses, scale: float, bias: Doubles) -> _Logits:
    values, rest = (part.astype(np.float64) * scale for part in (evidence.values, evidence.rest))
    classes, own = evidence.classes.astype(np.int64), np.exp(bias - bias.max())
    top = np.maximum(values.max(axis=1), rest if evidence.left else -np.inf)
    kept = own[classes] * np.exp(values - top[:, None])
    others = np.exp(rest - top) * bool(evidence.left)
    left = others * _less(own.sum(), own[classes])
    return _Logits(own, classes, kept, others, left, kept.sum(axis=1) + left)


def _less(total: Doubles | float, kept: Doubles) -> Doubles:
    """Return sums of all classes less those of the kept ones, (M,), which rounding spares."""
    return np.asarray(np.maximum(total - kept.sum(axis=1), 0))


def sparse_image_classes(evidence: SparseClasses, scale: float, bias: Doubles) -> SparseClasses:
    """Return softmax(scale * evidence + bias), (N, K); see `NoiseModel.image_classes`."""
    found = empty_like(evidence)
    assert isinstance(found, SparseClasses)
    for where in pieces(*evidence.values.shape):
        some = _logits(evidence.at(where), scale, bias)
        found.values[where] = some.kept / some.total[:, None]
        found.rest[where] = some.left / some.total / max(evidence.left, 1)
    return found


def sparse_posterior(
    clean: SparseClasses, transition: Doubles, given: Ints, tiny: float
) -> SparseClasses:
    """Return p(class | image, given label), (N, K); see `robustdiff.labels.judge.posterior`."""
    found, columns = empty_like(clean), transition.sum(axis=0)
    assert isinstance(found, SparseClasses)
    for where in pieces(*clean.values.shape):
        some, labels = clean.at(where), given[where]
        named = transition[some.classes.astype(np.int64), labels[:, None]]
        kept = some.values * named
        left = some.rest * _less(columns[labels], named)
        total = kept.sum(axis=1) + left
        # Where the estimated matrix rules the label out, p(class | image) remains.
        ruled = total <= tiny
        total = np.where(ruled, 1, total)
        found.values[where] = np.where(ruled[:, None], some.values, kept / total[:, None])
        found.rest[where] = np.where(ruled, some.rest, left / total / max(clean.left, 1))
    return found


def sparse_by_both(
    evidence: SparseClasses,
    given: Ints,
    scale: float,
    bias: Doubles,
    transition: Doubles,
    guessed: float,
    forecast: Doubles,
) -> SparseClasses:
    """Return p(class | image, label), (N, K), where some labels are guessed; see `LabelModel`."""
    found = empty_like(evidence)
    assert isinstance(found, SparseClasses)
    for where in pieces(*evidence.values.shape):
        some, labels = _logits(evidence.at(where), scale, bias), given[where]
        lucky = guessed * forecast[where][:, None]
        named = transition[some.classes, labels[:, None]]
        kept = some.kept * ((1 - guessed) * named + lucky)
        unkept = (1 - guessed) * _less(
            (some.own @ transition)[labels], some.own[some.classes] * named
        )
        unkept += lucky[:, 0] * _less(some.own.sum(), some.own[some.classes])
        left = some.rest * unkept
        total = np.maximum(kept.sum(axis=1) + left, _TINY)
        found.values[where] = kept / total[:, None]
        found.rest[where] = left / total / max(evidence.left, 1)
    return found


def sparse_margins(classes: SparseClasses, given: Ints, tiny: float) -> Floats:
    """Return log-odds against the likeliest other class, (N,); see `margins` of the judge."""
    scores = np.empty(len(given))
    for where in pieces(*classes.values.shape):
        some = classes.at(where)
        own = some.classes == given[where][:, None]
        logs = np.log(some.values.astype(np.float64) + tiny)
        others = np.where(own, -np.inf, logs).max(axis=1)
        if some.left:
            others = np.maximum(others, np.log(some.rest.astype(np.float64) + tiny))
        mine = of_class(some, given[where]).astype(np.float64)  # it need not be kept
        scores[where] = np.log(mine + tiny) - others
    return scores


def sparse_sums(
    evidence: SparseClasses,
    given: Ints,
    scale: float,
    bias: Doubles,
    transition: Doubles,
    guessed: float = 0.0,
    forecast: Doubles | None = None,
) -> Sums:
    """Return what the fit of a noise model sums over rows.

    Args:
        evidence: (N, K), each row's labels among the classes it keeps.
        given: (N,) int64.
        scale: Factor of the evidence.
        bias: (K,), added after scaling.
        transition: (K, K), T[class, given].
        guessed: Share of labels that are guessed.
        forecast: (N,) how likely a guess names the given label; None where none is guessed.
    """
    k, some = evidence.count, _logits(evidence, scale, bias)
    named = transition[some.classes, given[:, None]]
    kept = some.kept * named
    left = some.rest * _less((some.own @ transition)[given], some.own[some.classes] * named)
    joint = (kept.sum(axis=1) + left) / some.total
    lucky, meant = np.zeros(len(given)), np.ones(len(given))
    if forecast is not None:
        lucky, named_so = guessed * forecast, (1 - guessed) * joint
        meant = named_so / (named_so + lucky + _TINY)
    likelihood = (1 - guessed) * joint + lucky + _TINY
    # p and q of one class, by its part of the sums above; a guess says nothing about the class.
    by_image = meant / some.total
    by_both = (1 - guessed) / (some.total * likelihood)
    q, p = kept * by_both[:, None], some.kept * by_image[:, None]
    rest = (left * by_both - some.left * by_image) * evidence.rest
    # The same for classes left out, without their own factors.
    weight, both = some.rest * by_image, some.rest * by_both
    expected = np.bincount(some.classes.ravel(), p.ravel(), k)
    unkept = np.maximum(weight.sum() - _spread(some.classes, weight, k), 0)
    expected = expected + some.own * unkept
    pairs = some.classes * k + given[:, None]
    held = _spread(pairs, both, k * k).reshape(k, k)
    others = some.own[:, None] * transition * np.maximum(np.bincount(given, both, k) - held, 0)
    counts = np.bincount(pairs.ravel(), q.ravel(), k * k).reshape(k, k) + others
    return Sums(
        float(np.log(likelihood).sum()),
        float(((q - p) * evidence.values).sum() + rest.sum()),
        counts.sum(axis=1) - expected,
        counts,
        float((lucky / likelihood).sum()),
    )


def _spread(places: Ints, weights: Doubles, size: int) -> Doubles:
    """Return the sum of each row's weight over its places, (M, R) -> (size,)."""
    spread = np.broadcast_to(weights[:, None], places.shape)
    return np.asarray(np.bincount(places.ravel(), spread.ravel(), size), dtype=np.float64)
