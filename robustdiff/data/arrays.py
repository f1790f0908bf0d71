"""Datasets held in memory as uint8 tensors; batches are gathered without per-item Python."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from corruptions import NoisyLabels, Samples
from robustdiff.config.layers import choose
from robustdiff.config.sections import DataConfig
from robustdiff.data.folder import DEFAULT_SIZE, read_folder
from robustdiff.progress import Report

# The split is part of the dataset's definition here: scikit-learn ships none.
_DIGITS_TEST_SIZE = 450
_SHOWN_BAD = 5
_DIGESTED = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Images:
    """A dataset with its held-out part.

    Attributes:
        name: Name of the dataset.
        train: (N, C, H, W) uint8 images.
        train_labels: (N,) int64 labels as published.
        test: (M, C, H, W) uint8 held-out images.
        test_labels: (M,) int64.
        class_names: K names.
        paths: File of each training image, relative to the dataset's folder; None where the dataset
            does not come as files.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    paths: tuple[str, ...] | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    def __post_init__(self) -> None:
        for part, labels in (("training", self.train_labels), ("test", self.test_labels)):
            counts = torch.bincount(labels, minlength=self.num_classes)
            if (counts == 0).any():
                empty = self.class_names[int(torch.nonzero(counts == 0)[0])]
                raise ValueError(
                    f"every class needs images, but the {part} part of {self.name} "
                    f"has none of class {empty!r}"
                )


def samples_of(images: Images) -> Samples:
    """Return the training images as what label files are joined to."""
    return Samples(
        clean=images.train_labels.numpy(),
        num_classes=images.num_classes,
        class_names=images.class_names,
        paths=images.paths,
        digests=getattr(images, "digests", None),
        held_out=getattr(images, "test_paths", None) or (),
    )


