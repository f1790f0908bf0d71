"""Class probabilities from features of images: a linear probe and nearest neighbours, cross-fitted.

The probe is a ridge regression on the classes, which wrong labels bend less than logistic
regression, and which all folds solve from sums of products. Neighbours vote by cosine, each image
without its own label. Both are judged by how likely they make given labels that they have not seen.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curricula.types import Doubles, Ints
from robustdiff.progress import Progress, silent
from robustdiff.rng import Stream, stream_seed

_FOLDS = 5
# Penalties of the probe; features have variance 1.
_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# More features than this are projected onto as many principal axes; neighbours see fewer.
_MOST_FEATURES, _NEIGHBOUR_FEATURES = 1280, 256
_NEIGHBOURS = (10, 30, 100)
# Weights of neighbours fall by e over this much cosine; images that may be neighbours.
_COSINE, _MOST_REFERENCES = 0.1, 50_000
# Share of votes that every class has beforehand.
_SMOOTHING = 0.01
# Entries of (N, K) arrays that scales are fitted to, and images compared at a time.
_MOST_FITTED, _LEAST_FITTED, _PIECE = 1 << 21, 4000, 1000


def probe(
    features: NDArray[np.floating],
    given: Ints,
    num_classes: int,
    *,
    seed: int,
    progress: Progress = silent,
) -> Doubles:
    """Predict the given label of every image by features of the others.

    Args:
        features: (N, D), N >= 5, finite; their scale does not matter.
        given: (N,) int64 labels in [0, K).
        num_classes: K.
        seed: Seed of the folds and of the images that may be neighbours.
        progress: Called with (images done, images in all).

    Returns:
        (N, K) float64, rows sum to 1: p(given label | image), by nothing trained on its label.

    Raises:
        ValueError: If there are too few images.
    """
    if len(given) < _FOLDS:
        raise ValueError(f"features must be of at least {_FOLDS} images, got {len(given)}")
    seed = stream_seed(seed, Stream.CROSSFIT)
    # The global generator, which the projection draws from, stays untouched.
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        x = _projected(_standardised(torch.from_numpy(features).float()), _MOST_FEATURES)
    y, total = torch.from_numpy(given), 2 * len(given)
    linear = _likeliest(_linear(x, y, num_classes, _folds(given, seed)), y)
    progress(len(given), total)

    def compared(done: int, _: int) -> None:
        progress(len(given) + done, total)

    votes = _likeliest([v.log() for v in _votes(x, y, num_classes, seed, compared)], y)
    factors, _ = _scales([linear, votes], y)
    found: Doubles = _logits(factors, [linear, votes], _prior(y, num_classes)).softmax(1).numpy()
    return found


def _standardised(x: Tensor) -> Tensor:
    mean, spread = x.mean(dim=0), x.std(dim=0)
    # Of a constant, rounding leaves a little.
    return (x - mean) / torch.where(spread > 1e-6 * mean.abs(), spread, torch.inf)


def _projected(x: Tensor, most: int) -> Tensor:
    """Return x on its first principal axes, where it has more columns than `most`."""
    if x.shape[1] <= most:
        return x
    left, sizes, _ = torch.svd_lowrank(x, q=min(most, len(x)))
    return left * sizes * (len(x) / sizes.square().sum() * sizes.numel()).sqrt()


def _folds(given: Ints, seed: int) -> Tensor:
    """Spread every class over the folds alike, (N,) int64."""
    order = np.random.default_rng(seed).permutation(len(given))
    fold = np.empty(len(given), dtype=np.int64)
    fold[order[np.argsort(given[order], kind="stable")]] = np.arange(len(given)) % _FOLDS
    return torch.from_numpy(fold)


def _linear(x: Tensor, y: Tensor, num_classes: int, fold: Tensor) -> list[Tensor]:
    """Return the scores (N, K) of ridge regressions trained on the other folds, one per penalty."""
    frequencies = torch.bincount(y, minlength=num_classes) / len(y)
    products, sums = [], []
    for part in range(_FOLDS):
        rows = fold == part
        inside, labels = x[rows], y[rows]
        products.append((inside.T @ inside).double())
        of_classes = x.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, inside)
        sums.append((of_classes.T - inside.sum(0)[:, None] * frequencies).double())
    found = [x.new_empty(len(x), num_classes) for _ in _PENALTIES]
    for part in range(_FOLDS):
        rows = fold == part
        sizes, axes = torch.linalg.eigh(sum(products) - products[part])
        target = axes.T @ (sum(sums) - sums[part])
        for penalty, scores in zip(_PENALTIES, found, strict=True):
            shrunk = target / (sizes.clamp(min=0) + penalty * len(x))[:, None]
            scores[rows] = x[rows] @ (axes @ shrunk).float()
    return found


def _votes(x: Tensor, y: Tensor, num_classes: int, seed: int, progress: Progress) -> list[Tensor]:
    """Return shares of the votes of the nearest others, (N, K), one per number of neighbours."""
    axes = torch.linalg.eigh(x.T @ x).eigenvectors[:, -_NEIGHBOUR_FEATURES:]
    x = F.normalize(x @ axes, dim=1)
    chosen = np.random.default_rng(seed).permutation(len(x))[:_MOST_REFERENCES]
    references = torch.from_numpy(np.sort(chosen))
    found = [x.new_empty(len(x), num_classes) for _ in _NEIGHBOURS]
    most = min(_NEIGHBOURS[-1], len(references) - 1)
    others, labels = x[references], y[references]
    for rows in torch.split(torch.arange(len(x)), _PIECE):
        near = x[rows] @ others.T
        near[rows[:, None] == references[None]] = -torch.inf
        cosines, who = near.topk(most, dim=1)
        weights = ((cosines - cosines[:, :1]) / _COSINE).exp()
        for count, shares in zip(_NEIGHBOURS, found, strict=True):
            some = weights[:, :count] / weights[:, :count].sum(1, keepdim=True)
            votes = x.new_zeros(len(rows), num_classes)
            votes.scatter_add_(1, labels[who[:, :count]], some)
            shares[rows] = (votes + _SMOOTHING / num_classes) / (1 + _SMOOTHING)
        progress(int(rows[-1]) + 1, len(x))
    return found


def _likeliest(candidates: list[Tensor], y: Tensor) -> Tensor:
    """Return the scores (N, K) that make given labels likeliest, once they are scaled."""
    return min(candidates, key=lambda scores: _scales([scores], y)[1])


def _scales(scores: list[Tensor], y: Tensor) -> tuple[Tensor, float]:
    """Fit what each of the scores counts, and the frequencies of the labels.

    Returns:
        (S + 1,) float64 factors, and the cross-entropy of the labels, which is convex in them.
    """
    n, k = scores[0].shape
    rows = torch.linspace(0, n - 1, min(n, max(_MOST_FITTED // k, _LEAST_FITTED))).long()
    some, labels = [s[rows].double() for s in scores], y[rows]
    start = [1 / max(float(s.std()), 1e-6) for s in some]
    factors = torch.tensor([*start, 0.0], dtype=torch.float64, requires_grad=True)
    prior = _prior(y, k)

    def loss() -> Tensor:
        return F.cross_entropy(_logits(factors, some, prior), labels)

    optimiser = torch.optim.LBFGS([factors], max_iter=50, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return factors.detach(), float(loss().detach())


def _logits(factors: Tensor, scores: list[Tensor], prior: Tensor) -> Tensor:
    total = factors[-1] * prior
    for factor, values in zip(factors, scores, strict=False):
        total = total + factor * values
    return total


def _prior(y: Tensor, num_classes: int) -> Tensor:
    counts = torch.bincount(y, minlength=num_classes).double()
    return ((counts + 1) / (len(y) + num_classes)).log()
