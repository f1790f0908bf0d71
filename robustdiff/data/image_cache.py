"""Decoded images kept on disk, so that the next start maps them into memory.

The cache of a folder is an array, named by the fingerprint of the files that it was made of, and an
index that is written after it and makes it valid. The array is written while images are decoded, so
that they are never all in memory. Where images are not to be copied there is the index alone.
Processes that write at once each replace whole files, so a reader finds a pair of one fingerprint
or makes it anew; a process that has an older array mapped keeps it after the file is removed.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import PIL

from robustdiff.data.decode import Pixels, reason
from robustdiff.files.atomic import sha256, write_atomic, write_text
from robustdiff.files.caches import cache_folder

_FORMAT = 2
_SMALL = 64 * 2**20
# Temporary files of which nothing is newer were left by processes that were killed.
ABANDONED_SECONDS = 3600


class Contents(NamedTuple):
    """What some image files hold.

    Attributes:
        images: (N, C, size, size) uint8 of those that can be read, in their order; None where they
            are not kept.
        channels: C, 1 if all are grey, else 3.
        digests: N beginnings of SHA-256 of the files, 16 hexadecimal digits each.
        bad: Path and reason of each file that cannot be read.
        dim: Paths of images whose 16-bit values would all fit in 12.
    """

    images: Pixels | None
    channels: int
    digests: list[str]
    bad: list[tuple[str, str]]
    dim: list[str]


class _NotKeptError(Exception):
    """The images are to be used once, because some of them may be there the next time."""


Decode = Callable[[BinaryIO], tuple[Contents, bool]]
"""Writes the pixels of images one after another; returns what else they hold, and whether it lasts:
False where an image failed for a reason that may pass, such as a network's."""


def fingerprint(
    root: Path,
    size: int,
    states: dict[str, os.stat_result | str],
    names: Sequence[str] = (),
    *,
    by_content: bool,
) -> str:
    """Return a digest that changes when an image may have changed.

    It holds the size, the times of change of content and of status, and the inode of every file; of
    few bytes of files the content, too, because a change within one tick of the clock shows
    in nothing else.

    Args:
        root: The folder of images.
        size: Side in pixels of the decoded images.
        states: State of each file, see `robustdiff.data.decode.file_state`, in their order.
        names: Those of the images in their order, where they are not those of the files; then the
            column that they are read from, if there are several.
        by_content: Whether the content of the files counts; see `few_bytes`.
    """
    digest = hashlib.sha256(f"{_FORMAT} {size} {PIL.__version__}".encode())
    for path, state in states.items():
        digest.update(os.fsencode(path))
        said = state
        if isinstance(state, os.stat_result):
            content = _digest(root / path) if by_content else ""
            said = (
                f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino} {content}"
            )
        digest.update(f"\0{said}\0".encode())
    for name in names:
        digest.update(os.fsencode(name) + b"\0")
    return digest.hexdigest()


def few_bytes(states: dict[str, os.stat_result | str]) -> bool:
    """Return whether files hold at most 64 MiB together."""
    sizes = [state.st_size for state in states.values() if isinstance(state, os.stat_result)]
    return sum(sizes) <= _SMALL


