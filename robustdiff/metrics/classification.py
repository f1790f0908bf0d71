"""Whether the evaluator sees in an image the class that was asked for."""

import torch.nn.functional as F
from torch import Tensor

from robustdiff.data.checks import check_labels
from robustdiff.metrics.validation import check_rows


def nll(logits: Tensor, labels: Tensor) -> float:
    """Compute the mean of `-log p(c|x)` over samples x and the classes c that were asked for.

    Low is good only to a point: prototypes score below real images, so read it with the coverage.

    Args:
        logits: (N, K) floating point, N >= 1; computed in float64.
        labels: (N,) int64 in [0, K).

    Returns:
        Mean in nats, at least 0; log K for a uniform guess.

    Raises:
        ValueError: If an argument has a wrong shape, type or range, or the logits are not finite.
    """
    return float(losses(logits, labels).mean())


def nll_per_class(logits: Tensor, labels: Tensor, num_classes: int) -> list[float | None]:
    """Compute `nll` for each class that was asked for.

    Args:
        logits: (N, K) floating point, N >= 1; computed in float64.
        labels: (N,) int64 in [0, K).
        num_classes: K.

    Returns:
        K means; None for a class without samples, where NaN would not be valid JSON.

    Raises:
        ValueError: As `nll`, or if the logits do not have K columns.
    """
    each = losses(logits, labels)
    if logits.shape[1] != num_classes:
        raise ValueError(f"logits must have {num_classes} columns, got {logits.shape[1]}")
    return [
        float(each[labels == label].mean()) if bool((labels == label).any()) else None
        for label in range(num_classes)
    ]


def label_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Compute the share of samples whose largest logit is the class that was asked for.

    Args:
        logits: (N, K) floating point, N >= 1.
        labels: (N,) int64 in [0, K).

    Returns:
        Share in [0, 1].

    Raises:
        ValueError: If an argument has a wrong shape, type or range, or the logits are not finite.
    """
    _check(logits, labels)
    return float((logits.argmax(dim=1) == labels).double().mean())


def losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute `-log p(c|x)` of each sample, (N,) float64; see `nll`."""
    _check(logits, labels)
    return F.cross_entropy(logits.double(), labels, reduction="none")


def _check(logits: Tensor, labels: Tensor) -> None:
    check_rows(logits, "logits", at_least=1)
    check_labels(labels, len(logits), logits.shape[1], "labels")
