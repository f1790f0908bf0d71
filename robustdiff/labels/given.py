"""The given labels of a dataset: read from a file, or the published ones with noise added."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions import NoisyLabels, Samples, corrupt, labels_from, load_matrix, read_labels
from corruptions.labels import CORRECTED
from curricula import CURRICULA
from robustdiff.config.images import DataConfig
from robustdiff.config.names import OWN_DATASETS
from robustdiff.config.sections import Config, NoiseConfig
from robustdiff.data.arrays import Images
from robustdiff.data.rows import removed_in_words
from robustdiff.progress import Report


def samples_of(images: Images) -> Samples:
    """Return the training images as what label files are joined to."""
    return Samples(
        clean=images.train_labels.numpy(),
        num_classes=images.num_classes,
        class_names=images.class_names,
        paths=images.paths,
        digests=images.digests,
        held_out=images.test_paths or (),
    )


def add_noise(
    noise: NoiseConfig,
    samples: Samples,
    *,
    features: NDArray[np.generic] | Tensor | None,
    seed: int,
    dataset: str | None = None,
) -> NoisyLabels:
    """Add the configured noise to labels; the record says whose labels they are.

    Args:
        noise: Which noise.
        samples: Whose labels, and their clean labels.
        features: (N, ...) images in [0, 255], for instance-dependent noise; no other reads them.
        seed: See `corruptions.corrupt`.
        dataset: Picks the default class map of asymmetric noise.

    Raises:
        ValueError: If the noise type is unknown, or a file that it needs cannot be used.
    """
    if isinstance(features, Tensor):  # which may have to be read from files
        features = features.numpy() if noise.type.startswith("instance") else None
    labels = corrupt(
        samples.clean,
        num_classes=samples.num_classes,
        noise_type=noise.type,
        rate=noise.rate,
        seed=seed,
        mode=noise.mode,
        dataset=dataset,
        class_map=noise.class_map,
        class_names=samples.class_names or tuple(map(str, range(samples.num_classes))),
        matrix=None if noise.matrix is None else load_matrix(Path(noise.matrix)),
        features=features,
    )
    return replace(
        labels, class_names=samples.class_names, paths=samples.paths, digests=samples.digests
    )


def prepare_labels(config: Config, images: Images, report: Report) -> NoisyLabels:
    """Make the given labels of a run.

    Args:
        config: Its configuration.
        images: Its dataset.
        report: Receives what is guessed about a label file.

    Returns:
        Labels of the training images; they name the classes, and the files where there are any.

    Raises:
        ValueError: If the noise type is unknown, or a file that it needs cannot be used.
    """
    noise, samples = config.noise, samples_of(images)
    if noise.labels is not None:
        file = read_labels(Path(noise.labels).expanduser(), noise.labels_key)
        joined = labels_from(file, samples, noise.labels_as)
        for note in joined.notes:
            report.message(note)
        labels = replace(
            joined.labels,
            class_names=samples.class_names,
            paths=samples.paths,
            digests=samples.digests,
        )
        # Where nobody knows the right labels, the corrected ones are not measured
        # against those that were corrected.
        if labels.noise_type == CORRECTED and config.data.dataset in OWN_DATASETS:
            labels = replace(labels, clean=labels.given, nominal=np.eye(images.num_classes))
        return labels
    return add_noise(
        noise,
        samples,
        features=images.train,
        seed=config.seed,
        dataset=images.name,
    )


def without_removed(
    images: Images, labels: NoisyLabels, report: Report
) -> tuple[Images, NoisyLabels]:
    """Return the dataset without the training images that somebody has removed.

    Args:
        images: The dataset.
        labels: Labels of its training part.
        report: Receives how many were left out.
    """
    removed = np.array(labels.decided_by or ()) == "removed"
    if not removed.any():
        return images, labels
    rows = np.flatnonzero(~removed)
    report.message(removed_in_words(int(removed.sum())))
    if labels.paths is None:
        labels = replace(labels, kept=tuple(range(len(labels.given))))
    return images.part(torch.from_numpy(rows)), labels.at(rows)


def known_noise(config: DataConfig, labels: NoisyLabels) -> float | None:
    """Return the share of a dataset's labels that are known to be wrong.

    None for images of one's own without added noise: which of its labels are wrong is not known.
    """
    if config.dataset in OWN_DATASETS and not labels.flipped.any():
        return None
    return labels.realised_rate


def check_given(config: Config, images: Images, labels: NoisyLabels) -> None:
    """Check that the labels allow what the run will do with them.

    Raises:
        ValueError: If a class is never given, and the run needs labels of every class.
    """
    counts = np.bincount(labels.given, minlength=images.num_classes)
    needs = f"curriculum {config.curriculum.name!r}"
    if config.objective.name != "plain":
        needs = f"objective {config.objective.name!r}"
    elif CURRICULA[config.curriculum.name].source not in ("classes", "classifier"):
        return
    if not counts.all():
        missing = [images.class_names[k] for k in np.flatnonzero(counts == 0)]
        raise ValueError(
            f"{needs} compares the classes and needs labels of each, but {len(missing)} of "
            f"{len(counts)} are given to no image, the first is {missing[0]!r}"
        )
