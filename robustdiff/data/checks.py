"""Checks of images and labels, one clear line per mistake."""

import torch
from torch import Tensor

CHANNELS = (1, 3)


def check_images(images: Tensor, what: str) -> None:
    """Check a set of images.

    Args:
        images: Expected to be (N, C, H, W) uint8 with N >= 1, C 1 or 3.
        what: How the error names the images.

    Raises:
        ValueError: If the images are anything else.
    """
    shape = tuple(images.shape)
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(
            f"{what} must be uint8 of shape (N, C, H, W), got {images.dtype} of shape {shape}"
        )
    if len(images) == 0 or shape[1] not in CHANNELS or min(shape[2:]) < 1:
        raise ValueError(f"{what} must be at least one image of 1 or 3 channels, got shape {shape}")


def check_labels(labels: Tensor, count: int, num_classes: int, what: str) -> None:
    """Check the labels that belong to `count` samples.

    Args:
        labels: Expected to be (N,) int64 in [0, num_classes).
        count: N.
        num_classes: K.
        what: How the error names the labels.

    Raises:
        ValueError: If the labels are anything else.
    """
    if labels.dtype != torch.int64 or tuple(labels.shape) != (count,):
        raise ValueError(
            f"{what} must be int64 of shape ({count},), got {labels.dtype} "
            f"of shape {tuple(labels.shape)}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(f"{what} must be in [0, {num_classes}), got values from {low} to {high}")
