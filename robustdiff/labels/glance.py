"""Likely classes of images, by the cheapest classifiers that tell them from unlikely ones."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from curricula.sparse import MOST_DENSE, ClassValues, put_rows
from robustdiff.classifiers.image import Lessons, train_image_classifier
from robustdiff.classifiers.networks import is_natural
from robustdiff.labels.rows import all_said, ask, nothing_said, spread_folds
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Progress
from robustdiff.rng import Stream, stream_seed
from robustdiff.side_by_side import side_by_side

_FOLDS = 2
# Images that the small and the deeper network see in a fold: in passes over few, or some of many.
# Above the classes of dense evidence they see more, in proportion to the classes.
_SEEN = {False: 8_000, True: 50_000}


def glance(
    images: Tensor,
    given: Tensor,
    num_classes: int,
    *,
    seed: int,
    progress: Progress,
    dtype: torch.dtype = torch.float32,
    workers: Workers = ALONE,
) -> ClassValues:
    """Predict the classes of images by classifiers that did not learn their labels.

    Each of two classifiers learns of one half and predicts the other. This takes a tenth of what
    `crossfit` takes or less, makes no decision about labels, and ranks the classes of an image.

    Args:
        images: (N, C, H, W) uint8, N >= 4.
        given: (N,) int64 in [0, K).
        num_classes: K.
        seed: Seed of the run.
        progress: Called with (steps done, steps in all).
        dtype: Precision of the deeper network's products.
        workers: Those that share the work.

    Returns:
        (N, K) float32 probabilities of the given label, sparse for many classes.
    """
    natural = is_natural(images.shape[1:])
    first = stream_seed(seed, Stream.CROSSFIT) % 2**32
    labels, seen = given.cpu().numpy(), _SEEN[natural] * max(num_classes, MOST_DENSE) // MOST_DENSE
    folds = spread_folds(labels, _FOLDS, first)
    found = nothing_said(len(images), num_classes)
    parts = range(workers.rank, _FOLDS, workers.size)

    def judge(part: int, progress: Progress) -> ClassValues:
        others, asked = (
            torch.from_numpy(np.flatnonzero(w)) for w in (folds != part, folds == part)
        )
        learnt = others[:: -(-len(others) // seen)]
        lessons = Lessons(
            seed=first + part,
            passes=seen // len(learnt),
            flip=images.shape[1] == 3,
            dtype=dtype if natural else torch.float32,
        )
        trained = train_image_classifier(
            images,
            given.cpu()[learnt],
            num_classes,
            lessons=lessons,
            rows=learnt,
            progress=progress,
        )
        return ask(trained.classifier, images, asked, labels, lessons, progress)

    jobs = [partial(judge, part) for part in parts]
    for said, part in zip(side_by_side(jobs, images.device, progress), parts, strict=True):
        put_rows(found, folds == part, said)
    return all_said(workers, found)
