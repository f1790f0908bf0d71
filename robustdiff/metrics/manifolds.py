"""Improved precision and recall, and density and coverage within the classes."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustdiff.metrics.neighbours import density_coverage
from robustdiff.metrics.validation import check_feature_sets

NEAREST = 3
# Tree distances are compared squared, so the "<=" of a closed ball needs room for one rounding.
_NOT_ABOVE = 1 + 1e-12


def precision_recall(real: Tensor, generated: Tensor, k: int = NEAREST) -> tuple[float, float]:
    """Compute improved precision and recall (Kynkaanniemi et al. 2019, eq. 1 and 2).

    A set's manifold is the union of closed balls around its samples that reach to the k-th nearest
    other one. Precision is the share of generated samples in the manifold of the real ones, recall
    the reverse. Both depend on the numbers of samples; an outlier has a large ball.

    Args:
        real: (N, D) floating point, N > k; computed in float64.
        generated: (M, D), M > k.
        k: Number of neighbours, at least 1.

    Returns:
        Precision and recall, in [0, 1].

    Raises:
        ValueError: If k < 1, or a matrix has a wrong shape or type, too few rows, NaN or infinity.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    check_feature_sets(real, generated, at_least=k + 1)
    one, other = (features.cpu().double().numpy() for features in (real, generated))
    return _share_inside(one, other, k), _share_inside(other, one, k)


def _share_inside(centres: NDArray[np.float64], points: NDArray[np.float64], k: int) -> float:
    """Return the share of points in the manifold of the centres."""
    from sklearn.neighbors import KDTree, NearestNeighbors

    neighbours = NearestNeighbors(n_neighbors=k, algorithm="kd_tree").fit(centres)
    radii = neighbours.kneighbors()[0][:, -1]
    found = KDTree(points).query_radius(centres, radii * _NOT_ABOVE)
    return len(np.unique(np.concatenate(found))) / len(points)


def classwise_density_coverage(
    real: Tensor, real_labels: Tensor, generated: Tensor, generated_labels: Tensor
) -> tuple[float, float]:
    """Compute the means over the classes of density and coverage within each class.

    Args:
        real: (N, D) floating point, more than 5 of every class.
        real_labels: (N,) int64.
        generated: (M, D).
        generated_labels: (M,) int64, the classes that were asked for; those of the real samples.

    Returns:
        Density and coverage.

    Raises:
        ValueError: As `density_coverage`.
    """
    found = [
        density_coverage(real[real_labels == label], generated[generated_labels == label])
        for label in range(int(real_labels.max()) + 1)
    ]
    density, coverage = np.mean(found, axis=0)
    return float(density), float(coverage)
