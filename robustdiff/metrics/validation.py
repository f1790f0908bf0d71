"""Checks of the feature matrices that metrics compare, one clear line per mistake."""

import torch
from torch import Tensor


def check_rows(rows: Tensor, what: str, *, at_least: int) -> None:
    """Check a matrix with one row per sample, features or logits.

    Args:
        rows: Expected to be (N, D) floating point, finite, D >= 1.
        what: How the error names the matrix.
        at_least: Smallest N that the metric is defined for.

    Raises:
        ValueError: If the matrix is anything else.
    """
    if rows.ndim != 2 or rows.shape[1] == 0 or not rows.is_floating_point():
        raise ValueError(
            f"{what} must be floating point of shape (N, D), got {rows.dtype} "
            f"of shape {tuple(rows.shape)}"
        )
    if len(rows) < at_least:
        raise ValueError(f"{what} must have at least {at_least} rows, got {len(rows)}")
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows)).any(dim=1).sum())
        raise ValueError(f"{what} must be finite, got {bad} of {len(rows)} rows with NaN or inf")


def check_feature_sets(real: Tensor, generated: Tensor, *, at_least: int) -> None:
    """Check two feature matrices that are to be compared.

    Args:
        real: Expected to be (N, D) floating point, finite.
        generated: Expected to be (M, D) floating point, finite, same D.
        at_least: Smallest N and M that the metric is defined for.

    Raises:
        ValueError: If a matrix is anything else or the widths differ.
    """
    check_rows(real, "real features", at_least=at_least)
    check_rows(generated, "generated features", at_least=at_least)
    if real.shape[1] != generated.shape[1]:
        raise ValueError(
            "real and generated features must have the same width, "
            f"got {real.shape[1]} and {generated.shape[1]}"
        )
