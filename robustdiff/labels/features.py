"""Class probabilities from features of images: a linear probe and nearest neighbours, cross-fitted.

The probe is a ridge regression on the classes, which wrong labels bend less than logistic
regression, and which all folds solve from sums of products. Neighbours vote by cosine, each image
without its own label. Both are judged by how likely they make given labels that they have not seen.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from curricula.types import Doubles, Ints
from robustdiff.labels.rows import spread_folds
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

Scorer = Callable[[Any, Tensor], Tensor]
"""A setting and (R,) rows -> (R, K) scores of the classes, out of sample."""


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
    fitted = _evenly(len(given), num_classes)
    linear = _likeliest(
        _linear(x, y, num_classes, torch.from_numpy(spread_folds(given, _FOLDS, seed))),
        _PENALTIES,
        y,
        fitted,
    )
    progress(len(given), total)

    def compared(done: int, _: int) -> None:
        progress(len(given) + done, total)

    votes = _likeliest(_votes(x, y, num_classes, seed, compared), _NEIGHBOURS, y, fitted)
    prior = _prior(y, num_classes)
    factors, _ = _scales([linear[fitted], votes[fitted]], y[fitted], prior)
    found: Doubles = _logits(factors, [linear, votes], prior).softmax(1).numpy()
    return found


def _evenly(count: int, num_classes: int) -> Tensor:
    """Return the rows that settings and scales are fitted to, all where there are few."""
    most = max(_MOST_FITTED // num_classes, _LEAST_FITTED)
    return torch.linspace(0, count - 1, min(count, most), dtype=torch.float64).long()


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


def _linear(x: Tensor, y: Tensor, num_classes: int, fold: Tensor) -> Scorer:
    """Solve ridge regressions; the penalty and rows give scores by those of the other folds."""
    frequencies = torch.bincount(y, minlength=num_classes) / len(y)
    products, sums = [], []
    for part in range(_FOLDS):
        inside, labels = x[fold == part], y[fold == part]
        products.append((inside.T @ inside).double())
        of_classes = x.new_zeros(num_classes, x.shape[1]).index_add_(0, labels, inside)
        sums.append((of_classes.T - inside.sum(0)[:, None] * frequencies).double())
    solved = []
    for part in range(_FOLDS):
        sizes, axes = torch.linalg.eigh(sum(products) - products[part])
        solved.append((sizes.clamp(min=0), axes, axes.T @ (sum(sums) - sums[part])))

    def scores(penalty: float, rows: Tensor) -> Tensor:
        found = x.new_empty(len(rows), num_classes)
        for part, (sizes, axes, target) in enumerate(solved):
            shrunk = target / (sizes + penalty * len(x))[:, None]
            inside = fold[rows] == part
            found[inside] = x[rows[inside]] @ (axes @ shrunk).float()
        return found

    return scores


def _votes(x: Tensor, y: Tensor, num_classes: int, seed: int, progress: Progress) -> Scorer:
    """Find nearest others; their number and rows give the logarithms of shares of their votes."""
    axes = torch.linalg.eigh(x.T @ x).eigenvectors[:, -_NEIGHBOUR_FEATURES:]
    x = F.normalize(x @ axes, dim=1)
    chosen = np.random.default_rng(seed).permutation(len(x))[:_MOST_REFERENCES]
    references = torch.from_numpy(np.sort(chosen))
    most = min(_NEIGHBOURS[-1], len(references) - 1)
    others, named = x[references], y[references]
    weights, labels = x.new_empty(len(x), most), y.new_empty(len(x), most)
    for rows in torch.split(torch.arange(len(x)), _PIECE):
        near = x[rows] @ others.T
        near[rows[:, None] == references[None]] = -torch.inf
        cosines, who = near.topk(most, dim=1)
        weights[rows], labels[rows] = ((cosines - cosines[:, :1]) / _COSINE).exp(), named[who]
        progress(int(rows[-1]) + 1, len(x))

    def scores(count: int, rows: Tensor) -> Tensor:
        some = weights[rows, :count]
        votes = x.new_full((len(rows), num_classes), _SMOOTHING / num_classes)
        votes.scatter_add_(1, labels[rows, :count], some / some.sum(1, keepdim=True))
        return votes.log_()

    return scores


def _likeliest(scores: Scorer, settings: Sequence[float], y: Tensor, fitted: Tensor) -> Tensor:
    """Return the scores (N, K) that make given labels likeliest, once they are scaled."""
    some = y[fitted]

    def loss(setting: float) -> float:
        tried = scores(setting, fitted)
        return _scales([tried], some, _prior(y, tried.shape[1]))[1]

    return scores(min(settings, key=loss), torch.arange(len(y)))


def _scales(scores: list[Tensor], y: Tensor, prior: Tensor) -> tuple[Tensor, float]:
    """Fit what each of the scores counts, and the frequencies of the labels.

    A score counts at least 0: votes of few images lack the label of the image itself, so that a
    negative factor would read it from them.

    Returns:
        (S + 1,) float64 factors, and the cross-entropy of the labels, which is convex in them.
    """
    some = [values.double() for values in scores]
    start = [-math.log(max(float(values.std()), 1e-6)) for values in some]
    logarithms = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    of_prior = torch.zeros(1, dtype=torch.float64, requires_grad=True)

    def factors() -> Tensor:
        return torch.cat([logarithms.exp(), of_prior])

    def loss() -> Tensor:
        return F.cross_entropy(_logits(factors(), some, prior), y)

    optimiser = torch.optim.LBFGS(
        [logarithms, of_prior], max_iter=50, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return factors().detach(), float(loss().detach())


def _logits(factors: Tensor, scores: list[Tensor], prior: Tensor) -> Tensor:
    total = factors[-1] * prior
    for factor, values in zip(factors, scores, strict=False):
        total = total + factor * values
    return total


def _prior(y: Tensor, num_classes: int) -> Tensor:
    counts = torch.bincount(y, minlength=num_classes).double()
    return ((counts + 1) / (len(y) + num_classes)).log()
