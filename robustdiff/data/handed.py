"""Datasets of Python, (image, label) by number: written to one array file, and read from there."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from corruptions.columns import GIVEN, LABELS, plain_name
from corruptions.tables import first_few, whole
from robustdiff.config.images import DataConfig
from robustdiff.data.decode import eight_bit, has_no_colours, short_digest, to_pixels
from robustdiff.data.image_cache import ABANDONED_SECONDS, mapped_array, write_header
from robustdiff.data.layout import Layout
from robustdiff.data.rows import Rows, check_same_names, lay_out
from robustdiff.data.stored import chosen, tensor_of
from robustdiff.data.tables import pick_columns
from robustdiff.files.atomic import write_atomic, write_text
from robustdiff.files.caches import cache_folder

INDEX, IMAGES = "robustdiff-arrays.json", "images.npy"
_FORMAT = "robustdiff-arrays-1"
# Bytes that are read and written at a time.
_AT_ONCE = 2**24
# What the names of folders in the cache begin with that are not whole yet.
_BEGUN = ".arrays-"


class MapDataset(Protocol):
    """What is handed over: items (image, label), or mappings of columns, by number."""

    def __len__(self) -> int:
        """Return how many items there are."""

    def __getitem__(self, index: int, /) -> Any:  # noqa: ANN401 (image, label) of any library
        """Return an item."""


class _About(NamedTuple):
    """All of a dataset but its pixels, of which there are digests."""

    images: list[str]
    labels: list[int | str]
    names: list[str]
    splits: list[str] | None
    class_names: tuple[str, ...] | None


def save_dataset(
    folder: str | Path,
    dataset: MapDataset,
    test_dataset: MapDataset | None = None,
    *,
    image_size: int | None = None,
) -> None:
    """Write a dataset of Python to a folder, which `--dataset arrays --data-dir FOLDER` reads.

    Args:
        folder: Made if missing; what it held before is replaced.
        dataset: Any map-style dataset. An item is (image, label) or a mapping of columns such as
            {"image": ..., "label": ...}. An image is a PIL image, a tensor (C, H, W) or (H, W) of
            uint8 or of floats in [0, 1], or a uint8 array (H, W) or (H, W, C); a label is a number
            or a name. Classes are named by `dataset.classes` or `dataset.features`, if there are.
        test_dataset: The held-out part; None to hold out a fifth of every class.
        image_size: Side in pixels; None for that of the images, which must then agree.

    Raises:
        ValueError: If an item is something else, naming it; if there are fewer than two classes, or
            a label is none of them.
        OSError: If it cannot be written.
    """
    target = Path(folder)
    new = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    try:
        # Within the folder, which may lie on another disk than the one around it.
        with TemporaryDirectory(prefix=".", dir=target) as place:
            about = _collected(Path(place), dataset, test_dataset, image_size)
            _move(Path(place), target, about)
    except BaseException:
        if new:
            with suppress(OSError):  # what somebody else has put there stays
                target.rmdir()
        raise


def kept_dataset(
    dataset: MapDataset, test_dataset: MapDataset | None, image_size: int | None
) -> Path:
    """Write a dataset into the cache, unless it is there; return its folder.

    Raises:
        ValueError: Like `save_dataset`, or if there is no place for a cache.
        OSError: If it cannot be written.
    """
    base = cache_folder()
    if base is None:
        raise ValueError("this user has no home folder to keep a dataset in; set XDG_CACHE_HOME")
    base.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(base)
    with TemporaryDirectory(prefix=_BEGUN, dir=base) as place:
        about = _collected(Path(place), dataset, test_dataset, image_size)
        shape = mapped_array(Path(place) / IMAGES).shape
        key = hashlib.sha256(repr((shape, *about)).encode())
        folder = base / f"arrays-{key.hexdigest()[:16]}"
        if not (folder / INDEX).exists():
            _move(Path(place), folder, about)
    return folder


def _remove_abandoned(base: Path) -> None:
    """Remove what processes that were killed have left long ago."""
    for begun in base.glob(f"{_BEGUN}*"):
        with suppress(OSError):  # another process removes it, too
            newest = max(path.stat().st_mtime for path in (begun, *begun.iterdir()))
            if newest < time.time() - ABANDONED_SECONDS:
                shutil.rmtree(begun)


def _move(place: Path, folder: Path, about: _About) -> None:
    """Move the images that lie in a place to their folder, and make it valid by its index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX).unlink(missing_ok=True)
    (place / IMAGES).replace(folder / IMAGES)
    index = {"format": _FORMAT, **about._asdict()}
    write_text(folder / INDEX, json.dumps(index) + "\n")  # last: it makes the folder valid


