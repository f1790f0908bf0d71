"""Further figures: within classes, without the bias of few images, in a second space, intervals."""

from typing import Any

from torch import Tensor

from robustdiff.metrics.catalogue import FURTHER
from robustdiff.metrics.classification import losses
from robustdiff.metrics.distribution import classwise_frechet, frechet_distance
from robustdiff.metrics.leave_out import (
    classwise_without,
    density_coverage_without,
    frechet_without,
)
from robustdiff.metrics.manifolds import classwise_density_coverage, precision_recall
from robustdiff.metrics.neighbours import NEIGHBOURS, density_coverage
from robustdiff.metrics.report import (
    CLASS_AXES,
    Reference,
    Seen,
    out_of_reach,
    principal_axes,
)
from robustdiff.metrics.resampling import (
    BLOCKS,
    Interval,
    deal,
    jackknife_interval,
    means_without,
    share_interval,
    without_bias,
)

# A class must keep two images when a block leaves it.
_CLASS_LEAST = 3


def measure_further(
    reference: Reference, seen: Seen, measured: dict[str, Any]
) -> dict[str, float | Interval | None]:
    """Measure what `measure` leaves out.

    Args:
        reference: For as many images of each class as are generated.
        seen: The generated images.
        measured: What `measure` says of them.

    Returns:
        The figures of the catalogue's `FURTHER` but CAS, each with that of held-out real images;
        None where there are too few images, and where the evaluator's features are the only ones,
        the figures in two feature spaces. `<key>_interval` has the 95 % intervals of `fid`,
        `class_fid`, both without bias, `nll`, `label_accuracy`, `density` and `coverage`.
    """
    without = _frechet_without(reference, seen)
    found = _figures(reference, seen, without)
    heldout = reference.heldout
    real = _figures(reference, heldout, _frechet_without(reference, heldout))
    result: dict[str, float | Interval | None] = {}
    for metric in FURTHER:
        if metric.key in found:
            result |= {metric.key: found[metric.key], metric.real: real[metric.key]}
    ends = _intervals(reference, seen, {**measured, **found}, without)
    return result | {f"{key}_interval": pair for key, pair in ends.items()}


Without = dict[str, Tensor]
"""Figure -> of all images, then without each block, (1 + BLOCKS,); no entry if they are few."""


def _frechet_without(reference: Reference, seen: Seen) -> Without:
    real, counts = reference.real, reference.counts
    sets = [deal(labels, reference.seed) for labels in (real.labels, seen.labels)]
    found = {}
    if min(len(real.labels), sum(counts)) >= BLOCKS:
        found["fid"] = frechet_without(real.features, sets[0], seen.features, seen.labels, sets[1])
    if found and min(counts) >= _CLASS_LEAST:
        found["class_fid"] = classwise_without(
            real.class_features, real.labels, sets[0], seen.class_features, seen.labels, sets[1]
        )
    return found


def _figures(reference: Reference, seen: Seen, without: Without) -> dict[str, float | None]:
    """Return the figures by their keys."""
    real, centres = reference.real, reference.centres
    found: dict[str, float | None] = {
        f"{key}_infinity": without_bias(float(w[0]), w[1:]) if w is not None else None
        for key in ("fid", "class_fid")
        for w in (without.get(key),)
    }
    found |= dict.fromkeys(("precision", "recall", "class_density", "class_coverage"))
    near = real.features[centres]
    if len(centres) > NEIGHBOURS:
        found["precision"], found["recall"] = precision_recall(near, seen.features)
    if min(reference.counts) > NEIGHBOURS:
        found["class_density"], found["class_coverage"] = classwise_density_coverage(
            near, real.labels[centres], seen.features, seen.labels
        )
    return found | (_second_space(reference, seen) if reference.embed_images else {})


def _second_space(reference: Reference, seen: Seen) -> dict[str, float | None]:
    """Return what the evaluator's features say, and the class-wise distance by the others."""
    real, k = reference.real, len(reference.counts)
    project = reference.class_axes or principal_axes(real.features, CLASS_AXES)
    own, made = real.evaluator_features, seen.evaluator_features
    found: dict[str, float | None] = {"evaluator_fid": frechet_distance(own, made)}
    few = out_of_reach(reference.counts)
    if "class_fid" not in few:
        found["evaluator_class_fid"] = classwise_frechet(own, real.labels, made, seen.labels, k)[0]
        found["features_class_fid"] = classwise_frechet(
            project(real.features), real.labels, project(seen.features), seen.labels, k
        )[0]
    if "density" not in few:
        found["evaluator_density"], found["evaluator_coverage"] = density_coverage(
            own[reference.centres], made
        )
    return found


def _intervals(
    reference: Reference, seen: Seen, figures: dict[str, Any], without: Without
) -> dict[str, Interval | None]:
    """Return the 95 % intervals of some figures, by their keys."""
    ends: dict[str, Interval | None] = {
        "label_accuracy": share_interval(figures["label_accuracy"], len(seen.labels)),
        **dict.fromkeys(("fid", "class_fid", "fid_infinity", "class_fid_infinity")),
        **dict.fromkeys(("nll", "density", "coverage")),
    }
    for key, each in without.items():
        ends[key] = jackknife_interval(figures[key], each[1:], least=0)
        ends[f"{key}_infinity"] = jackknife_interval(figures[f"{key}_infinity"], each[1:])
    if len(seen.labels) < BLOCKS:
        return ends
    blocks, centres = deal(seen.labels, reference.seed), reference.centres
    each = means_without(losses(seen.logits, seen.labels), blocks)
    ends["nll"] = jackknife_interval(figures["nll"], each, least=0)
    density, coverage = density_coverage_without(
        reference.real.features[centres],
        deal(reference.real.labels[centres], reference.seed),
        seen.features,
        blocks,
        NEIGHBOURS,
    )
    ends["density"] = jackknife_interval(figures["density"], density[1:], least=0)
    ends["coverage"] = jackknife_interval(figures["coverage"], coverage[1:], least=0, most=1)
    return ends
