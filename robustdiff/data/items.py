"""Images and labels handed over in Python: arrays, or a map-style dataset of (image, label)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from corruptions.labels import check_labels
from robustdiff.data.checks import CHANNELS

Ints = NDArray[np.int64]

_MODES = ("L", "RGB")


def images_of(images: Any) -> Tensor:  # noqa: ANN401 arrays of any library
    """Return images as (N, C, H, W) uint8 on the CPU, C 1 or 3.

    Args:
        images: Array or tensor, (N, C, H, W), (N, H, W, C) or (N, H, W); uint8, or floating point
            in [0, 1].

    Raises:
        ValueError: If it is anything else.
    """
    pixels = _tensor_of(images)
    shape = tuple(pixels.shape)
    if len(shape) == 3:
        pixels = pixels[:, None]
    elif len(shape) == 4 and shape[1] not in CHANNELS and shape[3] in CHANNELS:
        pixels = pixels.permute(0, 3, 1, 2)
    elif len(shape) != 4 or shape[1] not in CHANNELS:
        raise ValueError(
            f"images must have shape (N, C, H, W), (N, H, W, C) or (N, H, W), C 1 or 3, got {shape}"
        )
    if 0 in shape:
        raise ValueError(f"at least one image is needed, got shape {shape}")
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if not 0 <= low <= high <= 1:
            raise ValueError(
                f"floating-point images must be in [0, 1], got values from {low:g} to {high:g}; "
                "give them without normalisation, or as uint8"
            )
        pixels = (pixels * 255).round().to(torch.uint8)
    if pixels.dtype != torch.uint8:
        raise ValueError(f"images must be uint8 or floating point, got {pixels.dtype}")
    return pixels.contiguous()


def _tensor_of(images: Any) -> Tensor:  # noqa: ANN401
    if isinstance(images, np.ndarray):
        images = np.ascontiguousarray(images)  # torch knows no negative strides
    try:
        return torch.as_tensor(images).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        kind = type(images).__name__
        raise ValueError(f"images must be one array or tensor, got {kind}: {error}") from error


def labels_of(labels: Any, count: int, num_classes: int | None = None) -> tuple[Ints, int]:  # noqa: ANN401
    """Return labels as (N,) int64, and the number of classes K.

    Args:
        labels: Array, tensor or sequence of whole numbers, (N,).
        count: N.
        num_classes: K; None for the largest label plus one.

    Raises:
        ValueError: If they are not N whole numbers in [0, K), or a class is never given.
    """
    array = np.asarray(labels.cpu() if isinstance(labels, Tensor) else labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise ValueError(
            f"labels must be {count} whole numbers, one for each image, "
            f"got shape {array.shape} of {array.dtype}"
        )
    k = int(array.max()) + 1 if num_classes is None else num_classes
    given = check_labels(array, k)
    # Not counted class by class: an identifier for a label would ask for all memory.
    present = np.unique(given)
    if len(present) < k:
        first = int((np.append(present, k) != np.arange(len(present) + 1)).argmax())
        raise ValueError(
            f"every class needs labels, but {k - len(present)} of {k} are given to no image, "
            f"the first is class {first}"
        )
    return given, k


def pair_of(item: Any, keys: tuple[str, str], number: int) -> tuple[Any, Any]:  # noqa: ANN401
    """Return image and label of one item of a dataset.

    Args:
        item: A pair, or a mapping.
        keys: What image and label are called in a mapping.
        number: Of the item, for errors.

    Raises:
        ValueError: If it is neither, or a key is missing.
    """
    if isinstance(item, Mapping):
        if not set(keys) <= item.keys():
            raise ValueError(
                f"item {number} of the dataset has no {keys[0]!r} and {keys[1]!r}, but "
                f"{', '.join(map(repr, item))}; name those of image and label by keys=(..., ...)"
            )
        return item[keys[0]], item[keys[1]]
    if not isinstance(item, Sequence) or len(item) != 2:
        shown = f"{len(item)} parts" if isinstance(item, Sequence) else type(item).__name__
        raise ValueError(f"items of a dataset must be (image, label), got {shown} of {number}")
    return item[0], item[1]


def read_items(dataset: Any, keys: tuple[str, str]) -> tuple[Tensor, list[int]]:  # noqa: ANN401
    """Read a map-style dataset into memory.

    Args:
        dataset: Has a length and items (image, label), or mappings. Images are those of PIL, of
            mode L or RGB, or (C, H, W), (H, W, C) or (H, W) arrays as in `images_of`.
        keys: See `pair_of`.

    Returns:
        (N, C, H, W) uint8 images, and N labels.

    Raises:
        ValueError: If an item is anything else, or images differ in shape.
    """
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise ValueError(
            "a dataset must be map-style, with a length and items (image, label), "
            f"got {type(dataset).__name__}"
        )
    pixels, labels = [], []
    for number in range(len(dataset)):
        image, label = pair_of(dataset[number], keys, number)
        pixels.append(_array(image, number))
        if pixels[-1].shape != pixels[0].shape or pixels[-1].dtype != pixels[0].dtype:
            raise ValueError(
                f"images must have one shape and type, got {pixels[0].shape} of {pixels[0].dtype} "
                f"of item 0 and {pixels[-1].shape} of {pixels[-1].dtype} of item {number}"
            )
        labels.append(_whole(label, number))
    if not pixels:
        raise ValueError("the dataset has no items")
    return images_of(np.stack(pixels)), labels


def _array(image: Any, number: int) -> NDArray[Any]:  # noqa: ANN401
    mode = getattr(image, "mode", None)
    if isinstance(mode, str) and mode not in _MODES:
        raise ValueError(
            f"images must be of mode {' or '.join(_MODES)}, item {number} is of mode {mode}; "
            "convert it by image.convert('RGB')"
        )
    array = np.asarray(image.cpu() if isinstance(image, Tensor) else image)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uf":
        raise ValueError(
            f"images must be of PIL, or arrays of 2 or 3 dimensions, uint8 or floating point, "
            f"got {type(image).__name__} as image {number}"
        )
    return array


def _whole(label: Any, number: int) -> int:  # noqa: ANN401
    array = np.asarray(label.cpu() if isinstance(label, Tensor) else label)
    if array.shape != () or array.dtype.kind not in "iu":
        raise ValueError(f"labels must be single whole numbers, item {number} has {label!r}")
    return int(array)
