"""Images of one's own, wherever they lie: decoded once, then memory-mapped."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from robustdiff.data.decode import Pixels, file_state, is_grey, read_image, reason
from robustdiff.data.image_cache import Contents, cache_stem, fingerprint, read_cache, write_cache
from robustdiff.data.layout import Layout, Listed
from robustdiff.data.store import Store
from robustdiff.progress import Report

T = TypeVar("T")

DEFAULT_SIZE = 32
# Numbers of errors that stay until the file changes: Pillow's errors about content have none.
_LASTING = (None, errno.EACCES, errno.EPERM, errno.EINVAL)


class Own(NamedTuple):
    """Images of one's own, the training part first.

    Attributes:
        images: (N, C, size, size) uint8, C 1 if all are grey, else 3; memory-mapped.
        listed: The N images.
        digests: N beginnings of the SHA-256 of their bytes, 16 hexadecimal digits each.
        class_names: K names.
        bad: Images that could not be read, with the reason.
    """

    images: Pixels
    listed: list[Listed]
    digests: tuple[str, ...]
    class_names: tuple[str, ...]
    bad: list[tuple[str, str]]


def read_source(layout: Layout, store: Store, size: int, report: Report) -> Own:
    """Read the images of a source, from its cache if nothing has changed.

    Args:
        layout: Which images, and what for.
        store: Where they lie.
        size: Side in pixels; images are cropped to a square about their centre and resized.
        report: Receives progress, one line on what is used, and one on each kind of doubt: what is
            left out, images of sub-folders, images that come out dark, no room for the cache.

    Returns:
        The images that can be read.
    """
    for line in layout.describe(Path(os.path.abspath(store.home)).name or str(store.home)):
        report.message(line)
    contents = _contents(store, size, [entry.path for entry in layout.listed], report)
    if contents.dim:
        report.message(
            f"images that come out dark: {len(contents.dim)} (first: {min(contents.dim)}); their "
            "16-bit values are all below 4096, so they may be of 12 bits and not say so"
        )
    bad = {path for path, _ in contents.bad}
    listed = [entry for entry in layout.listed if entry.path not in bad]
    return Own(contents.images, listed, tuple(contents.digests), layout.class_names, contents.bad)


def _contents(store: Store, size: int, names: list[str], report: Report) -> Contents:
    """Return what images hold, from the cache or from the source; they are then cached."""
    files = names if store.shards is None else store.shards
    states = {file: file_state(store.root / file) for file in files}
    mark = fingerprint(store.root, size, states, () if store.shards is None else names)
    stem = cache_stem(store.home, size)
    if stem is not None and (cached := read_cache(stem, mark)) is not None:
        return cached
    bad = {name: state for name, state in states.items() if isinstance(state, str)}
    contents, may_pass = _decode(store, size, names, bad, report)
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
    store: Store, size: int, paths: list[str], bad: dict[str, str], report: Report
) -> tuple[Contents, bool]:
    """Decode images into memory.

    Args:
        store: Where they lie.
        size: Side in pixels.
        paths: Their names there.
        bad: Those that need not be tried, with the reason; receives those that fail.
        report: Receives progress.

    Returns:
        What they hold; and whether an image failed for a reason that may pass, such as a network's.
    """
    may_pass = False

    def note(path: str, error: Exception) -> None:
        nonlocal may_pass
        bad[path] = reason(error)
        may_pass |= isinstance(error, MemoryError) or getattr(error, "errno", None) not in _LASTING

    with ThreadPoolExecutor() as pool:
        channels = 1
        present = [path for path in paths if path not in bad]
        looks = _each(pool, lambda path: is_grey(store, path), present, report, "looking at images")
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
            lambda path: read_image(store, path, size, channels),
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
