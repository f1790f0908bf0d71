"""The main metrics of generated images, each next to what real images get."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustdiff.classifiers.image import embed
from robustdiff.classifiers.networks import ImageClassifier
from robustdiff.data.checks import check_images, check_labels
from robustdiff.metrics.catalogue import METRICS
from robustdiff.metrics.classification import label_accuracy, nll, nll_per_class
from robustdiff.metrics.distribution import (
    classwise_frechet,
    frechet_distance,
    inception_score,
    kid,
)
from robustdiff.metrics.neighbours import NEIGHBOURS, density_coverage

CLASS_AXES = 32
"""Principal axes for the class-wise distance: a class has too few images for more dimensions."""


class Seen(NamedTuple):
    """Labelled images as the metrics see them.

    Attributes:
        labels: (M,) int64; of generated images, the classes that were asked for.
        evaluator_features: (M, D) features of the evaluator.
        logits: (M, K) of the evaluator.
        features: (M, F) features for `fid`, `kid`, `density` and `coverage`.
        class_features: (M, A) features for `class_fid`.
    """

    labels: Tensor
    evaluator_features: Tensor
    logits: Tensor
    features: Tensor
    class_features: Tensor


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Real images that generated ones are compared with, measured once.

    Attributes:
        real: The real images, with clean labels.
        heldout: Held-out real images in the place of the generated ones.
        centres: Rows of `real` for density and coverage, as many of each class as are generated.
        counts: K numbers of generated images that it is for.
        evaluator: See `make_reference`.
        embed_images: See `make_reference`.
        class_axes: From `features` to those for `class_fid`; None takes the evaluator's.
        seed: See `make_reference`.
        partners: What `heldout` gets; None where that many images are too few for a figure.
    """

    real: Seen
    heldout: Seen
    centres: Tensor
    counts: list[int]
    evaluator: ImageClassifier
    embed_images: Callable[[Tensor], Tensor] | None
    class_axes: Callable[[Tensor], Tensor] | None
    seed: int
    partners: dict[str, float | None]


def make_reference(  # noqa: PLR0913 - two labelled sets, and what to measure them with
    *,
    real: Tensor,
    real_labels: Tensor,
    heldout: Tensor,
    heldout_labels: Tensor,
    counts: list[int],
    evaluator: ImageClassifier,
    seed: int,
    embed_images: Callable[[Tensor], Tensor] | None = None,
    class_axes: int | None = None,
) -> Reference:
    """Measure real images for comparison with generated ones.

    Args:
        real: (N, C, H, W) uint8 images that the generator was trained on.
        real_labels: (N,) int64 clean labels in [0, K).
        heldout: (H, C, H, W) uint8 real images that it was not trained on.
        heldout_labels: (H,) int64 clean labels.
        counts: K numbers of generated images, each at least 1.
        evaluator: Classifier with K classes, trained on clean labels.
        seed: Seed of the choice of real images and of the subsets within metrics; the global
            generators stay untouched.
        embed_images: Another feature space, images to (N, D) features, for `fid`, `kid`, `density`
            and `coverage`. The class-wise distance stays with the evaluator, because one class has
            too few samples for thousands of features, unless `class_axes` is given.
        class_axes: Principal axes of those features, of the real images, in which the class-wise
            distance is taken.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range, or more were generated of
            a class than there are real images.
    """
    num_classes = evaluator.num_classes
    for images, labels, what in (
        (real, real_labels, "real"),
        (heldout, heldout_labels, "held-out"),
    ):
        check_images(images, f"{what} images")
        check_labels(labels, len(images), num_classes, f"{what} labels")
    if min(counts) < 1:
        raise ValueError(f"images of every class are needed, got 0 of class {counts.index(0)}")
    generator = torch.Generator().manual_seed(seed)
    floor = _matching(heldout_labels, counts, "held-out", generator)
    centres = _matching(real_labels, counts, "real", generator)
    own, logits = embed(evaluator, real)
    features, class_features, project = own, own, None
    if embed_images is not None:
        features = embed_images(real)
        if class_axes is not None:
            project = principal_axes(features, class_axes)
            class_features = project(features)
    seen = Seen(real_labels, own, logits, features, class_features)
    reference = Reference(
        real=seen,
        heldout=seen,
        centres=centres,
        counts=counts,
        evaluator=evaluator,
        embed_images=embed_images,
        class_axes=project,
        seed=seed,
        partners={},
    )
    reference = replace(reference, heldout=see(reference, heldout[floor], heldout_labels[floor]))
    found = _figures(reference, reference.heldout)
    return replace(reference, partners={m.real: found[m.key] for m in METRICS})


def principal_axes(features: Tensor, count: int) -> Callable[[Tensor], Tensor]:
    """Return the map of features (M, D) onto the first principal axes of some, (M, count) float64.

    Over the given features each axis has mean 0 and variance 1, as the evaluator's features have.

    Args:
        features: (N, D) floating point.
        count: Axes, fewer where the features have fewer.
    """
    mean = features.double().mean(dim=0)
    spread = (features.double() - mean).T.cov()
    sizes, axes = torch.linalg.eigh(spread)
    kept = sizes[-count:] > sizes[-1] * 1e-9
    scaled = axes[:, -count:][:, kept] / sizes[-count:][kept].sqrt()
    return lambda others: (others.double() - mean) @ scaled


def out_of_reach(counts: Sequence[int]) -> list[str]:
    """Return the keys of the metrics that so many images of each class are too few for."""
    keys = ["class_fid"] if min(counts) < 2 else []
    return keys + (["density", "coverage"] if sum(counts) <= NEIGHBOURS else [])


