"""Which labels are wrong, by anybody's out-of-sample probabilities and the given labels alone.

Noise is everywhere, and a weak classifier errs on images it is not sure of. So there is no noise
unless labels contradict the classifier on images that it is sure of. Where they do, what explains
them best decides (`robustdiff.labels.explanations`): labels are flagged by one explanation, and
what other classifiers learn from is the mean of all, since whichever is wrong, the mean is never
far off.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, chi2

from curricula.sparse import (
    ClassValues,
    SparseClasses,
    add_share,
    certain,
    empty_like,
    held,
    likeliest,
    of_class,
    pieces,
)
from robustdiff.labels.doubts import WEAK, sentences, unclear_names
from robustdiff.labels.explanations import Explanation, Labelled, explanations, logs, readable
from robustdiff.labels.label_fit import Family, LabelModel, fit_labels
from robustdiff.labels.mistakes import hardness
from robustdiff.labels.sure import Contradictions, contradictions, sure_transition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Least ratio of contradictions on sure images to those on all that speaks for much noise, and its
# growth with the share of the latter above one half: very weak classifiers are sure of nothing.
# Measured: up to .26 on clean labels (classifiers right on .51 to .97), .64 where they are right on
# .33; from .33 on under noise of 9 %, from .5 on under more.
_CONTRADICTED, _MORE = 0.3, 2.2
# Least ratio on the surest images that speaks for a few mistakes, and the most contradictions up to
# which it does. On clean labels it was at most the square of the share of contradictions in units
# of chance (.003 of .06 and .14 of .17 on CIFAR-10); for Gaussian classes too, up to that share.
_FEW, _MOST_CONTRADICTED = 0.03, 0.5
# How likely more contradictions than that pass for noise.
_BY_CHANCE = 0.02
# How likely probabilities without a bearing on the labels pass for evidence.
_CHANCE = 1e-6
# Added to the statistical error of the share, since no model is quite right.
_UNSURE = 0.02
# Entries (rows times classes) that are fitted, and rows a class at least.
_MOST_FITTED, _LEAST_ROWS = 1 << 18, 20
# Least divisor.
_LEAST = 1e-12


@dataclass(frozen=True)
class Decision:
    """What is known about the labels.

    Attributes:
        right: (N,) float64 in [0, 1], how likely each given label is right.
        corrected: (N,) int64, the given label where that is at least as likely right as wrong, else
            the likeliest class.
        classes: (N, K) float32, p(class | image, given label), rows sum to 1; sparse, like the next
            three, where the probabilities are.
        image_classes: (N, K) float32, p(class | image), rows sum to 1.
        mean_classes: `classes`, mean over all explanations and the chosen one.
        mean_image_classes: `image_classes`, the same mean.
        transition: (K, K) float64, T[clean, given] of these labels, by `classes`; the identity
            without noise.
        share: Estimated share of wrong labels.
        low: Lower end of its interval.
        high: Upper end.
        kind: "no evidence" (the probabilities do not predict the given labels), "no noise"
            (nothing speaks for noise), "few" (some mistakes, of a kind that cannot be told), "by
            class", or "by image" (wrong labels depend on how hard the image is, or on what it
            resembles).
        doubts: What cannot be known, see `robustdiff.labels.doubts`.
    """

    right: Floats
    corrected: Ints
    classes: ClassValues
    image_classes: ClassValues
    mean_classes: ClassValues
    mean_image_classes: ClassValues
    transition: Floats
    share: float
    low: float
    high: float
    kind: str
    doubts: tuple[str, ...] = ()


def decide(
    probabilities: ClassValues,
    given: Ints,
    *,
    by_image: bool | None = None,
    wrong_seen: bool = False,
) -> Decision:
    """Decide which labels are wrong.

    Args:
        probabilities: (N, K), K >= 2, probabilities of the given or of the clean class, up to a
            factor per row, by a classifier that was not trained on the label that it judges: one
            that was hides what is wrong.
        given: (N,) int64 in [0, K).
        by_image: Whether wrong labels are known to depend on the image; None where that is open.
        wrong_seen: Whether somebody has seen wrong labels, so that there is noise.

    Returns:
        The decision.

    Raises:
        ValueError: If the shapes differ, or a probability is negative or not finite.
    """
    _check(probabilities, given)
    k = probabilities.shape[1]
    rows = _some_rows(given, k)
    some, y = readable(probabilities, rows), given[rows]
    none = fit_labels(logs(some), y, np.zeros(k + 1), Family("none"))
    by_frequency = _by_frequency(y, k)
    explained = 1 - none.likelihood / min(by_frequency, -_LEAST)
    against = contradictions(probabilities, given)
    much = _speaks_for_noise(against)
    if 2 * (none.likelihood - by_frequency) <= chi2.isf(_CHANCE, 1):
        decision = _as_given(probabilities, given, none, "no evidence")
    elif not (much or wrong_seen or _speaks_for_few(against, k)):
        # Weak classifiers contradict so many labels that this says nothing.
        kind = "no noise" if explained >= WEAK else "no evidence"
        decision = _as_given(probabilities, given, none, kind)
        if kind == "no noise":
            # Wrong labels that only hard images have would not be noticed.
            high = against.everywhere + _error(against.everywhere, len(given))
            decision = replace(decision, high=min(high, 1.0))
    else:
        everyone = Labelled(probabilities, hardness(probabilities), given, none)
        decision = _by_explanations(everyone, rows, few=not much, by_image=by_image)
    unclear = unclear_names(probabilities, given) if decision.share else []
    high = min(decision.high + sum(names.more for names in unclear), 1.0)
    return replace(decision, high=high, doubts=sentences(unclear, given, k, explained))


def hedged(found: Decision, given: Ints) -> Decision:
    """Return the decision by the mean of all explanations, for weak evidence.

    A chosen explanation is the better one where classifiers know the images well; where they do
    not, it can be far off.

    Args:
        found: What `decide` returned.
        given: (N,) int64 labels.
    """
    right, corrected = _judged(found.mean_classes, given)
    share = float(1 - right.mean())
    return replace(
        found,
        right=right,
        corrected=corrected,
        classes=found.mean_classes,
        image_classes=found.mean_image_classes,
        transition=_transition(found.mean_classes, given),
        share=share,
        low=min(found.low, share),
        high=max(found.high, share),
    )


def relabelled(classes: ClassValues, given: Ints) -> Ints:
    """Return corrected labels, (N,) int64: given ones as likely right as wrong, else the likeliest.

    Args:
        classes: (N, K) p(class | image, label).
        given: (N,) int64.
    """
    return np.where(of_class(classes, given) >= 0.5, given, likeliest(classes))


def _judged(classes: ClassValues, given: Ints) -> tuple[Floats, Ints]:
    """Return how likely labels are right, and corrected ones, by p(class | image, label)."""
    right = np.minimum(of_class(classes, given).astype(np.float64), 1.0)
    return right, relabelled(classes, given)


def _transition(classes: ClassValues, given: Ints) -> Floats:
    """Return T[clean, given] by p(class | image, label), (N, K)."""
    n, k = classes.shape
    counts = _LEAST * np.eye(k)
    if isinstance(classes, SparseClasses):
        # Every class has the value of those left out, and those kept have more.
        counts += np.bincount(given, classes.rest, k)
        more = classes.values - classes.rest[:, None]
        pairs = classes.classes.astype(np.int64) * k + given[:, None]
        counts += np.bincount(pairs.ravel(), more.ravel(), k * k).reshape(k, k)
        counts = np.maximum(counts, 0)
    else:
        for where in pieces(n, k):
            np.add.at(counts.T, given[where], classes[where])
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))


def _speaks_for_noise(against: Contradictions) -> bool:
    """Return whether labels contradict the classifier where it is sure of the image.

    More often, that is, than such weak classifiers do on clean labels, and than by chance.
    """
    usual = _CONTRADICTED + _MORE * max(against.everywhere - 0.5, 0.0)
    return _above(against.sure, against.images, usual * against.everywhere)


def _speaks_for_few(against: Contradictions, k: int) -> bool:
    """Return whether labels contradict the classifier on the images that it is surest of."""
    of_chance = against.everywhere / (1 - 1 / k)
    usual = max(of_chance**2, _FEW) * against.everywhere
    known = against.everywhere < _MOST_CONTRADICTED
    return known and _above(against.surest, against.surest_images, usual)


def _above(share: float, count: int, usual: float) -> bool:
    """Return whether a share of a count is above a usual one, and more than by chance."""
    found = round(share * count)
    return share > usual and bool(binom.sf(found - 1, count, min(usual, 1.0)) < _BY_CHANCE)


def _by_explanations(
    everyone: Labelled, rows: Ints, *, few: bool, by_image: bool | None
) -> Decision:
    """Explain some rows, and apply what is found to all images.

    The shares under the likeliest explanations bound that of wrong labels. Where few are wrong,
    none of these can be told from the others, and the mean of all decides.
    """
    given, some = everyone.given, everyone.at(rows)
    matrix = sure_transition(everyone.probabilities, given)
    everything, best = explanations(some, matrix, by_image=by_image)
    chosen = [] if few else best[-1:]
    means = _mean_posterior(everyone, [*everything, *chosen])
    classes, image_classes = _mean_posterior(everyone, chosen) if chosen else means
    right, corrected = _judged(classes, given)
    share = float(1 - right.mean())
    shares = [share, *(found.share(some) for found in (everything if few else best))]
    error = _error(share, len(given)) + _UNSURE
    return Decision(
        right,
        corrected,
        classes,
        image_classes,
        *means,
        _transition(classes, given),
        share,
        max(min(shares) - error, 0.0),
        min(max(shares) + error, 1.0),
        "few" if few else "by image" if by_image or best[-1].by_image else "by class",
    )


def _mean_posterior(everyone: Labelled, some: list[Explanation]) -> tuple[ClassValues, ClassValues]:
    """Return p(class | image, label) and p(class | image), (N, K), means over explanations."""
    classes, image_classes = (empty_like(everyone.probabilities) for _ in range(2))
    for where in _pieces(everyone.probabilities):
        part = everyone.at(where)
        for each in some:
            by_image, by_both = each.posterior(part)
            add_share(image_classes, where, by_image, len(some))
            add_share(classes, where, by_both, len(some))
    return classes, image_classes


def _pieces(values: ClassValues) -> Iterator[slice]:
    """Yield slices of rows; a sparse one takes a matrix of the classes it keeps and the others."""
    few = isinstance(values, SparseClasses)
    return pieces(len(values), (held(values).shape[1] + 1) ** 2 if few else values.shape[1])


def _as_given(probabilities: ClassValues, given: Ints, none: LabelModel, kind: str) -> Decision:
    n, k = probabilities.shape
    image_classes, classes = empty_like(probabilities), certain(given, probabilities)
    for where in _pieces(probabilities):
        found = none.image_classes(logs(readable(probabilities, where)))
        add_share(image_classes, where, found, 1)
    high = 1.0 if kind == "no evidence" else 0.0
    both = (classes, image_classes)
    return Decision(np.ones(n), given, *both, *both, np.eye(k), 0.0, 0.0, high, kind)


def _by_frequency(y: Ints, k: int) -> float:
    """Return the log-likelihood of labels, (N,), under their frequencies."""
    counts = np.bincount(y, minlength=k)
    return float((counts * np.log(np.maximum(counts, 1) / len(y))).sum())


def _error(share: float, count: int) -> float:
    """Return two standard errors of a share."""
    return 2 * float(np.sqrt(share * (1 - share) / max(count, 1)))


def _some_rows(given: Ints, k: int) -> Ints:
    """Return rows to fit, (M,), evenly spread over the labels of every class."""
    most = max(_MOST_FITTED // k, _LEAST_ROWS * k)
    if len(given) <= most:
        return np.arange(len(given))
    by_class = np.argsort(given, kind="stable")
    return by_class[np.linspace(0, len(given) - 1, most).astype(np.int64)]


def _check(probabilities: ClassValues, given: Ints) -> None:
    n, shape = len(given), probabilities.shape
    if len(shape) != 2 or shape[0] != n or shape[1] < 2:
        raise ValueError(f"probabilities must have shape ({n}, K), K >= 2, got {shape}")
    parts = [held(probabilities)]
    if isinstance(probabilities, SparseClasses):
        parts.append(probabilities.rest)
    if any(not np.isfinite(part).all() or (part < 0).any() for part in parts):
        raise ValueError("probabilities must be finite and at least 0")
    if n == 0 or given.min() < 0 or given.max() >= shape[1]:
        raise ValueError(f"given must hold labels in [0, {shape[1]})")
