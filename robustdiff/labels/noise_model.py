"""A model of label noise, fitted to the given labels by evidence of every class.

Evidence is a log-likelihood of the image under each class, of unknown scale and with errors. With

    p(class | image) = softmax(scale * evidence + bias)
    p(given | image) = sum over classes of p(class | image) T[class, given],

scale, bias and T maximise the likelihood of the given labels, all in one fit. Weak evidence and
noise both make labels uncertain; only noise makes labels that strong evidence contradicts.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, softmax
from scipy.stats import chi2

from corruptions import confident_joint
from curricula.sparse import ClassValues, SparseClasses, dense, held, some_rows
from curricula.types import Doubles, Floats, Ints
from robustdiff.labels.sparse_bayes import Sums, sparse_image_classes, sparse_sums

# Most entries (rows times classes) that are fitted, and fewest rows per class.
_MOST_FITTED, _LEAST_ROWS = 1 << 19, 20
# Priors, weak beside thousands of labels: pseudo-labels per row of T, precision of the bias.
_PSEUDO_LABELS, _BIAS_PRECISION = 20.0, 30.0
# Probability of finding noise where there is none.
_CHANCE = 1e-6
# Least mean probability of the likeliest class at which the free matrix is taken without a test.
_SHARP = 0.9
_TINY = 1e-300


class NoiseModel(NamedTuple):
    """The fitted model.

    Attributes:
        scale: Factor of the evidence.
        bias: (K,) float64, added after scaling.
        transition: (K, K) float64, T[clean, given]; the identity where no noise is found.
    """

    scale: float
    bias: Doubles
    transition: Doubles

    def image_classes(self, evidence: Floats) -> Doubles:
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

    matrix: Callable[[Doubles], Doubles]
    slope: Callable[[Doubles, Doubles], Doubles]
    freedom: int
    prior: Doubles


class _Fit(NamedTuple):
    """The fit of one family.

    Attributes:
        found: Parameters, see `_fit`.
        likelihood: Log-likelihood of the given labels.
        freedom: Number of free parameters of the matrix.
        transition: The matrix.
        sharpness: Mean probability of the likeliest class.
    """

    found: Doubles
    likelihood: float
    freedom: int
    transition: Doubles
    sharpness: float

    def explains_more(self, other: "_Fit") -> bool:
        """Return whether it is significantly likelier than one nested in it (Wilks 1938)."""
        more = 2 * (self.likelihood - other.likelihood)
        return bool(more > chi2.isf(_CHANCE, self.freedom - other.freedom))


def fit_noise(evidence: ClassValues, given: Ints) -> NoiseModel:
    """Fit models of no noise, of symmetric noise and with a free matrix, and return one of them.

    No noise is returned unless a likelihood-ratio test rejects it, thus also where the evidence is
    too weak for the test; Schwarz's criterion (1978) chooses between the other two. One exception:
    a model trained long on these labels has learnt the noise itself, so that its evidence explains
    them without a matrix. The free matrix is therefore also returned if its classes are sharp.
    It is not fitted to sparse evidence of so many classes that the criterion cannot choose it.

    Args:
        evidence: (N, K), up to a factor and a constant per row; sparse for many classes.
        given: (N,) int64.

    Returns:
        The model.

    Raises:
        ValueError: If a class is never given.
    """
    k = evidence.shape[1]
    if not (counts := np.bincount(given, minlength=k)).all():
        raise ValueError(f"class {int(counts.argmin())} is never given")
    rows = _some_rows(given, k, held(evidence).shape[1])
    x, unit = _in_units(some_rows(evidence, rows))
    y = given[rows]
    shares = np.log(np.maximum(np.bincount(y, minlength=k), 1) / len(y))
    none = _fit(x, y, _no_noise(k), np.append(0.0, shares))
    # The second start is for much noise and weak evidence.
    symmetric = max(
        (
            _fit(x, y, _symmetric(k), np.r_[none.found[0] + more, none.found[1:], rate])
            for more, rate in ((0.2, -2.0), (1.0, 0.0))
        ),
        key=lambda fit: fit.likelihood,
    )
    best = symmetric if symmetric.explains_more(none) else none
    if isinstance(x, SparseClasses) and _too_many(k, len(y)):
        return _model(best, unit, k)
    joint = confident_joint(y, dense(_classes(x, none.found, k))).transition
    start = 0.95 * joint + 0.05 / k
    searched = np.r_[none.found[0] + 0.5, none.found[1:], np.log(start).ravel()]
    free = _fit(x, y, _any_matrix(start), searched)
    noisy = [fit for fit in (symmetric, free) if fit.explains_more(none)]
    best = free if free.sharpness >= _SHARP else none
    if noisy:
        cost = np.log(len(y)) / 2
        best = max(noisy, key=lambda fit: fit.likelihood - fit.freedom * cost)
    return _model(best, unit, k)


def _too_many(k: int, labels: int) -> bool:
    """Return whether K classes are too many for Schwarz's criterion to choose a free matrix.

    Labels gain at most the logarithm of K each over guessing.
    """
    return bool(k * (k - 1) * np.log(labels) / 2 >= labels * np.log(k))


def _model(fit: _Fit, unit: float, k: int) -> NoiseModel:
    return NoiseModel(float(np.exp(fit.found[0])) / unit, fit.found[1 : k + 1], fit.transition)


def _in_units(x: ClassValues) -> tuple[ClassValues, float]:
    """Return evidence in units of its mean size, in float64, and that unit."""
    if not isinstance(x, SparseClasses):
        x = x.astype(np.float64)
        unit = float(np.abs(x).mean()) or 1.0
        x /= unit
        return x, unit
    values, rest = x.values.astype(np.float64), x.rest.astype(np.float64)
    unit = float((np.abs(values).sum(axis=1) + x.left * np.abs(rest)).mean() / x.count) or 1.0
    return replace(x, values=values / unit, rest=rest / unit), unit


def _some_rows(given: Ints, num_classes: int, columns: int) -> Ints:
    """Return rows to fit, (M,): evenly spread over the labels of every class, at least one each."""
    most = max(_MOST_FITTED // columns, _LEAST_ROWS * num_classes)
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

    def matrix(parameters: Doubles) -> Doubles:
        rate = expit(parameters[0])
        found = np.full((k, k), rate / max(k - 1, 1))
        np.fill_diagonal(found, 1 - rate)
        return found

    def slope(parameters: Doubles, counts: Doubles) -> Doubles:
        changed = counts.sum() - np.trace(counts)
        return np.array([changed - expit(parameters[0]) * counts.sum()])

    return _Family(matrix, slope, 1, np.zeros((k, k)))


def _any_matrix(expected: Doubles) -> _Family:
    """Logits of every row, with a weak prior about an expected matrix."""
    k = len(expected)

    def matrix(parameters: Doubles) -> Doubles:
        return np.asarray(softmax(parameters.reshape(k, k), axis=1))

    def slope(parameters: Doubles, counts: Doubles) -> Doubles:
        return np.ravel(counts - matrix(parameters) * counts.sum(axis=1, keepdims=True))

    return _Family(matrix, slope, k * (k - 1), _PSEUDO_LABELS * expected)


def _classes(x: ClassValues, parameters: Doubles, k: int) -> ClassValues:
    scale, bias = np.exp(parameters[0]), parameters[1 : k + 1]
    if isinstance(x, SparseClasses):
        return sparse_image_classes(x, scale, bias)
    return np.asarray(softmax(scale * x + bias, axis=1))


def _sums(
    x: ClassValues, y: Ints, onehot: Doubles | None, parameters: Doubles, transition: Doubles
) -> Sums:
    """Return what a fit sums over rows, at some parameters."""
    k = len(transition)
    if isinstance(x, SparseClasses) or onehot is None:
        assert isinstance(x, SparseClasses)
        return sparse_sums(x, y, float(np.exp(parameters[0])), parameters[1 : k + 1], transition)
    classes = dense(_classes(x, parameters, k))
    joint = classes * transition[:, y].T
    total = joint.sum(axis=1, keepdims=True) + _TINY
    posterior = joint / total
    off = posterior - classes
    return Sums(np.log(total).sum(), (off * x).sum(), off.sum(axis=0), posterior.T @ onehot)


def _fit(x: ClassValues, y: Ints, family: _Family, start: Doubles) -> _Fit:
    """Maximise the likelihood of labels y, (N,), by evidence x, (N, K).

    Parameters are the logarithm of the scale, the bias (K,), and those of the family. The gradient
    follows from the posterior of the class given image and label, as in an EM step.
    """
    n, k = x.shape
    start_bias = np.log(np.maximum(np.bincount(y, minlength=k), 1) / n)
    onehot = None if isinstance(x, SparseClasses) else np.eye(k)[y]

    def loss(parameters: Doubles) -> tuple[float, Doubles]:
        transition = family.matrix(parameters[k + 1 :])
        found, bias = (
            _sums(x, y, onehot, parameters, transition),
            parameters[1 : k + 1] - start_bias,
        )
        value = found.likelihood - _BIAS_PRECISION / 2 * (bias**2).sum()
        value += (family.prior * np.log(transition + _TINY)).sum()
        slope = np.concatenate(
            [
                [np.exp(parameters[0]) * found.scale],
                found.bias - _BIAS_PRECISION * bias,
                family.slope(parameters[k + 1 :], found.counts + family.prior),
            ]
        )
        return -value / n, -slope / n

    bounds = [(-7.0, 8.0)] + [(-12.0, 12.0)] * (len(start) - 1)
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 200}
    ).x
    transition, classes = family.matrix(found[k + 1 :]), _classes(x, found, k)
    likelihood = float(_sums(x, y, onehot, found, transition).likelihood)
    sharpness = float(held(classes).max(axis=1).mean())
    return _Fit(found, likelihood, family.freedom, transition, sharpness)
