"""Which noise explains the given labels, by evidence of every class: scale and matrix in one fit.

Evidence is a log-likelihood of the image under each class, of unknown scale and with errors. With

    p(class | image) = softmax(scale * evidence + bias)
    p(given | image) = sum over classes of p(class | image) T[class, given],

scale, bias and T are those under which the given labels are likeliest. Weak evidence and noise both
leave the labels uncertain; noise alone leaves labels that strong evidence speaks against.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax
from scipy.stats import chi2

from corruptions import confident_joint

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Entries (rows times classes) that are fitted, and rows a class at least.
_MOST_FITTED, _LEAST_ROWS = 1 << 19, 20
# Priors, weak beside thousands of labels: labels that a row of T counts for, precision of the bias.
_PSEUDO_LABELS, _BIAS_PRECISION = 20.0, 30.0
# How likely noise is found where there is none.
_CHANCE = 1e-6
# Mean probability of the likeliest class from which on images count as told apart.
_SHARP = 0.9
_TINY = 1e-300


class NoiseModel(NamedTuple):
    """How the given labels come about.

    Attributes:
        scale: What evidence is multiplied by.
        bias: (K,) float64, added to that.
        transition: (K, K) float64, T[clean, given]; the identity where nothing speaks for noise.
    """

    scale: float
    bias: NDArray[np.float64]
    transition: NDArray[np.float64]

    def image_classes(self, evidence: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return p(class | image), (N, K), of (N, K) evidence."""
        logits = evidence.astype(np.float64) * self.scale + self.bias
        return np.asarray(softmax(logits, axis=1))


class _Family(NamedTuple):
    """A family of transition matrices.

    Attributes:
        matrix: Parameters (P,) -> (K, K).
        slope: (parameters, counts (K, K)) -> gradient (P,) of sum(counts * log(matrix)).
        freedom: Number of free parameters.
        prior: (K, K) counts.
    """

    matrix: Callable[[Floats], Floats]
    slope: Callable[[Floats, Floats], Floats]
    freedom: int
    prior: Floats


class _Fit(NamedTuple):
    """A fitted model.

    Attributes:
        found: Parameters as searched.
        likelihood: Logarithm of that of the given labels.
        freedom: Number of free parameters of the matrix.
        transition: The matrix.
        sharpness: Mean probability of the likeliest class.
    """

    found: Floats
    likelihood: float
    freedom: int
    transition: Floats
    sharpness: float

    def explains_more(self, other: "_Fit") -> bool:
        """Return whether it is likelier than a model within it by more than chance (Wilks 1938)."""
        more = 2 * (self.likelihood - other.likelihood)
        return bool(more > chi2.isf(_CHANCE, self.freedom - other.freedom))


def fit_noise(evidence: NDArray[np.floating], given: Ints) -> NoiseModel:
    """Fit no noise, symmetric noise and any matrix, and return one of them.

    There is no noise unless a likelihood-ratio test says so, thus none where the evidence is too
    weak to tell; Schwarz's criterion (1978) then chooses the matrix. One exception: evidence that
    has learnt the noise itself, like that of a model trained long on these labels, needs no matrix
    to explain them. If any matrix explains them as well and tells the images apart, it counts.

    Args:
        evidence: (N, K), up to a factor and a constant per row.
        given: (N,) int64.

    Returns:
        The model.

    Raises:
        ValueError: If a class is never given.
    """
    k = evidence.shape[1]
    rows = _some_rows(given, k)
    x, y = evidence[rows].astype(np.float64), given[rows]
    unit = float(np.abs(x).mean()) or 1.0
    x /= unit
    shares = np.log(np.maximum(np.bincount(y, minlength=k), 1) / len(y))
    none = _fit(x, y, _no_noise(k), np.append(0.0, shares))
    # The second start finds much noise under weak evidence.
    symmetric = max(
        (
            _fit(x, y, _symmetric(k), np.r_[none.found[0] + more, none.found[1:], rate])
            for more, rate in ((0.2, -2.0), (1.0, 0.0))
        ),
        key=lambda fit: fit.likelihood,
    )
    joint = confident_joint(y, _classes(x, none.found, k)).transition
    start = 0.95 * joint + 0.05 / k
    searched = np.r_[none.found[0] + 0.5, none.found[1:], np.log(start).ravel()]
    free = _fit(x, y, _any_matrix(start), searched)
    noisy = [fit for fit in (symmetric, free) if fit.explains_more(none)]
    best = free if free.sharpness >= _SHARP else none
    if noisy:
        cost = np.log(len(y)) / 2
        best = max(noisy, key=lambda fit: fit.likelihood - fit.freedom * cost)
    return NoiseModel(float(np.exp(best.found[0])) / unit, best.found[1 : k + 1], best.transition)


