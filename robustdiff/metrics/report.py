"""All metrics of a set of generated images, each next to what real images get."""

from collections.abc import Callable

import torch
from torch import Tensor

from robustdiff.metrics.classification import label_accuracy, nll, nll_per_class
from robustdiff.metrics.distribution import (
    classwise_frechet,
    frechet_distance,
    inception_score,
    kid,
)
from robustdiff.metrics.evaluator import Evaluator, embed
from robustdiff.metrics.neighbours import density_coverage
from robustdiff.metrics.validation import check_images, check_labels


def evaluate(  # noqa: PLR0913 - three labelled sets, and what to measure them with
    *,
    real: Tensor,
    real_labels: Tensor,
    heldout: Tensor,
    heldout_labels: Tensor,
    generated: Tensor,
    generated_labels: Tensor,
    evaluator: Evaluator,
    seed: int,
    embed_images: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, object]:
    """Measure generated images against real ones.

    Every number has a partner that real images get: `*_floor` for distances, `*_real` for the rest.
    The partner comes from held-out images put in the place of the generated ones, as many per class
    as were generated. Distances are to all of `real`; density and coverage, which depend on the
    number of real samples, use an equally large and equally labelled part of it.

    Args:
        real: (N, C, H, W) uint8 images that the generator was trained on.
        real_labels: (N,) int64 clean labels in [0, K).
        heldout: (H, C, H, W) uint8 real images that it was not trained on.
        heldout_labels: (H,) int64 clean labels.
        generated: (M, C, H, W) uint8.
        generated_labels: (M,) int64, the classes that were asked for.
        evaluator: Classifier with K classes, trained on clean labels.
        seed: Seed of the choice of real images and of the subsets within metrics; the global
            generators stay untouched.
        embed_images: Another feature space, images to (N, D) features, for `fid`, `kid`, `density`
            and `coverage`. The class-wise distance stays with the evaluator: one class has too few
            samples for thousands of features.

    Returns:
        Numbers and lists of numbers that `json` can write: num_samples, fid, fid_floor, class_fid,
        class_fid_floor, class_fid_per_class, kid, kid_floor, inception_score, inception_score_real,
        nll, nll_real, nll_per_class, label_accuracy, label_accuracy_real, density, density_real,
        coverage, coverage_real.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range, a class has fewer than 2
            generated images, or more were generated of a class than there are real images.
    """
    num_classes = evaluator.num_classes
    for images, labels, what in (
        (real, real_labels, "real"),
        (heldout, heldout_labels, "held-out"),
        (generated, generated_labels, "generated"),
    ):
        check_images(images, f"{what} images")
        check_labels(labels, len(images), num_classes, f"{what} labels")
    counts = torch.bincount(generated_labels, minlength=num_classes).tolist()
    generator = torch.Generator().manual_seed(seed)
    floor = _matching(heldout_labels, counts, "held-out", generator)
    centres = _matching(real_labels, counts, "real", generator)
    heldout, heldout_labels = heldout[floor], heldout_labels[floor]

    real_features, _ = embed(evaluator, real)
    features, logits = embed(evaluator, generated)
    floor_features, floor_logits = embed(evaluator, heldout)
    class_fid, class_fid_per_class = classwise_frechet(
        real_features, real_labels, features, generated_labels, num_classes
    )
    class_fid_floor, _ = classwise_frechet(
        real_features, real_labels, floor_features, heldout_labels, num_classes
    )
    if embed_images is not None:
        real_features, features, floor_features = map(embed_images, (real, generated, heldout))
    density, coverage = density_coverage(real_features[centres], features)
    density_real, coverage_real = density_coverage(real_features[centres], floor_features)
    return {
        "num_samples": len(generated),
        "fid": frechet_distance(real_features, features),
        "fid_floor": frechet_distance(real_features, floor_features),
        "class_fid": class_fid,
        "class_fid_floor": class_fid_floor,
        "class_fid_per_class": class_fid_per_class,
        "kid": kid(real_features, features, seed),
        "kid_floor": kid(real_features, floor_features, seed),
        "inception_score": inception_score(logits, seed),
        "inception_score_real": inception_score(floor_logits, seed),
        "nll": nll(logits, generated_labels),
        "nll_real": nll(floor_logits, heldout_labels),
        "nll_per_class": nll_per_class(logits, generated_labels, num_classes),
        "label_accuracy": label_accuracy(logits, generated_labels),
        "label_accuracy_real": label_accuracy(floor_logits, heldout_labels),
        "density": density,
        "density_real": density_real,
        "coverage": coverage,
        "coverage_real": coverage_real,
    }


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
