"""The datasets that a configuration may name, and their loaders."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robustdiff.config.images import DataConfig
from robustdiff.config.layers import choose
from robustdiff.data.arrays import Images, resize
from robustdiff.data.handed import read_arrays
from robustdiff.data.layout import Layout
from robustdiff.data.reading import DEFAULT_SIZE, read_source
from robustdiff.data.sources import SOURCES
from robustdiff.data.store import Store
from robustdiff.data.stored import Stored, joined, tensor_of
from robustdiff.progress import Report

# The split is part of the dataset's definition here: scikit-learn ships none.
_DIGITS_TEST_SIZE = 450
_SHOWN_BAD = 5

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


def _own(config: DataConfig, report: Report) -> Images:
    """Load images of one's own, whatever their source."""
    layout, store = SOURCES[config.dataset](config)
    size = config.image_size or DEFAULT_SIZE
    own = read_source(layout, store, size, report, copy=config.copy)
    if own.bad:
        path, reason = own.bad[0]
        found = f"{len(own.bad)} of the images in {store.home} cannot be read, the first is {path}"
        if config.on_bad_image == "refuse":
            raise ValueError(f"{found} ({reason}); leave them out with --on-bad-image skip")
        shown = ", ".join(path for path, _ in own.bad[:_SHOWN_BAD])
        more = ", ..." if len(own.bad) > _SHOWN_BAD else ""
        report.message(f"left out {len(own.bad)} images that cannot be read: {shown}{more}")
    layout = layout._replace(listed=own.listed)
    return _images(config.dataset, layout, tensor_of(own.images), own.digests, store)


def _arrays(config: DataConfig, report: Report) -> Images:
    layout, pixels, digests = read_arrays(config)
    for line in layout.describe(Path(config.data_dir).name):
        report.message(line)
    return _images(config.dataset, layout, pixels, digests)


def _images(
    name: str,
    layout: Layout,
    images: Tensor,
    digests: tuple[str, ...],
    store: Store | None = None,
) -> Images:
    listed = layout.listed
    labels = torch.tensor([entry.label for entry in listed], dtype=torch.int64)
    count = sum(not entry.is_test for entry in listed)
    return Images(
        name=name,
        train=images[:count],
        train_labels=labels[:count],
        test=images[count:],
        test_labels=labels[count:],
        class_names=layout.class_names,
        paths=tuple(entry.path for entry in listed[:count]),
        test_paths=tuple(entry.path for entry in listed[count:]),
        digests=digests[:count],
        test_digests=digests[count:],
        store=store,
    )


DATASETS: dict[str, Loader] = {
    "digits": _digits,
    "mnist": _torchvision("mnist", "MNIST"),
    "fashion-mnist": _torchvision("fashion-mnist", "FashionMNIST"),
    "cifar10": _torchvision("cifar10", "CIFAR10"),
    "cifar100": _torchvision("cifar100", "CIFAR100"),
    **dict.fromkeys(SOURCES, _own),
    "arrays": _arrays,
}


def load_images(config: DataConfig, report: Report) -> Images:
    """Load a dataset: into memory, or where it is larger, to be read when it is used.

    Args:
        config: Which one, where ("~" is the home folder), and whether to download what is missing.
        report: Receives the progress of long work, and what was found in a folder of images.

    Returns:
        Images with their published labels.

    Raises:
        ValueError: If the name is unknown, the dataset is not there, or a class has no images.
    """
    choose(config.dataset, DATASETS, "dataset")
    config = replace(config, data_dir=os.path.expanduser(config.data_dir))
    images = DATASETS[config.dataset](config, report)
    if config.train_size is not None:
        images = _part(images, config.train_size)
    size = config.image_size
    if size is None:
        return images
    if isinstance(images.train, Stored):  # both parts stay rows of one source
        both, count = resize(joined(images.train, images.test), size), len(images.train)
        return replace(images, train=both[:count], test=both[count:])
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
    return images.part(torch.from_numpy(np.sort(kept)))
