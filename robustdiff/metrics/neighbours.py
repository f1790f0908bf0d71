"""Density and coverage: fidelity and diversity from nearest neighbours."""

import numpy as np
from torch import Tensor

from robustdiff.metrics.validation import check_feature_sets

NEIGHBOURS = 5
# Tree distances are compared squared, so the strict "<" needs room for one rounding.
_STRICTLY_BELOW = 1 - 1e-12


def density_coverage(real: Tensor, generated: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Compute density and coverage (Naeem et al., 2020).

    Around each real sample lies an open ball that reaches to its k-th nearest other real sample.
    Density is the number of (ball, generated sample inside it) pairs over k M; coverage is the
    share of balls that hold a generated sample. Equal distributions give an expected density of 1
    and an expected coverage of `1 - prod_{i<k} (N-1-i)/(N+M-1-i)`, so fix N = M to compare.

    Args:
        real: (N, D) floating point, N > k; computed in float64.
        generated: (M, D), M >= 1.
        k: Number of neighbours, at least 1.

    Returns:
        Density, at least 0 (above 1 where generated samples crowd), and coverage in [0, 1].

    Raises:
        ValueError: If k < 1, or a matrix has a wrong shape or type, too few rows, NaN or infinity.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_feature_sets(real, generated, at_least=1)
    if len(real) <= k:
        raise ValueError(f"{k} neighbours need more than {k} real samples, got {len(real)}")
    # Trees compute differences, not the expanded square, so copies are at distance exactly 0, and
    # they never hold the N x M matrix.
    centres = real.cpu().double().numpy()
    from sklearn.neighbors import KDTree, NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(centres)
    radii = neighbours.kneighbors()[0][:, -1]
    inside = KDTree(generated.cpu().double().numpy()).query_radius(
        centres, radii * _STRICTLY_BELOW, count_only=True
    )
    # An open ball of radius 0, around a real sample with k copies, holds nothing.
    inside = np.where(radii > 0, inside, 0)
    return float(inside.sum() / (k * len(generated))), float((inside > 0).mean())
