"""Writing files so that a reader sees the old content or the new one, never a part."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomic(
    path: Path,
    write: Callable[[BinaryIO], object],
    *,
    written: Callable[[Path], object] | None = None,
) -> None:
    """Write through a temporary name, fsync, then rename.

    Args:
        path: Final name; its folder must exist.
        write: Receives the open temporary file.
        written: Called with the temporary name once it holds everything, before the renaming.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if written is not None:
            written(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
