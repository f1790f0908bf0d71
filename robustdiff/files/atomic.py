"""Atomic writing: a reader sees the old content of a file or the new one, never a part."""

import errno
import glob
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def write_atomic(
    path: Path,
    write: Callable[[BinaryIO], object],
    *,
    written: Callable[[Path], object] | None = None,
) -> None:
    """Write through a temporary name, fsync, then rename and fsync the folder.

    Args:
        path: Final name; its folder must exist.
        write: Receives the open temporary file.
        written: Called with the temporary name once it holds everything, before the renaming.

    Raises:
        OSError: If it cannot be written, naming the file; the old content is unchanged then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with named(path), temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if written is not None:
            written(temporary)
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: Path) -> None:
    """Refuse a path at which there is no folder and none can be made, before any work.

    Raises:
        ValueError: Naming what is in the way.
    """
    place = path
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        so = "" if place == path else f", so {path} cannot be one"
        raise ValueError(f"{place} is no folder{so}; choose another place")


def check_file(path: Path) -> None:
    """Refuse a path at which no file can be written, before any work.

    Raises:
        ValueError: Naming what is in the way.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder, and a file is to be written; name a file")
    check_folder(path.parent)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder beside its place and rename it at the end, so that it is whole or absent.

    Args:
        target: The folder; the one that it lies in is made if missing.

    Yields:
        The folder under its temporary name; it is removed if the block fails.

    Raises:
        ValueError: If the target is there at the end.
        OSError: If it cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        building.mkdir()
        yield building
        if os.path.lexists(target):
            raise ValueError(f"{target} already exists; choose another folder")
        _sync_tree(building)
        building.rename(target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(building, ignore_errors=True)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Add the file's name to write errors that name no file, such as those of a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def _sync_tree(folder: Path) -> None:
    """Write a folder to disk, with all folders and files in it."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _sync_folder(path)
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    """Write a folder's entries to disk; before that a power failure may undo a renaming."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows opens no folders; NTFS has a journal of its own
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (
            errno.EINVAL,
            errno.ENOTSUP,
        ):  # file systems that cannot sync folders
            raise
    finally:
        os.close(handle)


def append_line(path: Path, line: str) -> None:
    """Append to a text file, made if missing; a process killed meanwhile may leave half a line.

    Raises:
        OSError: If it cannot be written, naming the file.
    """
    with named(path), path.open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")


def forget_temporaries(folder: Path, name: str) -> None:
    """Remove the temporary files of killed writers; no process may be writing these files.

    Args:
        folder: Of the files; may be missing.
        name: Their name, or the beginning of one followed by "*".
    """
    pattern = glob.escape(name.removesuffix("*")) + ("*" if name.endswith("*") else "")
    for path in folder.glob(f".{pattern}.*.tmp"):
        path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; names of files that are not UTF-8 get their own bytes."""
    write_atomic(path, lambda file: file.write(text.encode(errors="surrogateescape")))


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
