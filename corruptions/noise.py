"""Make labels wrong: named noise types as flip probabilities, drawn by one function."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corruptions.class_maps import ClassMap, check_class_map, find_class_map
from corruptions.compat import COMPAT
from corruptions.draws import MODES, draw_labels
from corruptions.instance import SCALINGS, instance_probabilities
from corruptions.labels import NoisyLabels, check_labels
from corruptions.transitions import (
    check_matrix,
    from_class_map,
    pairflip,
    symmetric_inclusive,
)
from corruptions.transitions import symmetric as symmetric_matrix
from corruptions.types import Doubles, Ints

# Label noise has its own stream: changing the model never changes which labels are flipped.
_STREAM = 301
_SHOWN_ARROWS = 10


class Request(NamedTuple):
    """What a noise type is asked for.

    Attributes:
        clean: (N,) int64 in [0, K).
        num_classes: K.
        rate: The noise type's parameter, in [0, 1].
        rng: For noise types whose probabilities are random themselves.
        dataset: Name that picks a default class map, or None.
        class_map: See `corruptions.class_maps.find_class_map`.
        class_names: K names that a class map may use, or none.
        matrix: (K, K) matrix of the user's, or None.
        features: (N, ...) images as uint8 or floats in [0, 255], or None.
    """

    clean: Ints
    num_classes: int
    rate: float
    rng: np.random.Generator
    dataset: str | None
    class_map: ClassMap | str | None
    class_names: Sequence[str]
    matrix: object
    features: NDArray[np.generic] | None


class Flips(NamedTuple):
    """Label probabilities.

    Attributes:
        probabilities: (R, K), rows sum to 1.
        rows: (N,) int64, which row each sample draws from.
        convention: What the name means, in words.
    """

    probabilities: Doubles
    rows: Ints
    convention: str


def _symmetric(request: Request) -> Flips:
    matrix = symmetric_matrix(request.num_classes, request.rate)
    return Flips(matrix, request.clean, "uniform over the other classes, the true class excluded")


def _symmetric_inclusive(request: Request) -> Flips:
    matrix = symmetric_inclusive(request.num_classes, request.rate)
    return Flips(matrix, request.clean, "redrawn over all classes, the true class included")


def _pairflip(request: Request) -> Flips:
    matrix = pairflip(request.num_classes, request.rate)
    return Flips(matrix, request.clean, "to the next class, cyclically")


def _asymmetric(request: Request) -> Flips:
    found = find_class_map(request.class_map, request.dataset)
    class_map = check_class_map(found, request.num_classes, request.class_names)
    shown = [f"{clean}->{given}" for clean, given in class_map.items()][:_SHOWN_ARROWS]
    arrows = ", ".join(shown) + (", ..." if len(class_map) > _SHOWN_ARROWS else "")
    matrix = from_class_map(request.num_classes, request.rate, class_map)
    return Flips(matrix, request.clean, f"class map {arrows}")


def _matrix(request: Request) -> Flips:
    if request.matrix is None:
        raise ValueError("noise type 'matrix' needs a transition matrix, got none")
    matrix = check_matrix(request.matrix, request.num_classes)
    return Flips(matrix, request.clean, "transition matrix T[clean, given]")


def _instance_dependent(scaling: str) -> Callable[[Request], Flips]:
    words, scale = SCALINGS[scaling]

    def flips(request: Request) -> Flips:
        clean, features = request.clean, request.features
        found = None if features is None else np.asarray(features)
        if found is None or found.ndim < 2 or len(found) != len(clean):
            came = "none" if found is None else f"shape {found.shape}"
            raise ValueError(
                f"instance-dependent noise needs the features of {len(clean)} samples, an array "
                f"({len(clean)}, ...), got {came}"
            )
        if found.dtype.kind not in "fiu":
            raise ValueError(
                f"instance-dependent noise needs features that are numbers, got {found.dtype}"
            )
        pixels = found.astype(np.float64).reshape(len(found), -1)
        _check_pixels(pixels, are_floats=found.dtype.kind == "f")
        flat = scale(pixels)
        probabilities = instance_probabilities(
            clean, flat, request.num_classes, request.rate, request.rng
        )
        return Flips(probabilities, np.arange(len(clean)), f"Xia et al. 2020 on {words}")

    return flips


def _check_pixels(pixels: Doubles, *, are_floats: bool) -> None:
    if not np.isfinite(pixels).all():
        raise ValueError("instance-dependent noise needs finite features")
    low, high = (float(pixels.min()), float(pixels.max())) if pixels.size else (0.0, 0.0)
    if pixels.size and (low < 0 or high > 255 or (are_floats and high <= 1)):
        scale = "; multiply pixels in [0, 1] by 255" if 0 <= low <= high <= 1 else ""
        raise ValueError(
            f"instance-dependent noise needs features that are pixels in [0, 255], got values from "
            f"{low:g} to {high:g}{scale}"
        )


NOISE_TYPES: dict[str, Callable[[Request], Flips]] = {
    "symmetric": _symmetric,
    "symmetric-inclusive": _symmetric_inclusive,
    "asymmetric": _asymmetric,
    "pairflip": _pairflip,
    "matrix": _matrix,
    **{f"instance-dependent-{name}": _instance_dependent(name) for name in SCALINGS},
}


def corrupt(  # noqa: PLR0913 one call says all there is to say about a corruption
    clean: NDArray[np.integer],
    *,
    num_classes: int,
    noise_type: str = "symmetric",
    rate: float = 0.0,
    seed: int | np.random.Generator = 0,
    mode: str = "exact",
    dataset: str | None = None,
    class_map: ClassMap | str | None = None,
    class_names: Sequence[str] = (),
    matrix: object = None,
    features: NDArray[np.generic] | None = None,
) -> NoisyLabels:
    """Make labels wrong, and keep the record of how.

    Args:
        clean: (N,) integers in [0, K); not changed.
        num_classes: K, at least 2.
        noise_type: Key of `NOISE_TYPES` or `COMPAT`.
        rate: Probability that a label changes, in [0, 1]; what else it means under other names is
            their convention. Ignored by "matrix".
        seed: At least 0; equal seeds give equal labels on every machine. Or a generator, which is
            drawn from; the record then holds no seed.
        mode: Key of `MODES`: how many labels flip. The noise types of `COMPAT` have their own.
        dataset: Picks the default class map of "asymmetric".
        class_map: Mapping, name or .json file, for "asymmetric".
        class_names: K names that a class map may use in place of numbers.
        matrix: (K, K) row-stochastic, for "matrix".
        features: (N, ...) images in [0, 255], for the instance-dependent types.

    Returns:
        The labels and their record.

    Raises:
        ValueError: If an argument is unknown or out of range.

    Examples:
        >>> labels = corrupt(np.arange(100) % 10, num_classes=10, rate=0.3)
        >>> int(labels.flipped.sum()), round(labels.realised_rate, 2)
        (30, 0.3)
    """
    _check(noise_type, mode, rate, seed)
    _refuse_unused(noise_type, {"class_map": class_map, "matrix": matrix})
    labels, rate = check_labels(clean, num_classes), float(rate)
    number = None if isinstance(seed, np.random.Generator) else int(seed)
    rng = (
        seed
        if isinstance(seed, np.random.Generator)
        else np.random.default_rng(np.random.SeedSequence([int(seed), _STREAM]))
    )
    if noise_type in COMPAT:
        given, nominal, convention = COMPAT[noise_type](labels, num_classes, rate, rng)
        mode = "as published"
    else:
        request = Request(
            labels, num_classes, rate, rng, dataset, class_map, class_names, matrix, features
        )
        flips = NOISE_TYPES[noise_type](request)
        given = draw_labels(labels, flips.probabilities, flips.rows, mode, rng)
        nominal, convention = _class_means(flips, labels, num_classes), flips.convention
    return NoisyLabels(
        clean=labels,
        given=given,
        nominal=nominal,
        noise_type=noise_type,
        rate=rate,
        seed=number,
        mode=mode,
        convention=convention,
    )


def _check(noise_type: str, mode: str, rate: float, seed: int | np.random.Generator) -> None:
    known = [*NOISE_TYPES, *COMPAT]
    if noise_type not in known:
        raise ValueError(f"unknown noise type {noise_type!r}; choose from {', '.join(known)}")
    if mode not in MODES:
        raise ValueError(f"noise mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not 0 <= rate <= 1:
        raise ValueError(f"noise rate must be in [0, 1], got {rate}")
    if isinstance(seed, np.random.Generator):
        return
    if int(seed) != seed or seed < 0:
        raise ValueError(f"noise seed must be a whole number, at least 0, got {seed}")


def _refuse_unused(noise_type: str, given: Mapping[str, object]) -> None:
    """Refuse arguments that another noise type would take."""
    for name, takes in (("class_map", "asymmetric"), ("matrix", "matrix")):
        if given[name] is not None and noise_type != takes:
            raise ValueError(f"{name} goes with noise type {takes!r}, got {noise_type!r}")


def _class_means(flips: Flips, clean: Ints, num_classes: int) -> Doubles:
    if flips.rows is clean:
        return flips.probabilities
    counts = np.bincount(clean, minlength=num_classes)
    means = np.eye(num_classes)
    present = counts > 0
    sums = np.zeros((num_classes, num_classes))
    np.add.at(sums, clean, flips.probabilities)
    means[present] = sums[present] / counts[present, None]
    return means
