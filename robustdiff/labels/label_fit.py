"""How labels come about, fitted to evidence of the classes and to the labels themselves.

    p(label | image) = (1 - guessed) sum over classes of p(class | image) T[class, label]
                       + guessed h(label | image)
    p(class | image) = softmax(scale z + bias)

Scale, bias, T and guessed are those under which the labels are likeliest.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax

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

    def image_classes(self, z: Floats) -> Floats:
        """Return p(class | image), (N, K), of evidence z, (N, K)."""
        return np.asarray(softmax(np.exp(self.scale) * z + self.bias, axis=1))

    def posterior(self, z: Floats, labels: Ints, forecast: Floats) -> Floats:
        """Return p(class | image, label), (N, K), by Bayes' rule; forecast is h(label), (N,)."""
        named = (1 - self.guessed) * self.transition[:, labels].T
        joint = self.image_classes(z) * (named + self.guessed * forecast[:, None])
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
    z: Floats, labels: Ints, start: Floats, family: Family, forecast: Floats | None = None
) -> LabelModel:
    """Maximise the likelihood of labels.

    The gradient follows from the posterior of class and of guessing, as in an EM step.

    Args:
        z: (N, K) evidence.
        labels: (N,) int64.
        start: Log scale unless the family fixes it, bias (K,), the family's own parameters, and
            the logit of `guessed` if there is a forecast.
        family: What is fitted.
        forecast: (N,) h(label | image), or None where none is guessed.

    Returns:
        The model.
    """
    n, k = z.shape
    onehot = np.eye(k)[labels]
    prior = np.zeros((k, k))
    if family.noise == "any":
        prior = _PSEUDO_LABELS * ((1 - _PSEUDO_NOISE) * np.eye(k) + _PSEUDO_NOISE / k)

    def expected(p: Floats) -> tuple[LabelModel, Floats, Floats, Floats]:
        """Return the model, p(class | image), and the joint of label with class and guessing."""
        scale, bias, matrix, rest = family.parts(p, k)
        guessed = 0.0 if forecast is None else float(expit(rest[0]))
        model = LabelModel(scale, bias, matrix, guessed, 0.0)
        classes = model.image_classes(z)
        lucky = np.zeros(n) if forecast is None else guessed * forecast
        return model, classes, (1 - guessed) * classes * matrix[:, labels].T, lucky

    def loss(p: Floats) -> tuple[float, Floats]:
        model, classes, named, lucky = expected(p)
        total = named.sum(axis=1) + lucky + _TINY
        by_name = named / total[:, None]
        off = by_name - classes * by_name.sum(axis=1, keepdims=True)
        value = np.log(total).sum() - _BIAS_PRECISION / 2 * (model.bias**2).sum()
        value += (prior * np.log(model.transition + _TINY)).sum()
        slope = [
            off.sum(axis=0) - _BIAS_PRECISION * model.bias,
            family.slope(model.transition, by_name.T @ onehot + prior),
        ]
        if family.scale is None:
            slope.insert(0, np.array([np.exp(model.scale) * (off * z).sum()]))
        if forecast is not None:
            slope.append(np.array([(lucky / total).sum() - model.guessed * n]))
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
    model, _, named, lucky = expected(found)
    return model._replace(likelihood=float(np.log(named.sum(axis=1) + lucky + _TINY).sum()))


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
