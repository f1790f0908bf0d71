"""Where the images of a source lie: files of their own, or files that hold many."""

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple


class Store(NamedTuple):
    """Where the bytes of images lie.

    Attributes:
        home: The folder or file that the source is.
        root: The folder that names of files are relative to.
        open: From the name of an image to its bytes; raises OSError where there are none.
        shards: Files that hold the images, relative to `root`; None where each image is a file.
        beside: Files of single images that the shards only name, relative to `root`.
        column: Where the images lie within the shards, if these have several such places.
    """

    home: Path
    root: Path
    open: Callable[[str], BinaryIO]
    shards: tuple[str, ...] | None = None
    beside: tuple[str, ...] = ()
    column: str | None = None

    def holds(self, name: str) -> bool:
        """Return whether an image is still there."""
        return self.shards is not None or (self.root / name).is_file()


def files_under(root: Path, home: Path | None = None) -> Store:
    """Return the store of images that are files, named by their paths relative to a folder."""
    return Store(home or root, root, lambda name: (root / name).open("rb"))


def files_at(home: Path, suffix: str) -> tuple[Path, list[str]]:
    """Find files that hold many images.

    Args:
        home: One such file, or a folder of them.
        suffix: Of those in a folder, such as ".tar".

    Returns:
        The folder that they are relative to, and their paths in order; none where there are none.
    """
    root = home.parent if home.is_file() else home
    found = [home] if home.is_file() else sorted(home.rglob(f"*{suffix}"))
    return root, [path.relative_to(root).as_posix() for path in found]
