"""How labels come about, fitted to evidence of the classes and to the labels themselves.

    p(label | image) = (1 - guessed) sum over classes of p(class | image) T[class, label]
                       + guessed h(label | image)
    p(class | image) = softmax(scale z + bias)

Scale, bias, T and guessed are those under which the labels are likeliest.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax

from curricula.sparse import ClassValues, SparseClasses
from robustdiff.labels.sparse_bayes import (
    Sums,
    sparse_by_both,
    sparse_image_classes,
    sparse_sums,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Priors, weak beside thousands of labels: labels that a row of T counts for, the share of wrong
# ones among them, and the precision of the bias.
_PSEUDO_LABELS, _PSEUDO_NOISE, _BIAS_PRECISION = 20.0, 0.2, 5.0
# Noise that is allowed where none is fitted, so that no label is impossible.
_LEAST_NOISE = 1e-4
_TINY = 1e-300
_DECONVOLUTION_STEPS, _LEAST = 20, 1e-12


class LabelModel(NamedTuple):
    """A fitted model.

    Attributes:
        scale: Logarithm of what evidence is multiplied by.
        bias: (K,) float64, added to that.
        transition: (K, K) float64, T[class, label].
        guessed: Share of labels that come from h.
        likelihood: Logarithm of that of the labels, without priors.
    """

    scale: float
    bias: Floats
    transition: Floats
    guessed: float
    likelihood: float

    def image_classes(self, z: ClassValues) -> ClassValues:
        """Return p(class | image), (N, K), of evidence z, (N, K); sparse where that is."""
        if isinstance(z, SparseClasses):
            return sparse_image_classes(z, float(np.exp(self.scale)), self.bias)
        return np.asarray(softmax(np.exp(self.scale) * z + self.bias, axis=1))

    def posterior(self, z: ClassValues, labels: Ints, forecast: Floats) -> ClassValues:
        """Return p(class | image, label), (N, K), by Bayes' rule; forecast is h(label), (N,)."""
        if isinstance(z, SparseClasses):
            scale, t = float(np.exp(self.scale)), self.transition
            return sparse_by_both(z, labels, scale, self.bias, t, self.guessed, forecast)
        named = (1 - self.guessed) * self.transition[:, labels].T
        classes = softmax(np.exp(self.scale) * z + self.bias, axis=1)
        joint = classes * (named + self.guessed * forecast[:, None])
        return np.asarray(joint / np.maximum(joint.sum(axis=1, keepdims=True), _TINY))


class Family(NamedTuple):
    """What is fitted.

    Attributes:
        noise: "none", "symmetric" (one parameter, the logit of the rate) or "any" (K * K logits).
        scale: Logarithm of the scale, where it is not fitted.
    """

    noise: str
    scale: float | None = None

    def parts(self, p: Floats, k: int) -> tuple[float, Floats, Floats, Floats]:
        """Split parameters p into log scale, bias (K,), T (K, K) and what remains."""
        at = int(self.scale is None)
        scale = float(p[0]) if self.scale is None else self.scale
        bias, rest = p[at : at + k], p[at + k :]
        if self.noise == "any":
            return (
                scale,
                bias,
                np.asarray(softmax(rest[: k * k].reshape(k, k), axis=1)),
                rest[k * k :],
            )
        rate = expit(rest[0]) if self.noise == "symmetric" else _LEAST_NOISE
        matrix = np.full((k, k), rate / (k - 1))
        np.fill_diagonal(matrix, 1 - rate)
        return scale, bias, matrix, rest[int(self.noise == "symmetric") :]

    def slope(self, matrix: Floats, counts: Floats) -> Floats:
        """Return the gradient of sum(counts * log T) by the parameters of T."""
        if self.noise == "any":
            return np.ravel(counts - matrix * counts.sum(axis=1, keepdims=True))
        if self.noise == "symmetric":
            return np.array([matrix[0, 0] * counts.sum() - np.trace(counts)])
        return np.empty(0)