def _density_coverage(real: Tensor, generated: Tensor) -> tuple[float | None, float | None]:
    if "density" in out_of_reach([len(generated)]):
        return None, None
    return density_coverage(real, generated, NEIGHBOURS)


def see(reference: Reference, images: Tensor, labels: Tensor) -> Seen:
    """Compute the features of labelled images that a reference is compared with.

    Args:
        reference: For as many images of each class as these are.
        images: (M, C, H, W) uint8.
        labels: (M,) int64.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range, or their numbers are not
            those of the reference.
    """
    evaluator, project = reference.evaluator, reference.class_axes
    check_images(images, "generated images")
    check_labels(labels, len(images), evaluator.num_classes, "generated labels")
    counts = torch.bincount(labels, minlength=evaluator.num_classes).tolist()
    if counts != reference.counts:
        raise ValueError(f"the reference is for {reference.counts} images a class, got {counts}")
    own, logits = embed(evaluator, images)
    features = own if reference.embed_images is None else reference.embed_images(images)
    return Seen(labels, own, logits, features, own if project is None else project(features))


def _figures(reference: Reference, seen: Seen) -> dict[str, Any]:
    """Return the figures of the catalogue's `METRICS` by their keys, and two class by class."""
    real, logits, labels, seed = reference.real, seen.logits, seen.labels, reference.seed
    class_fid, class_fid_per_class = None, None
    if "class_fid" not in out_of_reach(reference.counts):
        class_fid, class_fid_per_class = classwise_frechet(
            real.class_features, real.labels, seen.class_features, labels, logits.shape[1]
        )
    density, coverage = _density_coverage(real.features[reference.centres], seen.features)
    return {
        "fid": frechet_distance(real.features, seen.features),
        "class_fid": class_fid,
        "class_fid_per_class": class_fid_per_class,
        "kid": kid(real.features, seen.features, seed),
        "inception_score": inception_score(logits, seed),
        "nll": nll(logits, labels),
        "nll_per_class": nll_per_class(logits, labels, logits.shape[1]),
        "label_accuracy": label_accuracy(logits, labels),
        "density": density,
        "coverage": coverage,
    }


def measure(reference: Reference, seen: Seen) -> dict[str, Any]:
    """Measure generated images against a reference; see `evaluate`.

    Args:
        reference: For as many images of each class as are generated.
        seen: The generated images, see `see`.
    """
    found = _figures(reference, seen)
    result: dict[str, Any] = {"num_samples": len(seen.labels)}
    for metric in METRICS:
        result |= {metric.key: found[metric.key], metric.real: reference.partners[metric.real]}
        per_class = f"{metric.key}_per_class"
        if per_class in found:
            result[per_class] = found[per_class]
    return result


def evaluate(  # noqa: PLR0913 - three labelled sets, and what to measure them with
    *,
    real: Tensor,
    real_labels: Tensor,
    heldout: Tensor,
    heldout_labels: Tensor,
    generated: Tensor,
    generated_labels: Tensor,
    evaluator: ImageClassifier,
    seed: int,
    embed_images: Callable[[Tensor], Tensor] | None = None,
    class_axes: int | None = None,
) -> dict[str, Any]:
    """Measure generated images against real ones, once; see `make_reference` for several times.

    Every number has a partner that real images get: `*_floor` for distances, `*_real` for the rest.
    The partner comes from held-out images put in the place of the generated ones, as many per class
    as were generated. Distances are to all of `real`; density and coverage, which depend on the
    number of real samples, use an equally large and equally labelled part of it.

    Args:
        real: See `make_reference`, like the next three.
        real_labels: (N,) int64.
        heldout: (H, C, H, W) uint8.
        heldout_labels: (H,) int64.
        generated: (M, C, H, W) uint8.
        generated_labels: (M,) int64, the classes that were asked for.
        evaluator: See `make_reference`, like the next two.
        seed: Of choices.
        embed_images: Another feature space.
        class_axes: Principal axes of that space for the class-wise distance.

    Returns:
        Numbers and lists of numbers that `json` can write, None where there are too few images:
        num_samples, fid, fid_floor, class_fid,
        class_fid_floor, class_fid_per_class, kid, kid_floor, inception_score, inception_score_real,
        nll, nll_real, nll_per_class, label_accuracy, label_accuracy_real, density, density_real,
        coverage, coverage_real.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range, or more were generated of
            a class than there are real images.
    """
    check_labels(generated_labels, len(generated), evaluator.num_classes, "generated labels")
    reference = make_reference(
        real=real,
        real_labels=real_labels,
        heldout=heldout,
        heldout_labels=heldout_labels,
        counts=torch.bincount(generated_labels, minlength=evaluator.num_classes).tolist(),
        evaluator=evaluator,
        seed=seed,
        embed_images=embed_images,
        class_axes=class_axes,
    )
    return measure(reference, see(reference, generated, generated_labels))


def _matching(labels: Tensor, counts: list[int], what: str, generator: torch.Generator) -> Tensor:
    """Choose as many samples of each class as `counts` says: the first of a random order."""
    available = torch.bincount(labels, minlength=len(counts)).tolist()
    for label, (wanted, there) in enumerate(zip(counts, available, strict=True)):
        if wanted > there:
            raise ValueError(
                f"num_samples is too large: the floor needs {wanted} {what} images of class "
                f"{label}, there are {there}; with equal classes the largest num_samples allowed "
                f"is {len(counts) * min(available)}"
            )
    order = torch.randperm(len(labels), generator=generator)
    shuffled = labels[order]
    return torch.cat([order[shuffled == label][:wanted] for label, wanted in enumerate(counts)])
