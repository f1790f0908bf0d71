"""From scores to trust in labels; no clean label is used.

Arrays of (N, K) are held in float32 and computed on in float64, in pieces of rows.
"""

import math

import numpy as np
from scipy.special import expit
from scipy.stats import binom

from corruptions import mixture_posterior
from curricula import Curriculum, Trust, spared
from curricula.draw import standardise
from curricula.scores import class_margin
from curricula.sparse import ClassValues, SparseClasses, certain, empty_like, of_class, pieces
from curricula.types import Doubles, Floats, Ints
from robustdiff.labels.noise_model import fit_noise
from robustdiff.labels.sparse_bayes import sparse_image_classes, sparse_margins, sparse_posterior

_TINY = 1e-12
# Least distance between the means of two heaps of scores, in units of their mean variance's root,
# from which on they are apart (Ashman et al. 1994).
_APART = 2.0
_NO_EVIDENCE = "the scores are no evidence of which labels are wrong, nor of how many"
_NO_SHARE = "labels that score below zero are taken for wrong; how many are wrong cannot be told"
# How likely classifiers that know nothing are taken for some that do.
_CHANCE = 1e-3
# Classes with fewer labels are compared with the median of all scores, not with their own.
_FEW = 50
# Scores whose heaps are looked at; of more, so many.
_MOST_HEAPED = 100_000


def judge(curriculum: Curriculum, evidence: ClassValues, given: Ints) -> tuple[Floats, Trust]:
    """Return scores, high = trusted, and trust in the labels.

    Args:
        curriculum: Entry of `CURRICULA`.
        evidence: (N,) scores; for a curriculum that knows the classes (N, K) log-likelihoods of the
            image under each, up to a factor and a constant per row, sparse for many classes.
        given: (N,) int64 labels as given.

    Returns:
        (N,) scores, and the trust.

    Raises:
        ValueError: If a class is never given, for source "classes".
    """
    if curriculum.source == "classes" and curriculum.reduce is None:
        scores, trust = _by_evidence(evidence, given)
        return scores, spared(trust, given)
    assert not isinstance(evidence, SparseClasses)
    if curriculum.source == "clean":
        return evidence, _trust(np.where(evidence > 0, 1.0, 0.0))
    if curriculum.source == "random":
        return evidence, _without_evidence(len(evidence))
    fades = curriculum.needs_previous
    return evidence, spared(_by_scores(evidence, given, curriculum.zero, fades=fades), given)