def known_noise(config: DataConfig, labels: NoisyLabels) -> float | None:
    """Return the share of a dataset's labels that are known to be wrong.

    None where nobody knows: labels of a folder are taken as they are, unless noise was added.
    """
    if config.dataset == "folder" and not labels.flipped.any():
        return None
    return labels.realised_rate


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images in [0, 255] to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Scale images in [-1, 1] to uint8 in [0, 255], rounding and clipping."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class LabelledImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images with their given labels; items are (image, given_label, index).

    Indexing with a (B,) int64 tensor returns a whole batch.

    Attributes:
        images: (N, C, H, W) uint8.
        given: (N,) int64 labels as given, possibly wrong.
    """

    def __init__(self, images: Tensor, given: Tensor) -> None:
        if len(images) != len(given):
            raise ValueError(f"there are {len(images)} images but {len(given)} labels")
        self.images = images
        self.given = given

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return float32 images in [-1, 1], given labels and indices, for one or many."""
        where = torch.as_tensor(index, dtype=torch.int64, device=self.images.device)
        return to_float(self.images[where]), self.given[where], where

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the same data on a device."""
        return LabelledImages(self.images.to(device), self.given.to(device))


Loader = Callable[[DataConfig, Report], Images]


def _digits(config: DataConfig, report: Report) -> Images:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test, train_labels, test_labels = train_test_split(
        pixels,
        bunch.target.astype(np.int64),
        test_size=_DIGITS_TEST_SIZE,
        stratify=bunch.target,
        random_state=0,
    )
    return Images(
        name="digits",
        train=torch.from_numpy(train),
        train_labels=torch.from_numpy(train_labels),
        test=torch.from_numpy(test),
        test_labels=torch.from_numpy(test_labels),
        class_names=tuple(str(digit) for digit in range(10)),
    )


def _torchvision(name: str, class_name: str) -> Loader:
    def load(config: DataConfig, report: Report) -> Images:
        from torchvision import datasets

        data_dir, download = Path(config.data_dir), config.download
        kind = getattr(datasets, class_name)
        try:
            parts = [kind(root=data_dir, train=train, download=download) for train in (True, False)]
        except RuntimeError as error:
            # torchvision raises RuntimeError both for a missing and for a damaged dataset.
            hint = "the download failed" if download else "add --download to fetch it"
            raise ValueError(
                f"no usable {name} under {data_dir.resolve()} (searched for torchvision's "
                f"{class_name} layout); {hint}, or point --data-dir at it"
            ) from error
        images, labels = zip(*(_tensors(part) for part in parts), strict=True)
        return Images(
            name=name,
            train=images[0],
            train_labels=labels[0],
            test=images[1],
            test_labels=labels[1],
            class_names=tuple(parts[0].classes),
        )

    return load


def _tensors(part: object) -> tuple[Tensor, Tensor]:
    pixels = torch.as_tensor(part.data)  # type: ignore[attr-defined]
    labels = torch.as_tensor(part.targets, dtype=torch.int64)  # type: ignore[attr-defined]
    images = pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return images.contiguous(), labels


def _folder(config: DataConfig, report: Report) -> Images:
    root = Path(config.data_dir)
    folder = read_folder(root, config.image_size or DEFAULT_SIZE, report)
    if folder.bad:
        path, reason = folder.bad[0]
        found = f"{len(folder.bad)} of the images in {root} cannot be read, the first is {path}"
        if config.on_bad_image == "refuse":
            raise ValueError(f"{found} ({reason}); leave them out with --on-bad-image skip")
        shown = ", ".join(path for path, _ in folder.bad[:_SHOWN_BAD])
        more = ", ..." if len(folder.bad) > _SHOWN_BAD else ""
        report.message(f"left out {len(folder.bad)} images that cannot be read: {shown}{more}")
    images = torch.from_numpy(folder.images)
    labels = torch.tensor([entry.label for entry in folder.listed], dtype=torch.int64)
    count = sum(not entry.is_test for entry in folder.listed)
    return Images(
        name="folder",
        train=images[:count],
        train_labels=labels[:count],
        test=images[count:],
        test_labels=labels[count:],
        class_names=folder.class_names,
        paths=tuple(entry.path for entry in folder.listed[:count]),
    )


DATASETS: dict[str, Loader] = {
    "digits": _digits,
    "mnist": _torchvision("mnist", "MNIST"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST"),
    "cifar10": _torchvision("cifar10", "CIFAR10"),
    "cifar100": _torchvision("cifar100", "CIFAR100"),
    "folder": _folder,
}


def load_images(config: DataConfig, report: Report) -> Images:
    """Load a dataset into memory.

    Args:
        config: Which one, where, and whether to download what is missing.
        report: Told about long work and about images that are left out.

    Returns:
        Images with their published labels.

    Raises:
        ValueError: If the name is unknown, the dataset is not there, or a class has no images.
    """
    choose(config.dataset, DATASETS, "dataset")
    images = DATASETS[config.dataset](config, report)
    if config.train_size is not None:
        images = _part(images, config.train_size)
    size = config.image_size
    if size is None:
        return images
    return replace(images, train=resize(images.train, size), test=resize(images.test, size))


def _part(images: Images, count: int) -> Images:
    """Keep some training images, the same share of every class and the same ones in every run."""
    from sklearn.model_selection import train_test_split

    total, k = len(images.train), images.num_classes
    if count == total:
        return images
    if not k <= count <= total - k:
        raise ValueError(
            f"data.train_size must be between {k} and {total - k}, or all {total} training images "
            f"of {images.name}, got {count}"
        )
    kept, _ = train_test_split(
        np.arange(total), train_size=count, stratify=images.train_labels.numpy(), random_state=0
    )
    where = torch.from_numpy(np.sort(kept))
    paths = images.paths
    return replace(
        images,
        train=images.train[where],
        train_labels=images.train_labels[where],
        paths=None if paths is None else tuple(paths[i] for i in where.tolist()),
    )


def resize(images: Tensor, size: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to (N, C, size, size); whole factors are average-pooled."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    parts = [
        F.interpolate(part.float(), size=(size, size), mode="area").round().to(torch.uint8)
        for part in torch.split(images, 4096)
    ]
    return torch.cat(parts)


def images_digest(images: Tensor) -> str:
    """Return the SHA-256 of images as hexadecimal digits.

    Args:
        images: (N, C, H, W) uint8 on the CPU. Of more than 64 MiB every n-th image is read alone.
    """
    stride = max(1, math.ceil(images.numel() / _DIGESTED))
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images[::stride].contiguous().numpy().data)
    return digest.hexdigest()