def _digest(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        return reason(error)


def cache_stem(home: Path, size: int) -> Path | None:
    """Return where the files of a source's cache begin; None if this user has no home folder.

    Args:
        home: The folder or file that the source is.
        size: Side in pixels of the decoded images.
    """
    key = hashlib.sha256(os.fsencode(home.resolve()) + f"\0{size}".encode()).hexdigest()[:16]
    base = cache_folder()
    return None if base is None else base / f"folder-{key}"


def _array_file(stem: Path, mark: str) -> Path:
    return stem.with_name(f"{stem.name}-{mark[:16]}.npy")


def read_cache(stem: Path, mark: str, *, pixels: bool = True) -> Contents | None:
    """Map a folder's cache into memory; None if there is none of this fingerprint.

    Args:
        stem: See `cache_stem`.
        mark: See `fingerprint`.
        pixels: Whether the images themselves are wanted.
    """
    try:
        index = json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))
        if index["fingerprint"] != mark:
            return None
        images = mapped_array(_array_file(stem, mark)) if pixels else None
        channels = int(index["channels"]) if images is None else images.shape[1]
        digests, dim = [str(text) for text in index["digests"]], [str(p) for p in index["dim"]]
        bad = [(str(path), str(reason)) for path, reason in index["bad"]]
    except Exception:  # noqa: BLE001 of damaged files, which fail in many ways; they are made anew
        return None
    if len(digests) != (len(digests) if images is None else len(images)):
        return None
    return Contents(images, channels, digests, bad, dim)


def write_cache(stem: Path, mark: str, size: int, decode: Decode) -> Contents:
    """Decode images into a folder's cache, and remove older ones of the same folder.

    Args:
        stem: See `cache_stem`.
        mark: See `fingerprint`.
        size: Side in pixels.
        decode: See `Decode`.

    Returns:
        What the images hold, mapped from the cache; from a file without a name if it does not last.

    Raises:
        OSError: If it cannot be written; then nothing of it is left.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    file = _array_file(stem, mark)
    contents: Contents | None = None
    lasts = True

    def write(out: BinaryIO) -> None:
        nonlocal contents, lasts
        write_header(out, (0, 3, size, size))
        contents, lasts = decode(out)
        out.seek(0)  # the header of fewer images has the same length
        write_header(out, (len(contents.digests), contents.channels, size, size))

    def map_it(temporary: Path) -> None:
        # Mapped before it has its name: from then on another process may replace or remove it.
        nonlocal contents
        assert contents is not None
        contents = contents._replace(images=mapped_array(temporary))
        if not lasts:
            raise _NotKeptError

    try:
        write_atomic(file, write, written=map_it)
        assert contents is not None
        write_index(stem, mark, contents, file)
    except _NotKeptError:
        pass
    except OSError:
        file.unlink(missing_ok=True)
        raise
    assert contents is not None
    return contents


def write_index(stem: Path, mark: str, contents: Contents, file: Path | None = None) -> None:
    """Write what images hold beside their pixels, and remove older arrays of the same folder.

    Args:
        stem: See `cache_stem`.
        mark: See `fingerprint`.
        contents: What they hold.
        file: Their array; None where there is none.

    Raises:
        OSError: If it cannot be written.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    index = contents._asdict() | {"images": None if file is None else file.name}
    # JSON in ASCII: names of any bytes are escaped.
    write_text(stem.with_suffix(".json"), json.dumps(index | {"fingerprint": mark}))
    _remove_older(stem, file)


def mapped_array(path: Path) -> Pixels:
    """Map an array file into memory, so that writing to it changes memory only."""
    # Copy on write: torch wants writable memory, and the file must not change.
    images = np.load(path, mmap_mode="c", allow_pickle=False)
    if not isinstance(images, np.ndarray):
        raise ValueError(f"{path} is an archive, not an array")
    return images


def write_header(out: BinaryIO, shape: tuple[int, ...]) -> None:
    """Write how `numpy.save` begins a file of a uint8 array; it has as many bytes for any shape."""
    about = {"shape": shape, "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(out, about)


def _remove_older(stem: Path, file: Path | None) -> None:
    """Remove arrays of other fingerprints, and what killed writers have left long ago."""
    older = [path for path in stem.parent.glob(f"{stem.name}*.npy") if path != file]
    long_ago = time.time() - ABANDONED_SECONDS
    with suppress(OSError):  # another process removes them, too
        for path in stem.parent.glob(f".{stem.name}*.tmp"):
            if path.stat().st_mtime < long_ago:
                older.append(path)
        for path in older:
            path.unlink(missing_ok=True)
