"""Distances between sets of features, and the Inception score, by torchmetrics in float64.

Features are computed once and handed to the metrics through an identity extractor. torchmetrics is
imported inside the functions: it takes seconds, and a damaged torchvision breaks its import.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from robustdiff.data.checks import check_labels
from robustdiff.metrics.validation import check_feature_sets, check_rows

# The usual KID protocol: the mean over 100 subsets of 1,000 samples.
_KID_SUBSETS = 100
_KID_SUBSET_SIZE = 1000
_MAX_SPLITS = 10
_SPLIT_SAMPLES_PER_CLASS = 100
# One process measures; torchmetrics would ask all of a process group.
_LOCAL: dict[str, Any] = {"sync_on_compute": False}
# A probability of exactly 0 makes 0 * log 0; exp(-300) is still a normal float64.
_MAX_LOGIT_GAP = 300.0


class _Identity(nn.Module):
    """An extractor for features that are already there; the attribute spares a dummy image."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """Compute the Frechet distance of two Gaussians with the sample means and covariances.

    `|mu - mu_w|^2 + tr(S + S_w - 2 (S S_w)^(1/2))` (Heusel et al., 2017) with unbiased covariances.
    It is biased upwards as the samples get fewer, so compare it at one sample count and next to the
    distance between two real sets of that count.

    Args:
        real: (N, D) floating point, N >= 2; computed in float64.
        generated: (M, D), M >= 2. Fewer samples than features are allowed.

    Returns:
        Distance, at least 0: rounding can leave singular covariances about -1e-5, shown as 0.

    Raises:
        ValueError: If a matrix has a wrong shape or type, too few rows, NaN or infinity.
    """
    check_feature_sets(real, generated, at_least=2)
    with _torchmetrics():
        from torchmetrics.image.fid import FrechetInceptionDistance
    real, generated = real.cpu().double(), generated.cpu().double()
    # The sums of squares behind the covariance lose digits when the mean is far from 0.
    origin = real.mean(dim=0)
    metric = FrechetInceptionDistance(feature=_Identity(real.shape[1]), **_LOCAL)
    metric.update(real - origin, real=True)
    metric.update(generated - origin, real=False)
    return max(float(metric.compute()), 0.0)


def classwise_frechet(
    real: Tensor,
    real_labels: Tensor,
    generated: Tensor,
    generated_labels: Tensor,
    num_classes: int,
) -> tuple[float, list[float]]:
    """Compute the Frechet distance class by class, and its mean over the classes.

    Unlike the distance of the whole sets it sees images that do not fit their label.

    Args:
        real: (N, D) floating point.
        real_labels: (N,) int64 in [0, num_classes).
        generated: (M, D).
        generated_labels: (M,) int64, the classes that were asked for.
        num_classes: K.

    Returns:
        Mean over the classes, and the K distances.

    Raises:
        ValueError: As `frechet_distance`, or if a class has fewer than 2 samples in either set.
    """
    check_feature_sets(real, generated, at_least=2)
    check_labels(real_labels, len(real), num_classes, "real labels")
    check_labels(generated_labels, len(generated), num_classes, "generated labels")
    for labels, what in ((real_labels, "real"), (generated_labels, "generated")):
        counts = torch.bincount(labels, minlength=num_classes)
        if int(counts.min()) < 2:
            raise ValueError(
                f"class-wise Frechet distance needs 2 {what} samples of every class, "
                f"got {int(counts.min())} of class {int(counts.argmin())}"
            )
    per_class = [
        frechet_distance(real[real_labels == label], generated[generated_labels == label])
        for label in range(num_classes)
    ]
    return sum(per_class) / num_classes, per_class


def kid(real: Tensor, generated: Tensor, seed: int) -> float:
    """Compute the kernel distance: the unbiased squared MMD with kernel `(x.y / D + 1)^3`.

    The mean over 100 subsets of 1,000 samples, or of as many as the smaller set has (Binkowski et
    al., 2018). Unbiased, so it falls below 0 about half the time when the distributions are equal.

    Args:
        real: (N, D) floating point, N >= 2; computed in float64.
        generated: (M, D), M >= 2.
        seed: Seed of the subsets; the global generator stays untouched.

    Returns:
        Mean over the subsets.

    Raises:
        ValueError: If a matrix has a wrong shape or type, too few rows, NaN or infinity.
    """
    check_feature_sets(real, generated, at_least=2)
    with _torchmetrics():
        from torchmetrics.image.kid import KernelInceptionDistance

        metric = KernelInceptionDistance(
            feature=_Identity(real.shape[1]),
            subsets=_KID_SUBSETS,
            subset_size=min(_KID_SUBSET_SIZE, len(real), len(generated)),
            **_LOCAL,
        )
    metric.update(real.cpu().double(), real=True)
    metric.update(generated.cpu().double(), real=False)
    with _seeded(seed):
        mean, _ = metric.compute()
    return float(mean)


def inception_score(logits: Tensor, seed: int) -> float:
    """Compute `exp(E KL(p(y|x) || p(y)))`, between 1 and K (Salimans et al., 2016).

    The mean over random splits. A split's score is biased down when it holds few samples per class,
    so there are only as many splits, up to the usual 10, as leave 100 samples per class in each:
    one split for fewer than 200 K samples.

    Args:
        logits: (N, K) floating point, N >= 1; computed in float64. Gaps to the largest logit beyond
            300 count as 300, which keeps the logarithm of a never-predicted class finite.
        seed: Seed of the splits; the global generator stays untouched.

    Returns:
        Mean over the splits.

    Raises:
        ValueError: If the logits have a wrong shape or type, NaN or infinity.
    """
    check_rows(logits, "logits", at_least=1)
    with _torchmetrics():
        from torchmetrics.image.inception import InceptionScore

        count, num_classes = logits.shape
        splits = min(max(count // (_SPLIT_SAMPLES_PER_CLASS * num_classes), 1), _MAX_SPLITS)
        metric = InceptionScore(feature=_Identity(num_classes), splits=splits, **_LOCAL)
    logits = logits.cpu().double()
    metric.update((logits - logits.amax(dim=1, keepdim=True)).clamp(min=-_MAX_LOGIT_GAP))
    with _seeded(seed), warnings.catch_warnings():
        # The spread over the splits is not used; of one split it does not exist.
        warnings.filterwarnings("ignore", message=r"std\(\): degrees of freedom")
        mean, _ = metric.compute()
    return float(mean)


@contextmanager
def _torchmetrics() -> Iterator[None]:
    """Import and build torchmetrics objects: one clear line on failure, no talk about memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* will save all extracted features in buffer")
        try:
            yield
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            # A torchvision that does not fit torch raises RuntimeError from within the import.
            reason = str(error).strip().partition("\n")[0]
            raise ImportError(
                "the metrics need torchmetrics and a torchvision that fits torch; "
                f"pip install 'torchmetrics>=1.9,<2' torchvision ({reason})"
            ) from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the CPU generator, which torchmetrics draws from, and restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
