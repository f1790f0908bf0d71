"""Trust in labels from small classifiers, each judging samples that it was not trained on.

Round one trains on the labels as given; its predictions give the transition matrix (confident
joint). Round two trains anew under that matrix (forward correction, Patrini et al. 2017), so that
it predicts clean classes. A sample's class follows by Bayes from both and its given label.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import confident_joint
from robustdiff.judge import posterior
from robustdiff.metrics.evaluator import embed, train_evaluator
from robustdiff.rng import Stream, stream_seed

Floats = NDArray[np.float64]

FOLDS = 2
# Enough to learn the classes, not enough to learn the wrong labels by heart. Measured on the digits
# and on 12,000 MNIST images under 30 to 70 % noise.
_PASSES, _LEAST_SEEN, _MOST_SEEN = 14, 12_000, 80_000
_ROUNDS = 2


def crossfit(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Callable[[int, int], None],
) -> Floats:
    """Return how likely each class is for each image, given its label.

    Args:
        images: (N, C, H, W) uint8.
        given: (N,) int64 in [0, K).
        num_classes: K.
        seed: Seed of the run.
        progress: Called with (steps done, steps in all).

    Returns:
        (N, K) float64, rows sum to 1.

    Raises:
        ValueError: If a class is never given.
    """
    # Every class is spread over the folds alike, so that each learns all classes.
    order = np.random.default_rng(stream_seed(seed, Stream.CROSSFIT)).permutation(len(given))
    labels = given.cpu().numpy()
    by_class = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(given), dtype=np.int64)
    fold[by_class] = np.arange(len(given)) % FOLDS

    def predict(round_number: int, transition: Floats | None) -> Floats:
        predicted = np.empty((len(given), num_classes))
        for part in range(FOLDS):
            train, test = (np.flatnonzero(which) for which in (fold != part, fold == part))
            number = round_number * FOLDS + part
            classifier = train_evaluator(
                images[torch.from_numpy(train)],
                given[torch.from_numpy(train)],
                num_classes,
                seed=stream_seed(seed, Stream.CROSSFIT) % 2**32 + number,
                transition=transition,
                images_seen=min(max(_PASSES * len(train), _LEAST_SEEN), _MOST_SEEN),
                progress=_shifted_progress(progress, number),
            )
            _, logits = embed(classifier, images[torch.from_numpy(test)])
            predicted[test] = logits.softmax(1).numpy()
        return predicted

    transition = confident_joint(labels, predict(0, None)).transition
    return posterior(predict(1, transition), transition, labels)


def _shifted_progress(
    progress: Callable[[int, int], None], number: int
) -> Callable[[int, int], None]:
    """Report the steps of one classifier as part of those of all."""
    return lambda step, steps: progress(number * steps + step, _ROUNDS * FOLDS * steps)
