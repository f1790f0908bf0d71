"""How labels come about where people's mistakes depend on the image, not on its class alone.

With p(class | image) = softmax(scale z + bias) and the hardness u in (-1, 1), how unsure the
classifier is of the image among all images,

    p(label is wrong | class, image) = r = expit(rate[class] + slope u)
    p(label | class, image) = 1 - r                                    for label = class,
                              r R[class, label] s[label] / norm        for the others,

s = exp(resemblance z): a wrong label names a class that is often confused with the right one (R),
or that the image resembles. slope = resemblance = 0 is noise of classes alone.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import softmax
from scipy.stats import rankdata
from torch import Tensor

from curricula.sparse import ClassValues
from robustdiff.labels.sure import first_to_second

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Priors, weak beside thousands of labels: labels that the rate of a class counts for, the share of
# wrong ones among them, precisions of the bias, of slope and resemblance, of the differences of the
# classes' rates, and of the logarithms of R.
_PSEUDO_LABELS, _PSEUDO_NOISE = 20.0, 0.2
_BIAS, _TREND, _RATES, _CONFUSION = 5.0, 4.0, 1.0, 0.5
_FLOOR, _TINY = 1e-6, 1e-300


class MistakeModel(NamedTuple):
    """A fitted model.

    Attributes:
        scale: Logarithm of what evidence is multiplied by.
        bias: (K,), added to that.
        rate: (K,), log-odds of a wrong label for an image of medium hardness.
        slope: Growth of the log-odds with the hardness.
        resemblance: Exponent of s.
        confusion: (K, K), R[class, label], rows sum to 1, its diagonal is 0.
        likelihood: Logarithm of that of the labels, without priors.
    """

    scale: float
    bias: Floats
    rate: Floats
    slope: float
    resemblance: float
    confusion: Floats
    likelihood: float

    @staticmethod
    def before(k: int) -> "MistakeModel":
        """Return what is believed of K classes before labels are seen; a place to start from."""
        confusion = np.full((k, k), 1 / max(k - 1, 1))
        return MistakeModel(0.3, np.zeros(k), np.full(k, -1.0), 0.0, 0.1, confusion, 0.0)

    def parameters(self) -> Floats:
        """Return what `fit_mistakes` starts from."""
        logs = np.log(np.maximum(self.confusion, _FLOOR)).ravel()
        trend = [self.slope, self.resemblance]
        return np.concatenate([[self.scale], self.bias, self.rate, trend, logs])

    def image_classes(self, z: Floats) -> Floats:
        """Return p(class | image), (N, K), of evidence z, (N, K)."""
        return np.asarray(softmax(np.exp(self.scale) * z + self.bias, axis=1))

    def posterior(self, z: Floats, u: Floats, labels: Ints) -> Floats:
        """Return p(class | image, label), (N, K); u is the hardness, (N,)."""
        joint = _joint(torch.from_numpy(self.parameters()), z, u, labels)
        return np.asarray((joint / joint.sum(1, keepdim=True).clamp_min(_TINY)).numpy())


def hardness(probabilities: ClassValues) -> Floats:
    """Return how unsure a classifier is of each image among all, (N,) in (-1, 1).

    The ranks of the ratio of the two largest probabilities, which no temperature changes.
    """
    ranks = rankdata(-first_to_second(probabilities))
    return np.asarray(2 * ranks / (len(ranks) + 1) - 1)


def fit_mistakes(
    z: Floats, u: Floats, labels: Ints, start: Floats, *, scale: float | None = None
) -> MistakeModel:
    """Maximise the likelihood of labels under weak priors.

    Args:
        z: (N, K) evidence.
        u: (N,) hardness.
        labels: (N,) int64.
        start: What `MistakeModel.parameters` returns of a model.
        scale: Logarithm of the scale, where it is not fitted.

    Returns:
        The model.
    """
    n, k = z.shape
    start = start.copy()
    if scale is not None:
        start[0] = scale

    def loss(values: Floats) -> tuple[float, Floats]:
        parameters = torch.from_numpy(values.copy()).requires_grad_()
        joint = _joint(parameters, z, u, labels)
        likelihood = joint.sum(1).clamp_min(_TINY).log().sum()
        objective = -(likelihood + _prior(parameters, k)) / n
        objective.backward()
        assert parameters.grad is not None
        slope = parameters.grad.numpy()
        if scale is not None:
            slope[0] = 0
        return float(objective.item()), slope

    bounds = [(-6.0, 6.0)] + [(-8.0, 8.0)] * (2 * k) + [(-6.0, 6.0), (0.0, 2.0)]
    found = minimize(
        loss,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds + [(-14.0, 8.0)] * (k * k),
        options={"maxiter": 150, "ftol": 2e-8},
    ).x
    parameters = torch.from_numpy(found)
    joint = _joint(parameters, z, u, labels)
    _, bias, rate, trend, confusion = _split(parameters, k)
    return MistakeModel(
        float(found[0]),
        bias.numpy(),
        rate.numpy(),
        float(trend[0]),
        float(trend[1]),
        confusion.numpy(),
        float(joint.sum(1).clamp_min(_TINY).log().sum()),
    )


def _split(parameters: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return log scale, bias, rates, (slope, resemblance), and R."""
    scale, bias, rate, trend, logs = torch.split(parameters, [1, k, k, 2, k * k])
    own = torch.eye(k, dtype=torch.bool)
    confusion = logs.reshape(k, k).masked_fill(own, -torch.inf).softmax(1)
    return scale, bias, rate, trend, confusion


def _joint(parameters: Tensor, z: Floats, u: Floats, labels: Ints) -> Tensor:
    """Return p(class, label | image), (N, K)."""
    evidence = torch.from_numpy(z)
    scale, bias, rate, (slope, resemblance), confusion = _split(parameters, z.shape[1])
    classes = (scale.exp() * evidence + bias).softmax(1)
    rows, named = torch.arange(len(z)), torch.from_numpy(labels)
    wrong = torch.sigmoid(rate + slope * torch.from_numpy(u)[:, None])
    likeness = (resemblance * (evidence - evidence.amax(1, keepdim=True))).exp()
    norm = likeness @ confusion.T
    given = wrong * confusion[:, named].T * likeness[rows, named][:, None] / norm.clamp_min(_TINY)
    given = given.index_put((rows, named), 1 - wrong[rows, named])
    joint: Tensor = classes * given
    return joint


def _prior(parameters: Tensor, k: int) -> Tensor:
    _, bias, rate, trend, _ = _split(parameters, k)
    right, wrong = torch.sigmoid(-rate).log(), torch.sigmoid(rate).log()
    labels = _PSEUDO_LABELS * ((1 - _PSEUDO_NOISE) * right + _PSEUDO_NOISE * wrong)
    logs = parameters[2 * k + 3 :]
    spread = _BIAS * bias.square().sum() + _TREND * trend.square().sum()
    spread = (
        spread + _RATES * (rate - rate.mean()).square().sum() + _CONFUSION * logs.square().sum()
    )
    return labels.sum() - spread / 2
