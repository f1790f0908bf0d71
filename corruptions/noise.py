"""Make labels wrong: flip probabilities per sample, and one function that draws from them."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corruptions.labels import NoisyLabels
from corruptions.transitions import CLASS_MAPS, Floats, check_matrix, from_class_map, pairflip
from corruptions.transitions import symmetric as symmetric_matrix

Ints = NDArray[np.int64]

# Label noise has its own stream: changing the model never changes which labels are flipped.
_STREAM = 301


class Request(NamedTuple):
    """What a noise type is asked for.

    Attributes:
        rate: Probability that a label changes.
        num_classes: K.
        dataset: Name that picks a class map, or None.
        matrix: (K, K) matrix of the user's, or None.
    """

    rate: float
    num_classes: int
    dataset: str | None
    matrix: object


def _symmetric(request: Request) -> tuple[Floats, str]:
    matrix = symmetric_matrix(request.num_classes, request.rate)
    return matrix, "uniform over the other classes, the true class excluded"


def _pairflip(request: Request) -> tuple[Floats, str]:
    return pairflip(request.num_classes, request.rate), "to the next class, cyclically"


def _asymmetric(request: Request) -> tuple[Floats, str]:
    if request.dataset not in CLASS_MAPS:
        raise ValueError(
            f"noise type 'asymmetric' has a class map for {', '.join(CLASS_MAPS)}, "
            f"got dataset {request.dataset!r}"
        )
    class_map = CLASS_MAPS[request.dataset]
    arrows = ", ".join(f"{clean}->{given}" for clean, given in class_map.items())
    return from_class_map(request.num_classes, request.rate, class_map), f"class map {arrows}"


def _matrix(request: Request) -> tuple[Floats, str]:
    if request.matrix is None:
        raise ValueError("noise type 'matrix' needs a transition matrix, got none")
    return check_matrix(request.matrix, request.num_classes), "transition matrix T[clean, given]"


NOISE_TYPES: dict[str, Callable[[Request], tuple[Floats, str]]] = {
    "symmetric": _symmetric,
    "asymmetric": _asymmetric,
    "pairflip": _pairflip,
    "matrix": _matrix,
}
MODES = ("exact", "bernoulli")


def draw_labels(clean: Ints, transition: Floats, mode: str, rng: np.random.Generator) -> Ints:
    """Draw given labels from a transition matrix.

    Args:
        clean: (N,) int64 in [0, K).
        transition: (K, K) row-stochastic, T[clean, given].
        mode: "bernoulli" draws every label by itself. "exact" gives every class the number of
            flips nearest to its share, with the total equal to the rounded expectation (largest
            remainders), then picks which labels flip and where to at random.
        rng: Source of randomness.

    Returns:
        (N,) int64; `clean` is not changed.
    """
    away = transition.copy()
    np.fill_diagonal(away, 0)
    change = away.sum(axis=1)
    if mode == "bernoulli":
        flips = np.flatnonzero(rng.random(len(clean)) < change[clean])
    else:
        flips = _exact_flips(clean, change, rng)
    # Where to: inverse of the cumulative distribution over the other classes.
    cumulative = np.cumsum(away, axis=1)
    goal = rng.random(len(flips)) * change[clean[flips]]
    target = (goal[:, None] >= cumulative[clean[flips]]).sum(axis=1)
    # Rounding must not carry a draw past the last class that it can go to.
    last = np.where(away > 0, np.arange(len(away)), 0).max(axis=1)
    given: Ints = clean.copy()
    given[flips] = np.minimum(target, last[clean[flips]])
    return given


def _exact_flips(clean: Ints, change: Floats, rng: np.random.Generator) -> Ints:
    expected = change * np.bincount(clean, minlength=len(change))
    counts = np.floor(expected + 1e-9).astype(np.int64)
    missing = round(float(expected.sum())) - int(counts.sum())
    if missing > 0:
        # Ties between equal remainders go by chance, not to the lowest class.
        order = rng.permutation(len(change))
        order = order[np.argsort(-(expected - counts)[order], kind="stable")]
        counts[order[:missing]] += 1
    shuffled = rng.permutation(len(clean))
    by_class = shuffled[np.argsort(clean[shuffled], kind="stable")]
    starts = np.cumsum(np.bincount(clean, minlength=len(change)))[:-1]
    parts = np.split(by_class, starts)
    return np.concatenate([part[:count] for part, count in zip(parts, counts, strict=True)])


def corrupt(  # noqa: PLR0913 one call says all there is to say about a corruption
    clean: NDArray[np.integer],
    *,
    num_classes: int,
    noise_type: str = "symmetric",
    rate: float = 0.0,
    seed: int = 0,
    mode: str = "exact",
    dataset: str | None = None,
    matrix: object = None,
) -> NoisyLabels:
    """Make labels wrong, and keep the record of how.

    Args:
        clean: (N,) integers in [0, K); not changed.
        num_classes: K, at least 2.
        noise_type: Key of `NOISE_TYPES`.
        rate: Probability that a label changes, in [0, 1]; ignored by "matrix".
        seed: At least 0; equal seeds give equal labels on every machine.
        mode: "exact" or "bernoulli", see `draw_labels`.
        dataset: Picks the class map of "asymmetric".
        matrix: (K, K) row-stochastic, for "matrix".

    Returns:
        The labels and their record.

    Raises:
        ValueError: If an argument is unknown or out of range.
    """
    if noise_type not in NOISE_TYPES:
        raise ValueError(
            f"unknown noise type {noise_type!r}; choose from {', '.join(sorted(NOISE_TYPES))}"
        )
    if mode not in MODES:
        raise ValueError(f"noise mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not 0 <= rate <= 1:
        raise ValueError(f"noise rate must be in [0, 1], got {rate}")
    labels = check_labels(clean, num_classes)
    request = Request(rate, num_classes, dataset, matrix)
    transition, convention = NOISE_TYPES[noise_type](request)
    rng = np.random.default_rng(np.random.SeedSequence([seed, _STREAM]))
    given = draw_labels(labels, transition, mode, rng)
    return NoisyLabels(
        clean=labels,
        given=given,
        nominal=transition,
        noise_type=noise_type,
        rate=float(rate),
        seed=seed,
        mode=mode,
        convention=convention,
    )


def check_labels(labels: NDArray[np.integer], num_classes: int) -> Ints:
    """Return labels as a new int64 array.

    Raises:
        ValueError: If they are not (N,) integers in [0, K), or K < 2.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    array = np.asarray(labels)
    if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"labels must be a one-dimensional array of integers, "
            f"got shape {array.shape} of {array.dtype}"
        )
    if len(array) and (array.min() < 0 or array.max() >= num_classes):
        worst = array.min() if array.min() < 0 else array.max()
        raise ValueError(f"labels must be in [0, {num_classes}), got {worst}")
    return array.astype(np.int64)
