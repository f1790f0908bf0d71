"""`robustdiff corrupt`: add noise to the labels of a file or a folder, and record it."""

import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from corruptions import NoisyLabels, read_labels
from corruptions.arrays import load_array
from robustdiff.config.sections import DataConfig, NoiseConfig
from robustdiff.data.registry import load_images
from robustdiff.files.atomic import write_text
from robustdiff.labels.given import add_noise
from robustdiff.progress import Report
from robustdiff.reports.figures import matrix_figure, write_figure


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Labels that noise is to be added to.

    Attributes:
        labels: (N,) int64.
        class_names: K names.
        paths: File of each sample of a folder of images, else None.
        features: (N, ...) images in [0, 255], or None.
    """

    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    features: NDArray[np.generic] | None = None


def open_source(
    path: Path,
    *,
    key: str | None,
    num_classes: int | None,
    features: Path | None,
    folder: DataConfig,
    report: Report,
) -> LabelSource:
    """Read labels from a label file or from a folder of images.

    Args:
        path: See `corruptions.read_labels`; or a folder, whose training part is taken as
            `--dataset folder` takes it.
        key: Name of the labels in a file with several.
        num_classes: K; None for the largest label plus one.
        features: .npy file with the images of a label file, (N, ...) in [0, 255].
        folder: Configuration that a folder is read with, but for its place, which is `path`.
        report: Receives progress and messages.

    Returns:
        The labels with what belongs to them.

    Raises:
        ValueError: If there are no labels, or a file cannot be read.
    """
    if path.is_dir():
        images = load_images(replace(folder, dataset="folder", data_dir=str(path)), report)
        return LabelSource(
            labels=images.train_labels.numpy(),
            class_names=images.class_names,
            paths=images.paths,
            features=images.train.numpy(),
        )
    file = read_labels(path, key)
    if len(file.given) == 0:
        raise ValueError(f"{path} holds no labels")
    count = max(2, int(file.given.max()) + 1) if num_classes is None else num_classes
    names = file.class_names or tuple(str(number) for number in range(count))
    return LabelSource(
        labels=file.given,
        class_names=names,
        features=None if features is None else _load_features(features),
    )


def _load_features(path: Path) -> NDArray[np.generic]:
    try:
        return load_array(path)
    except OSError as error:
        raise ValueError(f"cannot read features from {path}: {error}") from error


def corrupt_source(source: LabelSource, noise: NoiseConfig, *, seed: int) -> NoisyLabels:
    """Make the labels of a source wrong; see `robustdiff.labels.given.add_noise`."""
    return add_noise(
        noise,
        source.labels,
        class_names=source.class_names,
        features=source.features,
        seed=seed,
    )


def write_labels(folder: Path, source: LabelSource, labels: NoisyLabels) -> None:
    """Write labels.npz (the record), labels.csv and transition.png.

    Args:
        folder: Made if missing.
        source: The labels before the noise.
        labels: The labels after it.

    Raises:
        ValueError: If the folder already holds labels.
    """
    if (folder / "labels.npz").exists():
        raise ValueError(f"{folder} already holds labels; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "labels.csv", _as_csv(source, labels))
    title = f"{labels.noise_type}, {labels.realised_rate:.2%} of {len(labels.given)} labels wrong"
    figure = matrix_figure(labels.realised, source.class_names, title)
    write_figure(figure, folder / "transition.png")
    # Last, because a folder with a record counts as done.
    labels.save(folder / "labels.npz")


def _as_csv(source: LabelSource, labels: NoisyLabels) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    paths = source.paths
    writer.writerow(["index", *(["path"] if paths else []), "given_label", "true_label", "flipped"])
    names = source.class_names
    for index, (given, clean) in enumerate(zip(labels.given, labels.clean, strict=True)):
        path = [paths[index]] if paths else []
        writer.writerow([index, *path, names[given], names[clean], int(given != clean)])
    return text.getvalue()