def _some_rows(given: Ints, num_classes: int) -> Ints:
    """Return rows to fit, (M,): evenly spread over the labels of every class, and one of each."""
    most = max(_MOST_FITTED // num_classes, _LEAST_ROWS * num_classes)
    if len(given) <= most:
        return np.arange(len(given))
    by_class = np.argsort(given, kind="stable")
    spread = by_class[np.linspace(0, len(given) - 1, most).astype(np.int64)]
    return np.union1d(spread, np.unique(given, return_index=True)[1])


def _no_noise(k: int) -> _Family:
    identity, nothing = np.eye(k), np.zeros((k, k))
    return _Family(lambda _: identity, lambda p, counts: np.empty(0), 0, nothing)


def _symmetric(k: int) -> _Family:
    """One parameter, the logit of the rate."""

    def matrix(parameters: Floats) -> Floats:
        rate = expit(parameters[0])
        found = np.full((k, k), rate / max(k - 1, 1))
        np.fill_diagonal(found, 1 - rate)
        return found

    def slope(parameters: Floats, counts: Floats) -> Floats:
        changed = counts.sum() - np.trace(counts)
        return np.array([changed - expit(parameters[0]) * counts.sum()])

    return _Family(matrix, slope, 1, np.zeros((k, k)))


def _any_matrix(expected: Floats) -> _Family:
    """Logits of every row, with a weak prior about an expected matrix."""
    k = len(expected)

    def matrix(parameters: Floats) -> Floats:
        return np.asarray(softmax(parameters.reshape(k, k), axis=1))

    def slope(parameters: Floats, counts: Floats) -> Floats:
        return np.ravel(counts - matrix(parameters) * counts.sum(axis=1, keepdims=True))

    return _Family(matrix, slope, k * (k - 1), _PSEUDO_LABELS * expected)


def _classes(x: Floats, parameters: Floats, k: int) -> Floats:
    logits = np.exp(parameters[0]) * x + parameters[1 : k + 1]
    return np.asarray(softmax(logits, axis=1))


def _fit(x: Floats, y: Ints, family: _Family, start: Floats) -> _Fit:
    """Maximise the likelihood of labels y, (N,), by evidence x, (N, K).

    Parameters are the logarithm of the scale, the bias (K,), and those of the family. The gradient
    follows from the posterior of the class given image and label, as in an EM step.
    """
    n, k = x.shape
    start_bias = np.log(np.maximum(np.bincount(y, minlength=k), 1) / n)
    onehot = np.eye(k)[y]

    def parts(parameters: Floats) -> tuple[Floats, Floats, Floats]:
        classes, transition = _classes(x, parameters, k), family.matrix(parameters[k + 1 :])
        return classes, transition, classes * transition[:, y].T

    def loss(parameters: Floats) -> tuple[float, Floats]:
        classes, transition, joint = parts(parameters)
        total = joint.sum(axis=1, keepdims=True) + _TINY
        posterior = joint / total
        off, bias = posterior - classes, parameters[1 : k + 1] - start_bias
        value = np.log(total).sum() - _BIAS_PRECISION / 2 * (bias**2).sum()
        value += (family.prior * np.log(transition + _TINY)).sum()
        slope = np.concatenate(
            [
                [np.exp(parameters[0]) * (off * x).sum()],
                off.sum(axis=0) - _BIAS_PRECISION * bias,
                family.slope(parameters[k + 1 :], posterior.T @ onehot + family.prior),
            ]
        )
        return -value / n, -slope / n

    bounds = [(-7.0, 8.0)] + [(-12.0, 12.0)] * (len(start) - 1)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}
    ).x
    classes, transition, joint = parts(found)
    likelihood = float(np.log(joint.sum(axis=1) + _TINY).sum())
    sharpness = float(classes.max(axis=1).mean())
    return _Fit(found, likelihood, family.freedom, transition, sharpness)