def _check_wanted(test_dataset: MapDataset | None, image_size: int | None) -> None:
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}")
    if test_dataset is not None and len(test_dataset) == 0:
        raise ValueError("the test dataset must hold an image of each class, got no item")


def _collected(
    place: Path, dataset: MapDataset, test_dataset: MapDataset | None, image_size: int | None
) -> _About:
    """Write the images of a dataset to a folder, one after the other, and return the rest of it."""
    _check_wanted(test_dataset, image_size)
    parts = {"item": dataset} | ({} if test_dataset is None else {"test": test_dataset})
    labels: list[int | str] = []
    names: list[str] = []

    def write(out: BinaryIO) -> None:
        side, grey = 0, True
        for name, image, label in _squares(parts, image_size):
            if not names:
                side = image_size or image.width
                write_header(out, (0, 3, side, side))
            colourless = has_no_colours(image)
            pixels = to_pixels(image, side, 1 if colourless else 3)
            out.write(np.repeat(pixels, 3, 0).data if colourless else pixels.data)
            grey = grey and colourless
            labels.append(label)
            names.append(name)
        if not names:
            raise ValueError("the dataset holds no items")
        if grey:
            _keep_one_channel(out, len(names), side)
        out.seek(0)
        write_header(out, (len(names), 1 if grey else 3, side, side))

    write_atomic(place / IMAGES, write)
    digests = [short_digest(image.tobytes()) for image in mapped_array(place / IMAGES)]
    train = len(dataset)
    splits = None if test_dataset is None else ["train"] * train + ["test"] * (len(names) - train)
    class_names = class_names_of(dataset)
    _check_labels(labels, class_names)
    of_test = None if test_dataset is None else class_names_of(test_dataset)
    if class_names is not None and of_test is not None:
        check_same_names(class_names, "the dataset", of_test, "the test dataset")
    return _About(digests, labels, names, splits, class_names)


def _check_labels(labels: Sequence[int | str], class_names: Sequence[str] | None) -> None:
    """Refuse labels of fewer than two classes, or that number none of the classes with names."""
    found = [*dict.fromkeys(str(label) for label in labels)]
    count = len(found if class_names is None else class_names)
    if count < 2:
        raise ValueError(
            f"a dataset needs at least 2 classes, got {first_few(class_names or found)}"
        )
    if class_names is None:
        return
    if odd := [label for label in found if whole(label) not in range(count)]:
        raise ValueError(
            f"labels must number the {count} classes of the dataset, {first_few(class_names)}, "
            f"from 0 to {count - 1}, got {first_few(odd)}"
        )


def _keep_one_channel(out: BinaryIO, count: int, side: int) -> None:
    """Keep the first of three equal channels of so many images, within the file."""
    out.flush()
    pixels = side * side
    begin = out.tell() - 3 * count * pixels
    at_once = max(1, _AT_ONCE // (3 * pixels))
    with open(out.name, "rb") as written:
        for first in range(0, count, at_once):
            number = min(at_once, count - first)
            written.seek(begin + 3 * first * pixels)
            some = np.frombuffer(written.read(3 * number * pixels), np.uint8)
            out.seek(begin + first * pixels)
            # What is overwritten lies before all that is read later.
            out.write(np.ascontiguousarray(some.reshape(number, 3, pixels)[:, 0]).data)
            out.flush()
    out.truncate()


def _squares(
    parts: Mapping[str, MapDataset], image_size: int | None
) -> Iterator[tuple[str, Image.Image, int | str]]:
    """Yield name, image and label of every item; images of one size where none is asked for."""
    side = None
    for part, items in parts.items():
        for number, (image, label) in enumerate(_items(items, f"the dataset's {part}")):
            side = side or image.width
            if image_size is None and image.size != (side, side):
                raise ValueError(
                    f"{part} {number} has {image.width} x {image.height} pixels, and images must "
                    f"be squares of one size, here {side}; data.image_size makes them so"
                )
            yield f"{part}-{number}", image, label


def _items(dataset: MapDataset, where: str) -> Iterator[tuple[Image.Image, int | str]]:
    for number in range(len(dataset)):
        try:
            item = dataset[number]
        except OSError as error:
            # Without a number, or the file that is written meanwhile would be blamed.
            raise OSError(f"{where} {number} cannot be read: {error}") from error
        if isinstance(item, Mapping):
            item = _pair(item, f"{where} {number}")
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise ValueError(
                f"every item must be (image, label), but {where} {number} is {_kind(item)}"
            )
        yield _image(item[0], f"{where} {number}"), _label(item[1], f"{where} {number}")


def _pair(item: Mapping[str, Any], where: str) -> tuple[Any, Any]:
    """Return image and label of an item of columns with usual names."""
    try:
        columns = pick_columns([*item], where, {"image": None, "label": None, "split": None})
    except ValueError as error:  # which names options of the command line
        raise ValueError(
            f"{where} has {first_few(item)}, and needs one column of images and one of labels "
            'under usual names such as "image" and "label"; hand over (image, label) items'
        ) from error
    return item[columns.image], item[columns.label]


def _label(value: object, where: str) -> int | str:
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and np.ndim(value) == 0:
        value = value.item()
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ValueError(
        f"every image must have one label, a number or a name, but that of {where} is "
        f"{_kind(value)}; sets of labels are not supported"
    )


def _image(value: object, where: str) -> Image.Image:
    if isinstance(value, Image.Image):
        return eight_bit(value)
    if isinstance(value, torch.Tensor):
        value = _pixels(value, where)
    if isinstance(value, np.ndarray) and value.dtype == np.uint8:
        shape = value.shape
        if len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3)):
            return Image.fromarray(value.squeeze(2) if shape[2:] == (1,) else value)
    raise ValueError(
        f"an image must be a PIL image, a tensor (1 or 3, H, W) of uint8 or of floats in [0, 1], "
        f"or a uint8 array (H, W, 1 or 3), but that of {where} is {_kind(value)}"
    )


