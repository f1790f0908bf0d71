"""The classification accuracy score: what a classifier learns from generated images."""

import torch
from torch import Tensor

from robustdiff.classifiers.image import Lessons, embed, passes_for, train_image_classifier
from robustdiff.classifiers.networks import is_natural
from robustdiff.data.checks import check_labels
from robustdiff.device import native_precision
from robustdiff.progress import Progress, silent

# Of the small and of the deeper network: images seen in a training, most passes, trainings.
_SEEN = {False: 40_000, True: 100_000}
_MAX_PASSES = {False: 400, True: 40}
_TRAININGS = {False: 3, True: 1}


def classification_accuracy(
    images: Tensor,
    labels: Tensor,
    heldout: Tensor,
    heldout_labels: Tensor,
    num_classes: int,
    *,
    progress: Progress = silent,
) -> Tensor:
    """Train classifiers on images and test them on real ones (Ravuri & Vinyals 2019).

    The score is the mean of what is returned. It falls with wrong labels, bad images and lost
    variety, so it is to be read beside that of as many real images. Classifiers are the
    evaluator's networks, trained for a shorter time; equal arguments give equal results.

    Args:
        images: (M, C, H, W) uint8, M >= 2; training runs on their device.
        labels: (M,) int64 in [0, num_classes), the classes that were asked for.
        heldout: (H, C, H, W) uint8 real images that the generator was not trained on.
        heldout_labels: (H,) int64.
        num_classes: K.
        progress: Called with (steps done, steps in all).

    Returns:
        (S, H) bool on the CPU: which held-out images each classifier is right on. S is 3 for small
        images and 1 for natural ones.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_labels(heldout_labels, len(heldout), num_classes, "held-out labels")
    natural, hits = is_natural(images.shape[1:]), []
    trainings = _TRAININGS[natural]
    for seed in range(trainings):
        lessons = Lessons(
            seed=seed,
            passes=min(passes_for(len(images), _SEEN[natural]), _MAX_PASSES[natural]),
            flip=natural,
            dtype=native_precision(images.device) if natural else torch.float32,
        )
        classifier = train_image_classifier(
            images,
            labels,
            num_classes,
            lessons=lessons,
            progress=_part(progress, seed, trainings),
        ).classifier
        _, logits = embed(classifier, heldout)
        hits.append(logits.argmax(dim=1) == heldout_labels.cpu())
    return torch.stack(hits)


def _part(progress: Progress, number: int, count: int) -> Progress:
    """Return what reports one of several equally long trainings as a part of all."""
    return lambda done, steps: progress(number * steps + done, count * steps)
