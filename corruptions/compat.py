"""The label noise of well-known public codes, quirks included, by name.

Each follows the law that the code draws from, not its random bits. Use these to compare with
published numbers; for new work use `NOISE_TYPES`, whose names say what they do.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from corruptions.class_maps import CLASS_MAPS
from corruptions.draws import draw_labels
from corruptions.transitions import from_class_map, pairflip, symmetric_inclusive
from corruptions.transitions import symmetric as symmetric_matrix
from corruptions.types import Doubles, Ints

_BLOCK = 5


class Outcome(NamedTuple):
    """What a code's noise does.

    Attributes:
        given: (N,) int64.
        matrix: (K, K) expected transition matrix.
        convention: The quirk, in words.
    """

    given: Ints
    matrix: Doubles
    convention: str


def _dividemix_symmetric(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
    chosen = rng.permutation(len(clean))[: int(rate * len(clean))]
    given = clean.copy()
    given[chosen] = rng.integers(0, k, len(chosen))
    words = "int(rate N) labels redrawn over all classes: rate (K - 1) / K of them are wrong"
    return Outcome(given, symmetric_inclusive(k, rate), words)


def _dividemix_asymmetric(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
    target = np.arange(k)
    for source, goal in _cifar10_map(k).items():
        target[source] = goal
    chosen = rng.permutation(len(clean))[: int(rate * len(clean))]
    given = clean.copy()
    given[chosen] = target[clean[chosen]]
    words = "int(rate N) labels of all classes go through the map; half of them map to themselves"
    return Outcome(given, from_class_map(k, rate, _cifar10_map(k)), words)


def _cascade(order: tuple[int, ...], count: Callable[[float], int]) -> "Compat":
    """Flip class after class, each time on labels that earlier classes may have changed."""

    def draw(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
        class_map = _cifar10_map(k)
        given, matrix = clean.copy(), np.eye(k)
        for source in order:
            members = np.flatnonzero(given == source)
            chosen = rng.permutation(members)[: count(rate * len(members))]
            given[chosen] = class_map[source]
            matrix = matrix @ from_class_map(k, rate, {source: class_map[source]})
        words = f"classes {', '.join(map(str, order))} in turn, on already flipped labels"
        return Outcome(given, matrix, words)

    return draw


def _cifar10_map(k: int) -> dict[int, int]:
    _need(k, 10, "CIFAR-10's")
    return dict(CLASS_MAPS["cifar10"])


def _need(k: int, wanted: int, whose: str) -> None:
    if k != wanted:
        raise ValueError(f"this noise is made for {whose} {wanted} classes, got {k}")


def _truncated_symmetric(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
    given = clean.copy()
    each = int(int(rate * len(clean)) / k)
    for label in range(k):
        members = np.flatnonzero(clean == label)
        if each > len(members):
            raise ValueError(
                f"this noise flips {each} labels of every class, but class {label} has "
                f"{len(members)}"
            )
        chosen = rng.permutation(members)[:each]
        given[chosen] = (label + rng.integers(1, k, len(chosen))) % k
    words = "int(int(rate N) / K) labels of every class, whatever the size of the class"
    return Outcome(given, symmetric_matrix(k, rate), words)


def _blocks_next(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
    _need(k, 100, "CIFAR-100's")
    matrix = np.kron(np.eye(k // _BLOCK), pairflip(_BLOCK, rate)).astype(np.float64)
    words = "to the next class within blocks of 5 alphabetical ids, which are not superclasses"
    return Outcome(draw_labels(clean, matrix, clean, "bernoulli", rng), matrix, words)


def _blocks_pair(clean: Ints, k: int, rate: float, rng: np.random.Generator) -> Outcome:
    _need(k, 100, "CIFAR-100's")
    class_map: dict[int, int] = {}
    for start in range(0, k, _BLOCK):
        first, second = (start + rng.permutation(_BLOCK)[:2]).tolist()
        class_map |= {first: second, second: first}
    matrix = from_class_map(k, rate, class_map)
    words = "between two random classes of every block of 5 alphabetical ids: 2 classes in 5"
    return Outcome(draw_labels(clean, matrix, clean, "bernoulli", rng), matrix, words)


Compat = Callable[[Ints, int, float, np.random.Generator], Outcome]

COMPAT: dict[str, Compat] = {
    "dividemix-symmetric": _dividemix_symmetric,
    "dividemix-asymmetric": _dividemix_asymmetric,
    "elr-asymmetric": _cascade((2, 3, 4, 5, 9), lambda share: int(np.ceil(share))),
    "apl-asymmetric": _cascade((9, 2, 3, 5, 4), int),
    "apl-symmetric": _truncated_symmetric,
    "apl-asymmetric-100": _blocks_next,
    "sce-asymmetric-100": _blocks_pair,
}
