"""Images of one's own, wherever they lie: decoded once and memory-mapped, or when they are used."""

import errno
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, TypeVar

import numpy as np

from curricula.types import Ints
from robustdiff.data.ahead import in_order
from robustdiff.data.decode import Pixels, file_state, is_grey, read_image, reason
from robustdiff.data.image_cache import (
    Contents,
    Decode,
    cache_stem,
    few_bytes,
    fingerprint,
    read_cache,
    write_cache,
    write_index,
)
from robustdiff.data.layout import Layout, Listed
from robustdiff.data.store import Store
from robustdiff.data.stored import IN_MEMORY, Reader
from robustdiff.errors import DamagedError
from robustdiff.progress import Report

T = TypeVar("T")

DEFAULT_SIZE = 32
# Numbers of errors that stay until the file changes: Pillow's errors about content have none.
_LASTING = (None, errno.EACCES, errno.EPERM, errno.EINVAL)
# Images that a thread takes at a time, and how many such parts are under way or wait their turn.
_TAKEN, _UNDER_WAY = 16, 16


class Own(NamedTuple):
    """Images of one's own, the training part first.

    Attributes:
        images: (N, C, size, size) uint8, C 1 if all are grey, else 3; memory-mapped, or what
            decodes them.
        listed: The N images.
        digests: N beginnings of the SHA-256 of their bytes, 16 hexadecimal digits each.
        class_names: K names.
        bad: Images that could not be read, with the reason.
    """

    images: Pixels | Reader
    listed: list[Listed]
    digests: tuple[str, ...]
    class_names: tuple[str, ...]
    bad: list[tuple[str, str]]


def read_source(
    layout: Layout, store: Store, size: int, report: Report, *, copy: bool = True
) -> Own:
    """Read the images of a source, from its cache if nothing has changed.

    Args:
        layout: Which images, and what for.
        store: Where they lie.
        size: Side in pixels; images are cropped to a square about their centre and resized.
        report: Receives progress, one line on what is used, and one on each kind of doubt: what is
            left out, images of sub-folders, images that come out dark, no room for the cache.
        copy: Whether the decoded images are kept on disk; if not, they are decoded when used.

    Returns:
        The images that can be read.
    """
    for line in layout.describe(Path(os.path.abspath(store.home)).name or str(store.home)):
        report.message(line)
    names = [entry.path for entry in layout.listed]
    contents = _contents(store, size, names, report, copy=copy)
    if contents.dim:
        report.message(
            f"images that come out dark: {len(contents.dim)} (first: {min(contents.dim)}); their "
            "16-bit values are all below 4096, so they may be of 12 bits and not say so"
        )
    bad = {path for path, _ in contents.bad}
    listed = [entry for entry in layout.listed if entry.path not in bad]
    images: Pixels | Reader | None = contents.images
    if images is None:
        images = _decoder(store, size, contents, [entry.path for entry in listed])
    return Own(images, listed, tuple(contents.digests), layout.class_names, contents.bad)


def _contents(store: Store, size: int, names: list[str], report: Report, *, copy: bool) -> Contents:
    """Return what images hold, from the cache or from the source; it is then cached."""
    files = names if store.shards is None else (*store.shards, *store.beside)
    states = {file: file_state(store.root / file) for file in files}
    held = () if store.shards is None else names
    column = () if store.column is None else (store.column,)
    mark = fingerprint(store.root, size, states, (*held, *column), by_content=few_bytes(states))
    stem = cache_stem(store.home, size)
    if stem is not None and (cached := read_cache(stem, mark, pixels=copy)) is not None:
        return cached
    bad = {}
    if store.shards is None:
        bad = {name: state for name, state in states.items() if isinstance(state, str)}
    decode = partial(_decode, store=store, size=size, paths=names, known=bad, report=report)
    if not copy:
        contents, lasts = decode(None)
        if lasts and stem is not None:
            with suppress(OSError):  # the next start looks at all images again
                write_index(stem, mark, contents)
        return contents
    try:
        if stem is None:
            raise OSError(errno.ENOENT, "this user has no home folder")
        return write_cache(stem, mark, size, decode)
    except OSError as error:
        if len(names) * 3 * size**2 > IN_MEMORY:
            raise OSError(
                f"cannot write {stem or 'a cache'} of the decoded images ({reason(error)}), and "
                "they may be too many for memory; XDG_CACHE_HOME names another folder for it, and "
                "--no-copy decodes them whenever they are used"
            ) from error
        report.message(
            f"the decoded images are not kept, and will be decoded again: cannot write "
            f"{stem or 'a cache'} ({reason(error)}); XDG_CACHE_HOME names another folder for it"
        )
    return _in_memory(decode, size)


def _in_memory(decode: Decode, size: int) -> Contents:
    memory = io.BytesIO()
    contents, _ = decode(memory)
    pixels = np.frombuffer(memory.getbuffer(), dtype=np.uint8)
    return contents._replace(images=pixels.reshape(-1, contents.channels, size, size))


def _decoder(store: Store, size: int, contents: Contents, names: list[str]) -> Reader:
    """Return what decodes images, all of which could be read before."""
    pool = ThreadPoolExecutor()

    def one(row: int) -> Pixels:
        name = names[row]
        try:
            found = read_image(store, name, size, contents.channels)
        except Exception as error:
            raise DamagedError(
                f"cannot read the image {name} of {store.home} any more: {reason(error)}"
            ) from error
        if found.digest != contents.digests[row]:
            raise DamagedError(f"the image {name} of {store.home} has changed since the start")
        return found.pixels

    shape = (contents.channels, size, size)

    def read(rows: Ints) -> Pixels:
        return np.array([*pool.map(one, rows.tolist())], dtype=np.uint8).reshape(-1, *shape)

    return Reader((len(names), *shape), read, decodes=True)


def _decode(
    out: BinaryIO | None,
    *,
    store: Store,
    size: int,
    paths: list[str],
    known: dict[str, str],
    report: Report,
) -> tuple[Contents, bool]:
    """Decode images one after another.

    Args:
        out: Receives their pixels; None where they are not kept.
        store: Where they lie.
        size: Side in pixels.
        paths: Their names there.
        known: Those that need not be tried, with the reason.
        report: Receives progress.

    Returns:
        See `Decode`.
    """
    bad = dict(known)
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
            if out is not None:
                out.write(image.pixels.data)
            digests.append(image.digest)
            dim += [path] * image.is_dim
    failed = [(path, bad[path]) for path in paths if path in bad]
    return Contents(None, channels, digests, failed, dim), not may_pass


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[str], T],
    paths: list[str],
    report: Report,
    task: str,
) -> Iterator[tuple[str, T | Exception]]:
    """Yield each path with the result of the work on it, or its error, in their order."""

    def guarded(path: str) -> tuple[str, T | Exception]:
        try:
            return path, work(path)
        except Exception as error:  # noqa: BLE001 decoders of damaged files fail in many ways
            return path, error

    def some(start: int) -> list[tuple[str, T | Exception]]:
        return [guarded(path) for path in paths[start : start + _TAKEN]]

    results = chain.from_iterable(in_order(pool, some, range(0, len(paths), _TAKEN), _UNDER_WAY))
    for done, result in enumerate(results, start=1):
        report.progress(task, done, len(paths))
        yield result
