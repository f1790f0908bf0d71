"""What there is to know about every metric of generated images, said once."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One figure of an evaluation.

    Attributes:
        key: Its entry in metrics.json.
        title: Its name for people.
        real: Entry of the figure that as many held-out real images get.
        ideal: Which values are good, in words.
        logarithmic: Whether a plot's axis is logarithmic.
    """

    key: str
    title: str
    real: str
    ideal: str
    logarithmic: bool = False


METRICS = (
    Metric("fid", "FID", "fid_floor", "lower is better", logarithmic=True),
    Metric("class_fid", "class-wise FID", "class_fid_floor", "lower is better", logarithmic=True),
    Metric("kid", "KID", "kid_floor", "0 is ideal"),
    Metric("inception_score", "inception score", "inception_score_real", "higher is better"),
    Metric("nll", "NLL", "nll_real", "lower is better", logarithmic=True),
    Metric("label_accuracy", "label accuracy", "label_accuracy_real", "1 is ideal"),
    Metric("density", "density", "density_real", "1 is ideal"),
    Metric("coverage", "coverage", "coverage_real", "1 is ideal"),
)
"""Metrics of generated images, in the order in which tables show them."""

FURTHER = (
    Metric("cas", "CAS", "cas_real", "higher is better"),
    Metric("fid_infinity", "FID, bias removed", "fid_infinity_floor", "0 is ideal"),
    Metric(
        "class_fid_infinity",
        "class-wise FID, bias removed",
        "class_fid_infinity_floor",
        "0 is ideal",
    ),
    Metric("precision", "precision", "precision_real", "higher is better"),
    Metric("recall", "recall", "recall_real", "higher is better"),
    Metric("class_density", "class-wise density", "class_density_real", "1 is ideal"),
    Metric("class_coverage", "class-wise coverage", "class_coverage_real", "1 is ideal"),
    Metric("evaluator_fid", "FID by the evaluator", "evaluator_fid_floor", "lower is better"),
    Metric(
        "evaluator_class_fid",
        "class-wise FID by the evaluator",
        "evaluator_class_fid_floor",
        "lower is better",
    ),
    Metric("evaluator_density", "density by the evaluator", "evaluator_density_real", "1 is ideal"),
    Metric(
        "evaluator_coverage", "coverage by the evaluator", "evaluator_coverage_real", "1 is ideal"
    ),
    Metric(
        "features_class_fid",
        "class-wise FID by the features",
        "features_class_fid_floor",
        "lower is better",
    ),
    Metric("copies", "copies", "copies_real", "as few as of real images"),
    Metric("nearest", "distance to training", "nearest_real", "as of real images"),
)
"""Metrics that an evaluation may lack: by an earlier version, without `--cas`, by one evaluator."""

DETECTION = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "precision_at_rate": "precision at rate",
}
"""Entry of `detection` in metrics.json -> name of the figure: how a score finds wrong labels."""

FLAG = {
    "flag_precision": "precision of the flag",
    "flag_recall": "recall of the flag",
    "flag_f1": "F1 of the flag",
}
"""The same for the labels that are called wrong; an evaluation may lack it."""


def figure_in_words(metrics: Mapping[str, Any], metric: Metric) -> str | None:
    """Return a figure, its 95 % interval if there is one, and that of real images, in one line.

    Args:
        metrics: Content of metrics.json.
        metric: Which figure.

    Returns:
        None if the evaluation lacks it.
    """
    value, real = metrics.get(metric.key), metrics.get(metric.real)
    if value is None:
        return None
    ends = metrics.get(f"{metric.key}_interval")
    shown = f"{value:.3f}" if ends is None else f"{value:.3f} ({ends[0]:.3f} to {ends[1]:.3f})"
    return shown if real is None else f"{shown}, real images {real:.3f}"


# Probability below which so many copies are no chance.
_UNLIKELY = 1e-3


def guidance_in_words(sample: Mapping[str, Any]) -> str:
    """Say how images were guided, by the sampling settings of an evaluation; "" if as usual.

    Usual is guidance by the network itself, of the classes as they were trained.
    """
    kinds = {"classifier": " by a classifier", "auto": f" by the weaker run {sample.get('weak')}"}
    undone = ", the noise of the labels undone" if sample.get("undo_label_noise") else ""
    return kinds.get(sample.get("guidance", ""), "") + undone


def copies_in_words(metrics: Mapping[str, Any]) -> str | None:
    """Warn of copies, in one line.

    Args:
        metrics: Content of metrics.json.

    Returns:
        None where held-out images have as many copies by chance, once in a thousand or oftener.
    """
    by_chance = metrics.get("copies_chance")
    if by_chance is None or by_chance >= _UNLIKELY:
        return None
    return (
        f"copies: {metrics['copies']:.1%} of the generated images are nearer to a training image "
        f"than chance explains, of real ones {metrics['copies_real']:.1%}; copies.png shows them"
    )


WEAK = 0.9
"""Evaluators that are right on fewer held-out images do not rank generators.

They are right on typical images and wrong on others, so a generator that makes typical images alone
gains label accuracy and NLL by it: up to the share that the evaluator gets wrong.
"""


def evaluator_in_words(accuracy: float, corrected: float | None) -> str:
    """Return how far an evaluator is to be trusted, in one line.

    Args:
        accuracy: Share of held-out images that it is right on.
        corrected: Share of its training labels that were corrected; None if it learnt clean ones.
    """
    labels = "" if corrected is None else f"trained on labels as given, {corrected:.1%} corrected, "
    weak = f", under {WEAK:g}: too few to rank generators by label accuracy or NLL"
    return (
        f"evaluator: {labels}right on {accuracy:.3f} of held-out real images"
        f"{weak if accuracy < WEAK else ''}"
    )
