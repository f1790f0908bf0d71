"""A folder of images, one folder a class: decoded once, then memory-mapped."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from robustdiff.config.names import SplitName
from robustdiff.data.decode import Pixels, file_state, is_grey, read_image, reason
from robustdiff.data.image_cache import Contents, cache_stem, fingerprint, read_cache, write_cache
from robustdiff.data.layout import Listed, list_folder
from robustdiff.progress import Report

T = TypeVar("T")

DEFAULT_SIZE = 32
# Numbers of errors that stay until the file changes: Pillow's errors about content have none.
_LASTING = (None, errno.EACCES, errno.EPERM, errno.EINVAL)


class Folder(NamedTuple):
    """A folder's images, the training part first.

    Attributes:
        images: (N, C, size, size) uint8, C 1 if all are grey, else 3; memory-mapped.
        listed: The N files.
        digests: N beginnings of the files' SHA-256, 16 hexadecimal digits each.
        class_names: K names, sorted.
        bad: Files that could not be read, with the reason.
    """

    images: Pixels
    listed: list[Listed]
    digests: tuple[str, ...]
    class_names: tuple[str, ...]
    bad: list[tuple[str, str]]


def read_folder(
    root: Path, size: int, report: Report, split: SplitName = "auto", *, whole: bool = False
) -> Folder:
    """Read a folder of images, from its cache if nothing has changed.

    Args:
        root: The folder.
        size: Side in pixels; images are cropped to a square about their centre and resized.
        report: Receives progress, one line on what is used, and one on each kind of doubt: what is
            left out, images of sub-folders, images that come out dark, no room for the cache.
        split: How sub-folders are read, see `list_folder`.
        whole: Whether nothing is held out.

    Returns:
        The images that can be read.

    Raises:
        ValueError: If the folder cannot be used, see `list_folder`.
        OSError: If a folder in it cannot be listed.
    """
    layout = list_folder(root, split, whole=whole)
    for line in layout.describe(Path(os.path.abspath(root)).name or str(root)):
        report.message(line)
    contents = _contents(root, size, [entry.path for entry in layout.listed], report)
    if contents.dim:
        report.message(
            f"images that come out dark: {len(contents.dim)} (first: {min(contents.dim)}); their "
            "16-bit values are all below 4096, so they may be of 12 bits and not say so"
        )
    bad = {path for path, _ in contents.bad}
    listed = [entry for entry in layout.listed if entry.path not in bad]
    digests = tuple(contents.digests)
    return Folder(contents.images, listed, digests, layout.class_names, contents.bad)


def _contents(root: Path, size: int, paths: list[str], report: Report) -> Contents:
    """Return what files hold, from the cache or from the files, which are then cached."""
    states = {path: file_state(root / path) for path in paths}
    mark, stem = fingerprint(root, size, states), cache_stem(root, size)
    if stem is not None and (cached := read_cache(stem, mark)) is not None:
        return cached
    bad = {path: state for path, state in states.items() if isinstance(state, str)}
    contents, may_pass = _decode(root, size, paths, bad, report)
    if may_pass:
        return contents
    try:
        if stem is None:
            raise OSError(errno.ENOENT, "this user has no home folder")
        return write_cache(stem, mark, contents)
    except OSError as error:
        report.message(
            f"the decoded images are not kept, and will be decoded again: cannot write "
            f"{stem or 'a cache'} ({reason(error)}); XDG_CACHE_HOME names another folder for it"
        )
    return contents


def _decode(
    root: Path, size: int, paths: list[str], bad: dict[str, str], report: Report
) -> tuple[Contents, bool]:
    """Decode image files into memory.

    Args:
        root: The folder that the paths are relative to.
        size: Side in pixels.
        paths: The files.
        bad: Those that need not be tried, with the reason; receives those that fail.
        report: Receives progress.

    Returns:
        What they hold; and whether a file failed for a reason that may pass, such as a network's.
    """
    may_pass = False

    def note(path: str, error: Exception) -> None:
        nonlocal may_pass
        bad[path] = reason(error)
        may_pass |= isinstance(error, MemoryError) or getattr(error, "errno", None) not in _LASTING

    with ThreadPoolExecutor() as pool:
        channels = 1
        present = [path for path in paths if path not in bad]
        looks = _each(pool, lambda path: is_grey(root / path), present, report, "looking at images")
        for path, grey in looks:
            if isinstance(grey, Exception):
                note(path, grey)
            elif not grey:
                channels = 3
        readable = [path for path in paths if path not in bad]
        images = np.empty((len(readable), channels, size, size), dtype=np.uint8)
        digests: list[str] = []
        dim: list[str] = []
        reads = _each(
            pool,
            lambda path: read_image(root / path, size, channels),
            readable,
            report,
            "reading images",
        )
        for path, image in reads:
            if isinstance(image, Exception):
                note(path, image)
                continue
            images[len(digests)] = image.pixels
            digests.append(image.digest)
            dim += [path] * image.is_dim
    failed = [(path, bad[path]) for path in paths if path in bad]
    return Contents(images[: len(digests)], digests, failed, dim), may_pass


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[str], T],
    paths: list[str],
    report: Report,
    task: str,
) -> Iterator[tuple[str, T | Exception]]:
    """Yield each path with the result of the work on it, or its error, in their order."""

    def guarded(path: str) -> T | Exception:
        try:
            return work(path)
        except Exception as error:  # noqa: BLE001 decoders of damaged files fail in many ways
            return error

    for done, result in enumerate(pool.map(guarded, paths), start=1):
        report.progress(task, done, len(paths))
        yield paths[done - 1], result
