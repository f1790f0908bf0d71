"""From scores to trust in labels, without ever seeing a clean one."""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax

from corruptions import confident_joint, mixture_posterior
from curricula import Curriculum, Trust
from curricula.draw import standardise
from curricula.scores import class_margin

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_DECONVOLUTION_STEPS = 20
_TINY = 1e-12


def judge(curriculum: Curriculum, evidence: Floats, given: Ints) -> tuple[Floats, Trust]:
    """Return scores, high = trusted, and trust in the labels.

    Args:
        curriculum: Entry of `CURRICULA`.
        evidence: (N,) scores; for a curriculum that knows the classes (N, K) log-likelihoods of the
            image under each, up to a factor and a constant per row.
        given: (N,) int64 labels as given.

    Returns:
        (N,) float64, and the trust.

    Raises:
        ValueError: If a class is never given, for source "classes".
    """
    if curriculum.source == "classes" and curriculum.reduce is None:
        noisy, temperature = class_probabilities(evidence, given)
        transition = confident_joint(given, noisy).transition
        scores, trust = by_classes(deconvolve(noisy, transition), transition, given)
        return scores, trust._replace(temperature=temperature)
    if curriculum.source == "clean":
        return evidence, _trust(np.where(evidence > 0, 1.0, 0.0))
    if curriculum.zero is None:
        return evidence, _trust(1 - mixture_posterior(evidence))
    # A logistic about the zero; the scale is the scores' own.
    centred = standardise(np.array([curriculum.zero, *evidence]))
    return evidence, _trust(expit(centred[1:] - centred[0]))


def _trust(right: Floats) -> Trust:
    return Trust(right, float((right < 0.5).mean()))


def by_classes(image_classes: Floats, transition: Floats, given: Ints) -> tuple[Floats, Trust]:
    """Score labels by their log-odds against the likeliest other class.

    Args:
        image_classes: (N, K) p(class | image).
        transition: (K, K), T[clean, given].
        given: (N,) int64.

    Returns:
        (N,) float64, and the trust.
    """
    classes = posterior(image_classes, transition, given)
    rows = np.arange(len(given))
    own = classes[rows, given]
    scores = class_margin(np.log(classes + _TINY) - np.log(own + _TINY)[:, None], given)
    # Counting beats the mean of the probabilities, which small errors of T pull towards the prior.
    return scores, Trust(own, float((scores < 0).mean()), classes, image_classes, transition)


def class_probabilities(evidence: Floats, given: Ints) -> tuple[Floats, float]:
    """Turn log-likelihoods of unknown scale into probabilities of the given label.

    The scale is the one under which the given labels are likeliest; the prior is their share.

    Args:
        evidence: (N, K).
        given: (N,) int64.

    Returns:
        (N, K) float64, rows sum to 1, and the temperature that the evidence was divided by.
    """
    rows = np.arange(len(given))
    counts = np.bincount(given, minlength=evidence.shape[1])
    prior = np.log(np.maximum(counts, 1) / len(given))
    unit = np.abs(evidence).mean() or 1.0

    def loss(log_scale: float) -> float:
        logits = evidence * (np.exp(log_scale) / unit) + prior
        return -float(log_softmax(logits, axis=1)[rows, given].mean())

    best = minimize_scalar(loss, bounds=(-5, 8), method="bounded", options={"xatol": 1e-3})
    logits = evidence * (np.exp(best.x) / unit) + prior
    return np.exp(log_softmax(logits, axis=1)), float(unit / np.exp(best.x))


def deconvolve(noisy: Floats, transition: Floats, steps: int = _DECONVOLUTION_STEPS) -> Floats:
    """Return clean class probabilities f with f T close to the noisy ones.

    Multiplicative updates (Richardson 1972, Lucy 1974): f stays a distribution, and a singular T
    does no harm. Few steps, since more would fit the noise of the estimate.

    Args:
        noisy: (N, K) probabilities of the given label.
        transition: (K, K), T[clean, given].
        steps: Updates.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    clean = np.full_like(noisy, 1 / noisy.shape[1])
    for _ in range(steps):
        clean = clean * ((noisy / np.maximum(clean @ transition, _TINY)) @ transition.T)
        clean /= clean.sum(axis=1, keepdims=True)
    return clean


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
    # A label that the estimated matrix rules out leaves the image alone to decide.
    return np.where(total > _TINY, joint / np.maximum(total, _TINY), clean)