def _by_scores(scores: Floats, given: Ints, zero: float | None, *, fades: bool) -> Trust:
    """Judge labels by scores, (N,), that do not compare the classes.

    Scores without a zero are split if they form two heaps that stand apart. Scores with one are
    split there, if they form such heaps or more of them lie above it than by chance. Otherwise they
    are no evidence, and every label stays, unless the signal `fades`: what a network learns of a
    label is its motion, which ceases, and both heaps of the mean over rounds sink. The zero still
    tells which labels are likelier wrong, but no longer how many are.
    """
    levelled = _levelled(scores, given)
    some = levelled[:: -(-len(levelled) // _MOST_HEAPED)]
    apart = _apart(some, mixture_posterior(some))
    if zero is None:
        if not apart:
            return _without_evidence(len(scores))
        return _trust(1 - mixture_posterior(levelled))
    del levelled
    above = int((scores > zero).sum())
    counted = apart or bool(binom.sf(above - 1, len(scores), 0.5) < _CHANCE)
    if not counted and not fades:
        return _without_evidence(len(scores))
    # A logistic function centred at the zero, on the scale of the scores.
    centred = standardise(np.append(scores, scores.dtype.type(zero)))
    right = centred[:-1]
    right -= centred[-1]
    trust = _trust(expit(right, out=right))
    return trust if counted else trust._replace(noise=float("nan"), doubts=(_NO_SHARE,))


def _apart(scores: Floats, lower: Doubles) -> bool:
    """Return whether two heaps stand apart, by how likely each score is of the lower one, (N,)."""
    means, variances = np.empty(2), np.empty(2)
    for heap, shares in enumerate((lower, 1 - lower)):
        if shares.sum() < 1:
            return False
        means[heap] = np.average(scores, weights=shares)
        variances[heap] = np.average((scores - means[heap]) ** 2, weights=shares)
    return bool(means[1] - means[0] > _APART * np.sqrt(variances.mean()))


def _without_evidence(count: int) -> Trust:
    return Trust(np.ones(count), float("nan"), doubts=(_NO_EVIDENCE,))


def _levelled(scores: Floats, given: Ints) -> Floats:
    """Return scores less the median of their class, (N,): some classes are harder than others.

    From scores of classes with few labels the median of all is subtracted.
    """
    result = scores - np.median(scores)
    for label in np.flatnonzero(np.bincount(given) >= _FEW):
        members = given == label
        result[members] -= np.median(result[members])
    return result


def _trust(right: Floats) -> Trust:
    return Trust(right, float((right < 0.5).mean()))


def _by_evidence(evidence: ClassValues, given: Ints) -> tuple[Floats, Trust]:
    """Judge labels by the fitted noise model; all are right where it finds no noise."""
    model = fit_noise(evidence, given)
    classes = empty_like(evidence)
    if isinstance(evidence, SparseClasses):
        classes = sparse_image_classes(evidence, model.scale, model.bias)
    else:
        for where in pieces(*evidence.shape):
            classes[where] = model.image_classes(evidence[where])
    if (model.transition == np.eye(len(model.transition))).all():
        scores, trust = _as_given(classes, model.transition, given)
    else:
        scores, trust = by_classes(classes, model.transition, given)
        # The matrix is fitted to all labels, so even weak probabilities are calibrated.
        if not math.isnan(trust.noise):
            trust = trust._replace(noise=float(1 - trust.right.mean()))
    return scores, trust._replace(temperature=1 / model.scale)


def margins(classes: ClassValues, given: Ints) -> Floats:
    """Return the log-odds of each given label against the likeliest other class.

    Args:
        classes: (N, K) probabilities.
        given: (N,) int64.

    Returns:
        (N,) float64.
    """
    if isinstance(classes, SparseClasses):
        return sparse_margins(classes, given, _TINY)
    scores = np.empty(len(given))
    for where in pieces(*classes.shape):
        logs = np.log(classes[where].astype(np.float64) + _TINY)
        own = logs[np.arange(len(logs)), given[where]]
        scores[where] = class_margin(logs - own[:, None], given[where])
    return scores


def _as_given(image_classes: ClassValues, transition: Doubles, given: Ints) -> tuple[Floats, Trust]:
    """Trust every label; the scores still rank them by how well they fit their images."""
    scores = margins(image_classes, given)
    classes = certain(given, image_classes)
    return scores, Trust(np.ones(len(given)), 0.0, classes, image_classes, transition)


def by_classes(
    image_classes: ClassValues, transition: Doubles, given: Ints
) -> tuple[Floats, Trust]:
    """Score labels by their log-odds against the likeliest other class.

    Args:
        image_classes: (N, K) p(class | image).
        transition: (K, K), T[clean, given].
        given: (N,) int64.

    Returns:
        (N,) float64, and the trust. Where the probabilities predict the given labels no better than
        chance, every label is right and the share of wrong ones NaN.
    """
    if not _predicts(image_classes, transition, given):
        scores, trust = _as_given(image_classes, transition, given)
        return scores, trust._replace(noise=float("nan"), doubts=(_NO_EVIDENCE,))
    if isinstance(image_classes, SparseClasses):
        few = sparse_posterior(image_classes, transition, given, _TINY)
        scores, right = sparse_margins(few, given, _TINY), of_class(few, given)
        return scores, Trust(right, float((scores < 0).mean()), few, image_classes, transition)
    scores, right = np.empty(len(given)), np.empty(len(given))
    classes = np.empty(image_classes.shape, dtype=np.float32)
    for where in pieces(*image_classes.shape):
        found = posterior(image_classes[where].astype(np.float64), transition, given[where])
        own = found[np.arange(len(found)), given[where]]
        gains = np.log(found + _TINY) - np.log(own + _TINY)[:, None]
        scores[where], right[where] = class_margin(gains, given[where]), own
        classes[where] = found
    # A count, since small errors of T pull the mean of the probabilities towards the prior.
    return scores, Trust(right, float((scores < 0).mean()), classes, image_classes, transition)


def _predicts(image_classes: ClassValues, transition: Doubles, given: Ints) -> bool:
    """Return whether the labels are predicted more often than always by the commonest class.

    Where classes are many, a part of the labels tells.
    """
    if isinstance(image_classes, SparseClasses):
        step = -(-len(given) // _MOST_HEAPED)
        image_classes, given = image_classes.at(slice(None, None, step)), given[::step]
    hits = 0
    for where in pieces(*image_classes.shape):
        likeliest = (image_classes[where] @ transition).argmax(axis=1)
        hits += int((likeliest == given[where]).sum())
    commonest = int(np.bincount(given).max())
    return bool(binom.sf(hits - 1, len(given), commonest / len(given)) < _CHANCE)


def posterior(clean: Floats, transition: Floats, given: Ints) -> Floats:
    """Return p(class | image, given label), proportional to T[class, given] p(class | image).

    Args:
        clean: (N, K) p(class | image).
        transition: (K, K), T[clean, given].
        given: (N,) int64.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    joint = clean * transition[:, given].T
    total = joint.sum(axis=1, keepdims=True)
    # Where the estimated matrix rules the label out, p(class | image) remains.
    return np.where(total > _TINY, joint / np.maximum(total, _TINY), clean)
