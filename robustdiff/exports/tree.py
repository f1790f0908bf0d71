"""A new folder of images, sorted by corrected labels; the original one is not touched."""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from robustdiff.data.store import Store
from robustdiff.exports.places import Place
from robustdiff.files.atomic import new_folder
from robustdiff.progress import Progress, silent


def _hard(old: Path, new: Path) -> None:
    # Of a link, what it leads to: a hard link to a link would be another name of the link.
    os.link(old.resolve(), new)


def _soft(old: Path, new: Path) -> None:
    new.symlink_to(old.resolve())


def _copy(old: Path, new: Path) -> None:
    shutil.copy2(old, new)


LINKS: dict[str, Callable[[Path, Path], None]] = {"hard": _hard, "soft": _soft, "copy": _copy}
# Errors of file systems, and of Windows' accounts, that do not have such links.
_NO_LINK = {
    "hard": (errno.EXDEV, errno.EPERM, errno.EMLINK),
    "soft": (errno.EPERM, errno.EINVAL, errno.ENOTSUP),
}


def write_tree(
    store: Store,
    target: Path,
    places: Sequence[Place],
    folders: Sequence[str],
    link: str,
    progress: Progress = silent,
) -> int:
    """Make a folder of images of those of another one.

    It is made beside its place and renamed at the end, so that it is whole or absent.

    Args:
        store: Where the images lie.
        target: The folder to make.
        places: See `robustdiff.exports.places.places`.
        folders: Those of the classes, see there; some may hold no image.
        link: Key of `LINKS`: how the new folder gets the files.
        progress: Called with (images done, images in all).

    Returns:
        How many images it holds.

    Raises:
        ValueError: If the target exists, lies within the images' folder or holds it, or links
            cannot reach it.
        OSError: If it cannot be written.
    """
    root = store.root
    check_target(root, target)
    if store.shards is not None and link != "copy":
        raise without_files(store.home)
    with new_folder(target) as building:
        for folder in folders:
            (building / folder).mkdir(parents=True)
        kept = [place for place in places if place.new is not None]
        for done, (old, new) in enumerate(kept, start=1):
            assert new is not None
            (building / new).parent.mkdir(parents=True, exist_ok=True)
            try:
                if store.shards is None:
                    LINKS[link](root / old, building / new)
                else:
                    with store.open(old) as file:
                        (building / new).write_bytes(file.read())
            except OSError as error:
                if error.errno in _NO_LINK.get(link, ()):
                    others = " or ".join(f"--link {name}" for name in LINKS if name != link)
                    raise ValueError(
                        f"{link} links do not reach from {root} to {target.parent} "
                        f"({error.strerror}); use {others}"
                    ) from error
                raise
            progress(done, len(kept))
    return len(kept)


def without_files(home: Path) -> ValueError:
    """Return the error of links to images that are no files of their own."""
    return ValueError(
        f"the images of {home} are no files of their own, so nothing can link to them; "
        "use --link copy"
    )


def check_target(root: Path, target: Path) -> None:
    """Refuse a target that exists, or that would change the folder.

    Raises:
        ValueError: Saying why.
    """
    if os.path.lexists(target):
        raise ValueError(f"{target} already exists; choose another folder")
    source, place = root.resolve(), target.resolve()
    if place.is_relative_to(source) or source.is_relative_to(place):
        raise ValueError(f"{target} lies within {root}, or holds it; choose another folder")