def fit_labels(
    z: ClassValues, labels: Ints, start: Floats, family: Family, forecast: Floats | None = None
) -> LabelModel:
    """Maximise the likelihood of labels.

    The gradient follows from the posterior of class and of guessing, as in an EM step.

    Args:
        z: (N, K) evidence; rows of sparse one keep their label.
        labels: (N,) int64.
        start: Log scale unless the family fixes it, bias (K,), the family's own parameters, and
            the logit of `guessed` if there is a forecast.
        family: What is fitted.
        forecast: (N,) h(label | image), or None where none is guessed.

    Returns:
        The model.
    """
    n, k = z.shape
    onehot = None if isinstance(z, SparseClasses) else np.eye(k)[labels]
    prior = np.zeros((k, k))
    if family.noise == "any":
        prior = _PSEUDO_LABELS * ((1 - _PSEUDO_NOISE) * np.eye(k) + _PSEUDO_NOISE / k)

    def expected(p: Floats) -> tuple[LabelModel, Sums]:
        scale, bias, matrix, rest = family.parts(p, k)
        guessed = 0.0 if forecast is None else float(expit(rest[0]))
        model = LabelModel(scale, bias, matrix, guessed, 0.0)
        return model, _sums(model, z, labels, onehot, forecast)

    def loss(p: Floats) -> tuple[float, Floats]:
        model, found = expected(p)
        value = found.likelihood - _BIAS_PRECISION / 2 * (model.bias**2).sum()
        value += (prior * np.log(model.transition + _TINY)).sum()
        slope = [
            found.bias - _BIAS_PRECISION * model.bias,
            family.slope(model.transition, found.counts + prior),
        ]
        if family.scale is None:
            slope.insert(0, np.array([np.exp(model.scale) * found.scale]))
        if forecast is not None:
            slope.append(np.array([found.guesses - model.guessed * n]))
        return -value / n, -np.concatenate(slope) / n

    bounds = [
        (-6.0, 6.0) if family.scale is None and i == 0 else (-20.0, 20.0) for i in range(len(start))
    ]
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": 150, "ftol": 1e-9},
    ).x
    model, sums = expected(found)
    return model._replace(likelihood=float(sums.likelihood))


def _sums(
    model: LabelModel,
    z: ClassValues,
    labels: Ints,
    onehot: Floats | None,
    forecast: Floats | None,
) -> Sums:
    """Return what a fit sums over rows: of the posterior of class and of guessing."""
    if isinstance(z, SparseClasses) or onehot is None:
        assert isinstance(z, SparseClasses)
        scale, t = float(np.exp(model.scale)), model.transition
        return sparse_sums(z, labels, scale, model.bias, t, model.guessed, forecast)
    classes = softmax(np.exp(model.scale) * z + model.bias, axis=1)
    named = (1 - model.guessed) * classes * model.transition[:, labels].T
    lucky = np.zeros(len(z)) if forecast is None else model.guessed * forecast
    total = named.sum(axis=1) + lucky + _TINY
    by_name = named / total[:, None]
    off = by_name - classes * by_name.sum(axis=1, keepdims=True)
    likelihood, guesses = np.log(total).sum(), (lucky / total).sum()
    return Sums(likelihood, (off * z).sum(), off.sum(axis=0), by_name.T @ onehot, guesses)


def deconvolve(noisy: Floats, transition: Floats, steps: int = _DECONVOLUTION_STEPS) -> Floats:
    """Return clean class probabilities f with f T close to the noisy ones.

    Multiplicative updates (Richardson 1972, Lucy 1974): f stays a distribution, and T may be
    singular. Few steps, since more would fit the noise of the estimate.

    Args:
        noisy: (N, K) probabilities of the given label.
        transition: (K, K), T[clean, given].
        steps: Updates.

    Returns:
        (N, K) float64, rows sum to 1.
    """
    clean = np.full_like(noisy, 1 / noisy.shape[1])
    for _ in range(steps):
        clean *= (noisy / np.maximum(clean @ transition, _LEAST)) @ transition.T
        clean /= np.maximum(clean.sum(axis=1, keepdims=True), _LEAST)
    return clean


def sparse_deconvolve(
    noisy: SparseClasses, transition: Floats, steps: int = _DECONVOLUTION_STEPS
) -> SparseClasses:
    """Do the same for rows that keep R of many classes, in N R^2 operations a step.

    A class that a row leaves out is a typical one: of each class's noise it gets what most others
    get, the median of the row of T. Were it the mean, a few pairs of classes that are often
    confused would explain away all that is left out, but not the given class, which is as unlikely
    and kept. With all classes kept the result is that of `deconvolve`.

    Args:
        noisy: (N, K) float64, rows sum to 1.
        transition: (K, K), T[clean, given].
        steps: Updates.
    """
    classes, left = noisy.classes.astype(np.int64), noisy.left
    usual, own = np.median(transition, axis=1), transition.diagonal()
    among = transition[classes[:, :, None], classes[:, None, :]] - usual[classes][:, :, None]
    spread, more = (
        (part.sum() - part[classes].sum(axis=1)) / max(left, 1) for part in (usual, own - usual)
    )
    clean = np.full_like(noisy.values, 1 / noisy.count)
    rest = np.full_like(noisy.rest, 1 / noisy.count)
    for _ in range(steps):
        everywhere = (clean * usual[classes]).sum(axis=1) + left * rest * spread
        named = everywhere[:, None] + np.einsum("ni,nij->nj", clean, among)
        ratio = noisy.values / np.maximum(named, _LEAST)
        others = noisy.rest / np.maximum(everywhere + rest * more, _LEAST)
        total = ratio.sum(axis=1) + left * others
        clean *= usual[classes] * total[:, None] + np.einsum("nj,nij->ni", ratio, among)
        rest *= spread * total + more * others
        scale = np.maximum(clean.sum(axis=1) + left * rest, _LEAST)
        clean /= scale[:, None]
        rest /= scale
    return replace(noisy, values=clean, rest=rest)
