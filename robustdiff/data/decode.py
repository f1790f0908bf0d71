"""Images turned into arrays of one size, from files or from memory."""

import hashlib
import io
import os
import stat
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from robustdiff.data.store import Store

Pixels = NDArray[np.uint8]

_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
_BITS_TAG, _COMPRESSION_TAG, _OFFSETS_TAG, _COUNTS_TAG = 258, 259, 273, 279
_ORIENTATION_TAG = 0x0112
# Largest grey value, of 16 bits; those of 32 have no fixed range.
_TOP = 65535


class Decoded(NamedTuple):
    """An image as it is trained on.

    Attributes:
        pixels: (C, size, size) uint8.
        digest: First 16 hexadecimal digits of the SHA-256 of the file.
        is_dim: Whether its 16-bit values would all fit in 12.
    """

    pixels: Pixels
    digest: str
    is_dim: bool


def file_state(path: Path) -> os.stat_result | str:
    """Return the state of a file, or why it cannot be read.

    Nothing is opened: a pipe would wait for a writer.
    """
    try:
        state = path.stat()
    except OSError as error:
        return "a link to nothing" if path.is_symlink() else reason(error)
    if stat.S_ISDIR(state.st_mode):
        return "a folder"
    if not stat.S_ISREG(state.st_mode):
        return "not a regular file"
    return state if state.st_size else "an empty file"


def reason(error: Exception) -> str:
    """Return what a person can use of an error of reading an image, without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def is_grey(store: Store, name: str) -> bool:
    """Return whether an image has no colours, from its header.

    Raises:
        Exception: Whatever Pillow raises for a damaged file.
    """
    with store.open(name) as file, Image.open(file) as image:
        return has_no_colours(image)


def has_no_colours(image: Image.Image) -> bool:
    """Return whether all that an image can hold is grey."""
    return image.mode in _GREY


def read_image(store: Store, name: str, size: int, channels: int) -> Decoded:
    """Decode an image: turned upright, over white, cropped about its centre, resized.

    Grey values of more than 8 bits are divided by the largest that their number of bits allows: 16,
    or what a TIFF's BitsPerSample says. A camera's 12-bit values in a file that says 16 are
    ambiguous: they are taken as 16 bits, come out dark, and are counted as dim.

    Args:
        store: Where the image lies.
        name: Its name there; any format that Pillow reads; of an animation the first frame.
        size: Side in pixels.
        channels: 1 or 3.

    Raises:
        ValueError: If the pixels have no fixed range, or grey values leave that of 16 bits.
        Exception: Whatever Pillow raises for a damaged file.
    """
    with store.open(name) as file:
        content = file.read()
    with Image.open(io.BytesIO(content)) as opened:
        bits = _bits(opened)
        image = ImageOps.exif_transpose(_unpacked(opened, content) if bits < 16 else opened)
    image, is_dim = _eight_bits(image, bits)
    return Decoded(to_pixels(image, size, channels), short_digest(content), is_dim)


def eight_bit(image: Image.Image) -> Image.Image:
    """Return an image of memory as one of a file is taken: turned upright, with 8 bits."""
    return _eight_bits(ImageOps.exif_transpose(image), 16)[0]


def to_pixels(image: Image.Image, size: int, channels: int) -> Pixels:
    """Return an image of 8 bits as (channels, size, size) pixels: over white, cropped, resized."""
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, colour)
    image = image.convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    return fitted[None] if channels == 1 else np.ascontiguousarray(fitted.transpose(2, 0, 1))


def short_digest(content: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of an image's bytes."""
    return hashlib.sha256(content).hexdigest()[:16]


def _bits(image: Image.Image) -> int:
    """Return the bits of grey values that Pillow holds in 16 or more."""
    tags = getattr(image, "tag_v2", {})
    bits: int = tags.get(_BITS_TAG, (16,))[0]
    return bits if 8 < bits < 16 else 16


def _unpacked(image: Image.Image, content: bytes) -> Image.Image:
    """Read values of fewer than 16 bits that each take 16, which Pillow would take as packed."""
    tags = image.tag_v2  # type: ignore[attr-defined]
    starts, counts = tags.get(_OFFSETS_TAG, ()), tags.get(_COUNTS_TAG, ())
    width, height = image.size
    if tags.get(_COMPRESSION_TAG, 1) != 1 or sum(counts) != 2 * width * height:
        return image
    strips = [content[s : s + count] for s, count in zip(starts, counts, strict=True)]
    values = np.frombuffer(b"".join(strips), dtype="<u2").reshape(height, width)
    unpacked = Image.fromarray(values.astype(np.uint16))
    unpacked.getexif()[_ORIENTATION_TAG] = image.getexif().get(_ORIENTATION_TAG, 1)
    return unpacked


def _eight_bits(image: Image.Image, bits: int) -> tuple[Image.Image, bool]:
    """Scale grey values of more bits, which Pillow would clip; say whether 12 would hold them."""
    if image.mode == "F":
        raise ValueError("32-bit floating point pixels have no fixed range")
    if not image.mode.startswith("I"):
        return image, False
    values, top = np.asarray(image), 2**bits - 1
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _TOP:
        raise ValueError(f"grey values must be in [0, {_TOP}], got {low} to {high}")
    scaled = (values.clip(0, top) / (top / 255)).round().astype(np.uint8)
    return Image.fromarray(scaled), bits == 16 and 0 < high < 4096
