"""`robustdiff corrupt`: make the labels of a file or a folder wrong, and write down how."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from corruptions import NoisyLabels, Samples, read_labels, samples_from
from corruptions.arrays import load_array
from robustdiff.config.images import DataConfig
from robustdiff.config.names import LabelsAsName
from robustdiff.config.sections import NoiseConfig
from robustdiff.data.registry import load_images
from robustdiff.data.sources import kind_of
from robustdiff.files.atomic import check_folder, write_text
from robustdiff.files.csv_text import csv_text
from robustdiff.labels.given import add_noise, samples_of
from robustdiff.progress import Report
from robustdiff.reports.figures import matrix_figure, write_figure

_FILES = ("labels.npz", "labels.csv", "transition.png")


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """Labels that are to be made wrong.

    Attributes:
        samples: Whose labels they are; their clean labels are those of the file or folder.
        features: (N, ...) images in [0, 255], where there are any.
    """

    samples: Samples
    features: NDArray[np.generic] | Tensor | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """K names, of bare numbers the numbers."""
        return self.samples.names


def open_source(
    path: Path,
    *,
    key: str | None,
    num_classes: int | None,
    features: Path | None,
    folder: DataConfig,
    report: Report,
    labels_as: LabelsAsName = "auto",
) -> LabelSource:
    """Read labels from a label file or from images of one's own.

    Args:
        path: See `corruptions.read_labels`; or images of one's own, whose training part is taken.
        key: Which labels, in a file with several.
        num_classes: K; None for what the file or folder has.
        features: .npy file with the images of a label file, (N, ...) in [0, 255].
        folder: How images are read; their place is `path`.
        report: Receives progress, and what is guessed.
        labels_as: See `corruptions.samples_from`.

    Raises:
        ValueError: If nothing usable is there.
    """
    path = path.expanduser()
    if holds_images(path):
        data: Any = {"dataset": kind_of(path), "data_dir": str(path)}
        images = load_images(replace(folder, **data), report)
        if num_classes not in (None, images.num_classes):
            raise ValueError(
                f"{path} has {images.num_classes} classes, got --classes {num_classes}"
            )
        return LabelSource(samples=samples_of(images), features=images.train)
    samples, notes = samples_from(read_labels(path, key), num_classes, labels_as)
    for note in notes:
        report.message(note)
    return LabelSource(
        samples=samples, features=None if features is None else _load_features(features)
    )


def holds_images(path: Path) -> bool:
    """Return whether images of one's own lie at a path, rather than a file of labels."""
    return path.is_dir() or path.suffix.lower() in (".tar", ".parquet", ".jsonl")


def _load_features(path: Path) -> NDArray[np.generic]:
    try:
        return load_array(path)
    except OSError as error:
        raise ValueError(f"cannot read features from {path}: {error}") from error


def corrupt_source(source: LabelSource, noise: NoiseConfig, *, seed: int) -> NoisyLabels:
    """Make the labels of a source wrong; see `robustdiff.labels.given.add_noise`."""
    return add_noise(noise, source.samples, features=source.features, seed=seed)


def check_free(folder: Path) -> None:
    """Refuse a folder in which `write_labels` would replace a file.

    Raises:
        ValueError: If there can be no such folder, or it holds one of the files' names.
    """
    check_folder(folder)
    if taken := [name for name in _FILES if (folder / name).exists()]:
        raise ValueError(f"{folder} already holds {', '.join(taken)}; choose another --out")


def write_labels(folder: Path, source: LabelSource, labels: NoisyLabels) -> None:
    """Write labels.npz (the record), labels.csv and transition.png.

    Args:
        folder: Made if missing.
        source: Where the labels came from.
        labels: What became of them.

    Raises:
        ValueError: Like `check_free`.
        OSError: If they cannot be written.
    """
    check_free(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "labels.csv", _as_csv(source, labels))
    title = f"{labels.noise_type}, {labels.realised_rate:.2%} of {len(labels.given)} labels wrong"
    figure = matrix_figure(labels.realised, source.class_names, title)
    write_figure(figure, folder / "transition.png")
    # Last, because a folder with a record counts as done.
    labels.save(folder / "labels.npz")


def _as_csv(source: LabelSource, labels: NoisyLabels) -> str:
    paths, names = source.samples.paths, source.class_names
    rows: list[list[object]] = [
        ["index", *(["path"] if paths else []), "given_label", "true_label", "flipped"]
    ]
    for index, (given, clean) in enumerate(zip(labels.given, labels.clean, strict=True)):
        path = [paths[index]] if paths else []
        rows.append([index, *path, names[given], names[clean], int(given != clean)])
    return csv_text(rows)