def _pixels(image: torch.Tensor, where: str) -> NDArray[np.generic]:
    """Return a tensor as an array with its channels last, floats in [0, 1] as uint8."""
    pixels = image.detach().cpu()
    if pixels.ndim == 3:
        pixels = pixels.movedim(0, -1)
    if pixels.is_floating_point():
        if not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError(
                f"the image of {where} has floats outside of [0, 1]; hand it over without Normalize"
            )
        pixels = (pixels * 255).round().to(torch.uint8)
    array: NDArray[np.generic] = pixels.numpy()
    return array


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    said = type(value).__name__
    if shape is not None:
        return f"{said} of shape {tuple(shape)} and {getattr(value, 'dtype', '')}"
    return f"{said} of length {len(value)}" if isinstance(value, tuple | list) else said


def class_names_of(dataset: object, label: str | None = None) -> tuple[str, ...] | None:
    """Return the names that torchvision's datasets and those of the hub give their classes.

    Args:
        dataset: Any.
        label: The column of its labels; None for the one of a usual name.
    """
    names = getattr(dataset, "classes", None)
    features = getattr(dataset, "features", None)
    if names is None and isinstance(features, Mapping):
        usual = [name for name in features if plain_name(str(name)) in (*GIVEN, *LABELS)]
        columns = usual if label is None else [label]
        names = getattr(features.get(columns[0]), "names", None) if len(columns) == 1 else None
    return None if names is None else tuple(map(str, names))


def read_arrays(config: DataConfig) -> tuple[Layout, Tensor, tuple[str, ...]]:
    """Read what `save_dataset` has written.

    Args:
        config: `data_dir` is the folder.

    Returns:
        How the images are used; the images (N, C, size, size) and their digests in that order.

    Raises:
        ValueError: If it is not there, or damaged.
    """
    folder = Path(config.data_dir)
    if not (folder / INDEX).exists():
        raise ValueError(
            f"{folder} holds no dataset that was handed over in Python; hand it over again with "
            f"robustdiff.save_dataset({str(folder)!r}, dataset)"
        )
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        if index["format"] != _FORMAT:
            raise ValueError("another format")
        images = mapped_array(folder / IMAGES)
        digests, names, declared = index["images"], index["names"], index["class_names"]
        rows = Rows(
            where=str(folder),
            names=names,
            labels=index["labels"],
            splits=index["splits"],
            class_names=None if declared is None else tuple(declared),
        )
        if not len(images) == len(names) == len(digests) == len(rows.labels):
            raise ValueError("other numbers of images and names")
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the dataset in {folder} is damaged: {error}") from error
    layout = lay_out(rows, config)
    place = {name: number for number, name in enumerate(names)}
    order = [place[entry.path] for entry in layout.listed]
    pixels = tensor_of(images)
    if order != list(range(len(images))):
        pixels = chosen(pixels, torch.tensor(order))
    return layout, pixels, tuple(digests[number] for number in order)
