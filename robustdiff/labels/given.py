"""The given labels of a dataset: read from a file, or the published ones with noise added."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels, corrupt, labels_from, load_matrix, read_labels
from robustdiff.config.sections import Config, DataConfig, NoiseConfig
from robustdiff.data.arrays import Images


def add_noise(
    noise: NoiseConfig,
    clean: NDArray[np.integer],
    *,
    class_names: Sequence[str],
    features: NDArray[np.generic] | None,
    seed: int,
    dataset: str | None = None,
) -> NoisyLabels:
    """Add the configured noise to (N,) labels; see `corruptions.corrupt` for the arguments.

    Raises:
        ValueError: If the noise type is unknown, or a file that it needs cannot be used.
    """
    return corrupt(
        clean,
        num_classes=len(class_names),
        noise_type=noise.type,
        rate=noise.rate,
        seed=seed,
        mode=noise.mode,
        dataset=dataset,
        class_map=noise.class_map,
        class_names=class_names,
        matrix=None if noise.matrix is None else load_matrix(Path(noise.matrix)),
        features=features,
    )


def prepare_labels(config: Config, images: Images) -> NoisyLabels:
    """Make the given labels of a run.

    Args:
        config: Its configuration.
        images: Its dataset.

    Returns:
        Labels of the training images.

    Raises:
        ValueError: If the noise type is unknown, or a file that it needs cannot be used.
    """
    noise, clean = config.noise, images.train_labels.numpy()
    if noise.labels is not None:
        file = read_labels(Path(noise.labels), noise.labels_key)
        return labels_from(file, clean, images.num_classes)
    return add_noise(
        noise,
        clean,
        class_names=images.class_names,
        features=images.train.numpy(),
        seed=config.seed,
        dataset=images.name,
    )


def known_noise(config: DataConfig, labels: NoisyLabels) -> float | None:
    """Return the share of a dataset's labels that are known to be wrong.

    None for a folder without added noise: which of its labels are wrong is not known.
    """
    if config.dataset == "folder" and not labels.flipped.any():
        return None
    return labels.realised_rate
