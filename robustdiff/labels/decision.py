"""Which labels are wrong, by anybody's out-of-sample probabilities and the given labels alone.

With p(class | image) = softmax(scale z + bias), z a logarithm of probabilities, a label has

    p(given | class, image) = (1 - guessed) T[class, given] + guessed h(given | image),

T the noise of classes and h the calibrated forecast of the given label: whoever errs on a hard
image names a class that it resembles. guessed = 0 is class-dependent noise, T = 1 none.

The given labels cannot tell sharp classes under guessed labels from blurred classes under right
ones: their likelihood is nearly the same. Two conventions decide.

- Noise is everywhere, a weak classifier errs on images it is not sure of. So there is no noise
  unless labels contradict the classifier on images that it is sure of.
- A picture shows one thing, whatever its labellers said. So where the noise has structure and the
  classifier knows most images, the sharpest classes that explain the labels as well are taken.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logit
from scipy.stats import binom, chi2

from robustdiff.labels.doubts import WEAK, sentences, unclear_names
from robustdiff.labels.label_fit import Family, LabelModel, deconvolve, fit_labels
from robustdiff.labels.mistakes import MistakeModel, fit_mistakes, hardness
from robustdiff.labels.rows import pieces
from robustdiff.labels.sure import Contradictions, contradictions, sure_transition

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Least ratio of contradictions on sure images to those on all that speaks for noise, and its growth
# with the share of the latter above one half: very weak classifiers are sure of nothing. Measured:
# up to .26 on clean labels (classifiers right on .51 to .97), .64 where they are right on .33;
# from .33 on under noise of 9 %, from .5 on under more.
_CONTRADICTED, _MORE = 0.3, 2.2
# How likely more contradictions than that pass for noise.
_BY_CHANCE = 0.02
# How likely probabilities without a bearing on the labels pass for evidence.
_CHANCE = 1e-6
# Nats an image by which explanations count as alike; the one with the sharpest classes is taken.
_ALIKE = 0.0025
# Gain in likelihood of any matrix over symmetric noise, as a share of that of the latter over none.
_STRUCTURE = 0.3
# Mean probability of the likeliest class from which on classes are sharpened; the steps in the
# logarithm of the scale; nats an image that it may cost; the most labels that may be guessed.
_KNOWN, _STEPS, _COST, _GUESSED = 0.8, (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9), 0.001, 1 / 3
# Where no noise of classes gains so many nats an image, and leaves classes less sharp than this,
# the probabilities have learnt the mistakes: then guesses alone explain them.
_SOLE, _CLEAR = 0.002, 0.85
# Nats an image by which noise of classes and noise that depends on the image count as alike; the
# steps and costs of sharpening the latter; the most classes that it is fitted to. All these were
# chosen on generated noise, on digits, MNIST and features of CIFAR-10, and while looking at
# CIFAR-10N's worst labels.
_FAMILIES_ALIKE, _IMAGE_STEPS, _IMAGE_COST = 0.006, (0.15, 0.3, 0.45, 0.6), 0.001
_IMAGE_CLASSES = 50
# Resemblance from which on wrong labels name what the image resembles.
_RESEMBLING = 0.15
# Added to the statistical error of the share, since no model is quite right.
_UNSURE = 0.02
# Entries (rows times classes) that are fitted, and rows a class at least.
_MOST_FITTED, _LEAST_ROWS = 1 << 18, 20
# Least probability that counts, and least divisor.
_FLOOR, _LEAST = 1e-6, 1e-12


@dataclass(frozen=True)
class Decision:
    """What is known about the labels.

    Attributes:
        right: (N,) float64 in [0, 1], how likely each given label is right.
        corrected: (N,) int64, the given label where that is at least as likely right as wrong, else
            the likeliest class.
        classes: (N, K) float32, p(class | image, given label), rows sum to 1.
        image_classes: (N, K) float32, p(class | image), rows sum to 1.
        transition: (K, K) float64, T[clean, given] of these labels, by `classes`; the identity
            without noise.
        share: Estimated share of wrong labels.
        low: Lower end of its interval.
        high: Upper end.
        kind: "no evidence" (the probabilities do not predict the given labels), "no noise"
            (nothing speaks for noise), "by class", or "by image" (wrong labels depend on how hard
            the image is, or on what it resembles).
        doubts: What cannot be known, see `robustdiff.labels.doubts`.
    """

    right: Floats
    corrected: Ints
    classes: NDArray[np.float32]
    image_classes: NDArray[np.float32]
    transition: Floats
    share: float
    low: float
    high: float
    kind: str
    doubts: tuple[str, ...] = ()


class _View(NamedTuple):
    """How the probabilities are read, and what explains the labels.

    Attributes:
        matrix: (K, K) noise that they have learnt and that is undone, or None.
        model: The model; `posterior` says what follows from it.
        gain: Nats an image by which labels are likelier than under the probabilities alone.
        structured: Whether the noise is more than symmetric.
        sharpness: Mean probability of the likeliest class.
    """

    matrix: Floats | None
    model: LabelModel | MistakeModel
    gain: float
    structured: bool
    sharpness: float


def decide(probabilities: NDArray[np.floating], given: Ints) -> Decision:
    """Decide which labels are wrong.

    Args:
        probabilities: (N, K), K >= 2, probabilities of the given or of the clean class, up to a
            factor per row, by a classifier that was not trained on the label that it judges: one
            that was hides what is wrong.
        given: (N,) int64 in [0, K).

    Returns:
        The decision.

    Raises:
        ValueError: If the shapes differ, or a probability is negative or not finite.
    """
    _check(probabilities, given)
    k = probabilities.shape[1]
    rows = _some_rows(given, k)
    some, y = probabilities[rows], given[rows]
    none = fit_labels(_logs(some), y, np.zeros(k + 1), Family("none"))
    by_frequency = _by_frequency(y, k)
    explained = 1 - none.likelihood / min(by_frequency, -_LEAST)
    against = contradictions(probabilities, given)
    if 2 * (none.likelihood - by_frequency) <= chi2.isf(_CHANCE, 1):
        decision = _as_given(probabilities, given, none, "no evidence")
    elif not _speaks_for_noise(against):
        # Weak classifiers contradict so many labels that this says nothing.
        kind = "no noise" if explained >= WEAK else "no evidence"
        decision = _as_given(probabilities, given, none, kind)
        if kind == "no noise":
            # Wrong labels that only hard images have would not be noticed.
            high = against.everywhere + _error(against.everywhere, len(given))
            decision = replace(decision, high=min(high, 1.0))
    else:
        plain = _explained(some, y, none, None)
        freed = _explained(some, y, none, sure_transition(probabilities, given))
        best = max(plain.gain, freed.gain)
        alike = [view for view in (plain, freed) if view.gain > best - _ALIKE]
        chosen = max(alike, key=lambda view: view.sharpness)
        views = [*alike, *_sharpened(some, y, none, chosen)]
        u = hardness(probabilities)
        if k <= _IMAGE_CLASSES:
            matrices = [plain.matrix, freed.matrix]
            views = _with_images(views, _by_image(some, u[rows], y, none, matrices))
        shares = [_share(some, u[rows], y, none, view) for view in views]
        decision = _decision(probabilities, u, given, none, views, shares)
    unclear = unclear_names(probabilities, given) if decision.share else []
    high = min(decision.high + sum(names.more for names in unclear), 1.0)
    return replace(decision, high=high, doubts=sentences(unclear, given, k, explained))


def _speaks_for_noise(against: Contradictions) -> bool:
    """Return whether labels contradict the classifier where it is sure of the image.

    More often, that is, than such weak classifiers do on clean labels, and than by chance.
    """
    everywhere, sure, images = against
    usual = (_CONTRADICTED + _MORE * max(everywhere - 0.5, 0.0)) * everywhere
    found = round(sure * images)
    return sure > usual and bool(binom.sf(found - 1, images, min(usual, 1.0)) < _BY_CHANCE)


def _explained(
    some: NDArray[np.floating], y: Ints, none: LabelModel, matrix: Floats | None
) -> _View:
    """Fit symmetric noise and any matrix to probabilities (N, K) and labels (N,).

    Any matrix must gain more nats than it has parameters (Akaike 1974), and a fair share of what
    symmetric noise gains, since no softmax is quite right.
    """
    (n, k), x = some.shape, _logs(some, matrix)
    alone = none if matrix is None else fit_labels(x, y, np.zeros(k + 1), Family("none"))
    # The second start finds much noise under weak evidence.
    symmetric = max(
        (
            fit_labels(x, y, np.r_[alone.scale + more, alone.bias, rate], Family("symmetric"))
            for more, rate in ((0.3, -2.0), (1.2, 0.0))
        ),
        key=lambda model: model.likelihood,
    )
    start = np.log(0.9 * symmetric.transition + 0.1 / k).ravel()
    free = fit_labels(x, y, np.r_[symmetric.scale, symmetric.bias, start], Family("any"))
    gain, more = symmetric.likelihood - none.likelihood, free.likelihood - symmetric.likelihood
    structured = more >= max(k * (k - 1) - 1, _STRUCTURE * gain)
    model = free if structured else symmetric
    sharpness = float(model.image_classes(x).max(axis=1).mean())
    return _View(matrix, model, (model.likelihood - none.likelihood) / n, structured, sharpness)


def _sharpened(some: NDArray[np.floating], y: Ints, none: LabelModel, view: _View) -> list[_View]:
    """Return the view, sharpened where the classifier knows most images, after the next likeliest.

    Classes are sharpened as far as the labels stay as likely and few of them are guessed.
    """
    x, model, guessed = _logs(some, view.matrix), view.model, -2.0
    steps: tuple[float, ...] = _STEPS
    sole = view.gain < _SOLE and view.sharpness < _CLEAR
    if sole:
        steps = _STEPS[-1:]
    elif not view.structured:
        return [view]
    known = sole or view.sharpness >= _KNOWN
    forecast = none.image_classes(_logs(some))[np.arange(len(y)), y]
    found, best = view, -np.inf
    for step in steps:
        assert isinstance(model, LabelModel)
        start = np.r_[model.bias, np.log(model.transition + _FLOOR).ravel(), guessed]
        model = fit_labels(x, y, start, Family("any", view.model.scale + step), forecast)
        best, guessed = max(best, model.likelihood), float(logit(model.guessed / 2 + _FLOOR))
        tried = view._replace(
            model=model,
            gain=(model.likelihood - none.likelihood) / len(y),
            sharpness=float(model.image_classes(x).max(axis=1).mean()),
        )
        costly = model.likelihood < best - _COST * len(y) or model.guessed > _GUESSED
        if costly and not sole:
            return [tried, found] if known else [found, view]
        found = tried
    return [found] if known else [found, view]


def _by_image(
    some: NDArray[np.floating],
    u: Floats,
    y: Ints,
    none: LabelModel,
    matrices: list[Floats | None],
) -> _View:
    """Fit noise that depends on the image; sharpen classes while labels stay as likely."""
    n, k = some.shape
    starts = [
        (matrix, fit_mistakes(_logs(some, matrix), u, y, MistakeModel.before(k).parameters()))
        for matrix in matrices
    ]
    matrix, model = max(starts, key=lambda start: start[1].likelihood)
    z, best, scale = _logs(some, matrix), model.likelihood, model.scale
    for step in _IMAGE_STEPS:
        tried = fit_mistakes(z, u, y, model.parameters(), scale=scale + step)
        if tried.likelihood < best - _IMAGE_COST * n:
            break
        model = tried
    sharpness = float(model.image_classes(z).max(axis=1).mean())
    # Less the parameters that noise of classes has not: they fit few labels by chance (Akaike 1974)
    gain = (model.likelihood - none.likelihood - (k + 2)) / n
    return _View(matrix, model, gain, structured=True, sharpness=sharpness)


def _with_images(views: list[_View], found: _View) -> list[_View]:
    """Return the views with that of noise that depends on the image, where this shows.

    It comes last if it is likelier, or sharper and as likely; the last view decides.
    """
    if not _depends_on_image(found.model):
        return views
    last = views[-1]
    if found.gain > last.gain + _FAMILIES_ALIKE:
        return [found]
    if found.sharpness > max(last.sharpness, _KNOWN) and found.gain > last.gain - _ALIKE:
        return [*views, found]
    return [found, *views]


def _posterior(
    some: NDArray[np.floating], u: Floats, y: Ints, none: LabelModel, view: _View
) -> tuple[Floats, Floats]:
    """Return p(class | image) and p(class | image, label) under a view, both (N, K)."""
    z = _logs(some, view.matrix)
    if isinstance(view.model, MistakeModel):
        return view.model.image_classes(z), view.model.posterior(z, u, y)
    forecast = none.image_classes(_logs(some))[np.arange(len(y)), y]
    return view.model.image_classes(z), view.model.posterior(z, y, forecast)


def _share(some: NDArray[np.floating], u: Floats, y: Ints, none: LabelModel, view: _View) -> float:
    """Return the share of wrong labels under a view."""
    _, found = _posterior(some, u, y, none, view)
    return float(1 - found[np.arange(len(y)), y].mean())


def _decision(
    probabilities: NDArray[np.floating],
    u: Floats,
    given: Ints,
    none: LabelModel,
    views: list[_View],
    shares: list[float],
) -> Decision:
    """Apply the last view to all images; the shares under all views bound that of wrong labels."""
    n, k = probabilities.shape
    image_classes, classes = (np.empty((n, k), dtype=np.float32) for _ in range(2))
    right, counts = np.empty(n), np.zeros((k, k))
    for where in pieces(n, k):
        y = given[where]
        image_classes[where], found = _posterior(probabilities[where], u[where], y, none, views[-1])
        classes[where], right[where] = found, found[np.arange(len(y)), y]
        np.add.at(counts.T, y, found)
    counts += _LEAST * np.eye(k)
    corrected = np.where(right >= 0.5, given, classes.argmax(axis=1))
    share = float(1 - right.mean())
    error = _error(share, n) + _UNSURE
    low, high = max(min(*shares, share) - error, 0.0), min(max(*shares, share) + error, 1.0)
    return Decision(
        right,
        corrected,
        classes,
        image_classes,
        counts / counts.sum(axis=1, keepdims=True),
        share,
        low,
        high,
        "by image" if _depends_on_image(views[-1].model) else "by class",
    )


def _depends_on_image(model: LabelModel | MistakeModel) -> bool:
    """Return whether wrong labels depend on the image."""
    if isinstance(model, MistakeModel):
        return model.resemblance > _RESEMBLING
    return model.guessed > 0


def _as_given(
    probabilities: NDArray[np.floating], given: Ints, none: LabelModel, kind: str
) -> Decision:
    n, k = probabilities.shape
    image_classes, classes = np.empty((n, k), dtype=np.float32), np.zeros((n, k), dtype=np.float32)
    for where in pieces(n, k):
        image_classes[where] = none.image_classes(_logs(probabilities[where]))
    classes[np.arange(n), given] = 1
    high = 1.0 if kind == "no evidence" else 0.0
    return Decision(np.ones(n), given, classes, image_classes, np.eye(k), 0.0, 0.0, high, kind)


def _by_frequency(y: Ints, k: int) -> float:
    """Return the log-likelihood of labels, (N,), under their frequencies."""
    counts = np.bincount(y, minlength=k)
    return float((counts * np.log(np.maximum(counts, 1) / len(y))).sum())


def _error(share: float, count: int) -> float:
    """Return two standard errors of a share."""
    return 2 * float(np.sqrt(share * (1 - share) / max(count, 1)))


def _logs(probabilities: NDArray[np.floating], matrix: Floats | None = None) -> Floats:
    """Return log-probabilities less their mean, (N, K), of the classes that give these under T."""
    shares = probabilities.astype(np.float64)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), _LEAST)
    if matrix is not None:
        shares = deconvolve(shares, matrix)
    logs = np.log(np.maximum(shares, _FLOOR))
    return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def _some_rows(given: Ints, k: int) -> Ints:
    """Return rows to fit, (M,), evenly spread over the labels of every class."""
    most = max(_MOST_FITTED // k, _LEAST_ROWS * k)
    if len(given) <= most:
        return np.arange(len(given))
    by_class = np.argsort(given, kind="stable")
    return by_class[np.linspace(0, len(given) - 1, most).astype(np.int64)]


def _check(probabilities: NDArray[np.floating], given: Ints) -> None:
    n, shape = len(given), probabilities.shape
    if probabilities.ndim != 2 or shape[0] != n or shape[1] < 2:
        raise ValueError(f"probabilities must have shape ({n}, K), K >= 2, got {shape}")
    if not np.isfinite(probabilities).all() or (probabilities < 0).any():
        raise ValueError("probabilities must be finite and at least 0")
    if n == 0 or given.min() < 0 or given.max() >= shape[1]:
        raise ValueError(f"given must hold labels in [0, {shape[1]})")
