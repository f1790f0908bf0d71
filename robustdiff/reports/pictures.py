"""Pictures: grids of images with captions, written as PNG."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from robustdiff.files.atomic import write_atomic

_BACKGROUND, _TEXT = 255, 0
_CAPTION_HEIGHT = 14
MOST_COLUMNS = 40


def spread(count: int, most: int = MOST_COLUMNS) -> list[int]:
    """Return all of `count` columns, or so many as a picture takes, evenly chosen."""
    return (
        [round(i * (count - 1) / (most - 1)) for i in range(most)]
        if count > most
        else [*range(count)]
    )


def class_grid(images: Tensor, columns: int) -> Tensor:
    """Lay out rows of one image per class; of many classes 40 are shown.

    Args:
        images: (R * columns, C, H, W) uint8, C 1 or 3, row by row.
        columns: Classes.

    Returns:
        (3, rows, columns) uint8.
    """
    chosen = spread(columns)
    rows = images.reshape(-1, columns, *images.shape[1:])[:, chosen]
    return image_grid(rows.flatten(0, 1), len(chosen))


def image_grid(
    images: Tensor, columns: int, *, captions: Sequence[str] | None = None, cell: int = 48
) -> Tensor:
    """Lay images out in rows, enlarged to whole multiples of their pixels.

    Args:
        images: (B, C, H, W) uint8, C 1 or 3.
        columns: Images per row.
        captions: One short text under each image, or None.
        cell: Least width of an image in the grid, in pixels.

    Returns:
        (3, rows, columns) uint8.
    """
    scale = max(1, math.ceil(cell / images.shape[3]))
    height, width = images.shape[2] * scale, images.shape[3] * scale
    step_x, step_y = width + 2, height + 2 + (_CAPTION_HEIGHT if captions else 0)
    rows = math.ceil(len(images) / columns)
    canvas = Image.new("RGB", (columns * step_x + 2, rows * step_y + 2), (_BACKGROUND,) * 3)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=11)
    colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    for i, pixels in enumerate(colour):
        x, y = 2 + (i % columns) * step_x, 2 + (i // columns) * step_y
        canvas.paste(
            Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (x, y)
        )
        if captions:
            draw.text((x + 1, y + height), captions[i], fill=(_TEXT,) * 3, font=font)
    return torch.from_numpy(np.asarray(canvas).copy()).permute(2, 0, 1)


def pair_grid(pairs: Tensor) -> Tensor:
    """Lay out (P, 2, C, H, W) uint8 pairs side by side, the first image of each over the second.

    Returns:
        (3, rows, columns) uint8.
    """
    return image_grid(pairs.transpose(0, 1).flatten(0, 1), len(pairs))


def write_png(path: Path, image: Tensor) -> None:
    """Write a (3, H, W) uint8 image."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    write_atomic(path, lambda file: picture.save(file, format="PNG"))


def read_png(path: Path) -> Tensor:
    """Read a picture that `write_png` wrote, (3, H, W) uint8."""
    with Image.open(path) as picture:
        return torch.from_numpy(np.asarray(picture.convert("RGB")).copy()).permute(2, 0, 1)


def png_bytes(image: Tensor, compress_level: int = 6) -> bytes:
    """Return a (C, H, W) uint8 image, C 1 or 3, as a PNG; level 0 to 9, 9 the smallest."""
    pixels = image.permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(buffer, format="PNG", compress_level=compress_level)
    return buffer.getvalue()


def picture_uri(image: Tensor) -> str:
    """Return a (C, H, W) uint8 image, C 1 or 3, as the address of a PNG that holds it itself."""
    return png_uri(png_bytes(image))


def png_uri(png: bytes) -> str:
    """Return a PNG as an address that holds it itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
