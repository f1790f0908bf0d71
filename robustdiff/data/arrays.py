"""Datasets as uint8 tensors, in memory or read when used: images, labels, scaling, digest."""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from robustdiff.data.store import Store
from robustdiff.data.stored import Reader, Stored, chosen, near, rows_ahead

# Bytes of which all images are read for their digest.
_DIGESTED = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a model makes images of: all that generating needs to know of a dataset.

    Attributes:
        name: Name of the dataset.
        image_shape: (C, H, W).
        class_names: K names.
    """

    name: str
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)


@dataclass(frozen=True, kw_only=True)
class Images:
    """A dataset with its held-out part.

    Attributes:
        name: Name of the dataset.
        train: (N, C, H, W) uint8 images; those that do not fit into memory are `Stored`.
        train_labels: (N,) int64 labels as published.
        test: (M, C, H, W) uint8 held-out images; M is 0 where all are in the training part.
        test_labels: (M,) int64.
        class_names: K names.
        paths: Name of each training image, its file relative to the dataset's folder where it is
            one; None for datasets whose images have no names.
        test_paths: The same of the held-out images.
        digests: Beginning of the SHA-256 of each training image's file, 16 hexadecimal digits; None
            like `paths`.
        test_digests: The same of the held-out images.
        store: Where the images lie that `paths` name; None where nothing else is kept of them.
    """

    name: str
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    class_names: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    test_paths: tuple[str, ...] | None = None
    digests: tuple[str, ...] | None = None
    test_digests: tuple[str, ...] | None = None
    store: Store | None = None

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    def part(self, rows: Tensor) -> "Images":
        """Return the dataset with some of its training images, (M,) int64, in that order."""

        def named(values: tuple[str, ...] | None) -> tuple[str, ...] | None:
            return None if values is None else tuple(values[i] for i in rows.tolist())

        return replace(
            self,
            train=chosen(self.train, rows),
            train_labels=self.train_labels[rows],
            paths=named(self.paths),
            digests=named(self.digests),
        )

    def __post_init__(self) -> None:
        for part, labels in (("training", self.train_labels), ("test", self.test_labels)):
            if part == "test" and not len(labels):
                continue
            counts = torch.bincount(labels, minlength=self.num_classes)
            if (counts == 0).any():
                empty = self.class_names[int(torch.nonzero(counts == 0)[0])]
                raise ValueError(
                    f"every class needs images, but the {part} part of {self.name} "
                    f"has none of class {empty!r}"
                )


def on_device(images: Images, device: torch.device) -> Images:
    """Return a dataset whose images lie on a device, and its labels where they were."""
    return replace(images, train=near(images.train, device), test=near(images.test, device))


def to_float(images: Tensor) -> Tensor:
    """Scale uint8 images in [0, 255] to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Scale images in [-1, 1] to uint8 in [0, 255], rounding and clipping."""
    return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


class LabelledImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Images with their given labels; items are (image, given_label, index).

    Indexing with a (B,) int64 tensor returns a whole batch, without Python per item.

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

    def batches(self, rows: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the items of each (B,) int64 batch of rows; stored images are read ahead."""
        for some, pixels in rows_ahead(self.images, rows):
            where = some.to(self.given.device, torch.int64)
            yield to_float(pixels), self.given[where], where

    @property
    def rows_device(self) -> torch.device:
        """Where `batches` wants rows: beside the images, or on the CPU if they are stored."""
        return torch.device("cpu") if isinstance(self.images, Stored) else self.images.device

    def to(self, device: torch.device) -> "LabelledImages":
        """Return the same data on a device, see `near`."""
        return LabelledImages(near(self.images, device), self.given.to(device))


def resize(images: Tensor, size: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to (N, C, size, size); whole factors are average-pooled."""
    if tuple(images.shape[2:]) == (size, size):
        return images
    if isinstance(images, Stored):
        shape = (*images.shape[:2], size, size)
        decodes = images.reader.decodes
        return Stored(
            Reader(shape, lambda rows: resize(images.fetch(rows), size).numpy(), decodes=decodes)
        )
    parts = [
        F.interpolate(part.float(), size=(size, size), mode="area").round().to(torch.uint8)
        for part in torch.split(images, 4096)
    ]
    return torch.cat(parts)


def images_digest(images: Tensor) -> str:
    """Return the SHA-256 of images as hexadecimal digits.

    Args:
        images: (N, C, H, W) uint8 on the CPU. Of more than 64 MiB only every n-th image is read.
    """
    stride = max(1, math.ceil(images.numel() / _DIGESTED))
    digest = hashlib.sha256(repr(tuple(images.shape)).encode())
    digest.update(images[::stride].contiguous().numpy().data)
    return digest.hexdigest()
