"""What lies in a folder of images: image files, sub-folders, and what is left out, with reasons."""

import os
import stat
from collections import defaultdict
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# What systems and tools leave behind without a leading dot, casefolded.
_TOOLS = {
    *("__macosx", "__pycache__", "@eadir", "#recycle", "@recycle", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
# Formats of images that Pillow cannot read, or not in every installation.
_NO_READER = {
    *(".heic", ".heif", ".hif", ".avif", ".avifs", ".webp", ".jp2", ".jxl", ".svg", ".exr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
}
# What a run's folder holds before config.json, which is written last.
_BEGUN_RUN = frozenset((".lock", "samples", "tb", "labels.npz"))
_OF_RUN = "of a run"
# Where runs and audits lie, unless another place is named.
_OWN = ("runs", "audits")
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")


class LeftOut(NamedTuple):
    """A file or folder that is not used.

    Attributes:
        path: Relative to the folder of images; of a folder, all that it holds is left out.
        noun: What it is, in the singular: "image", "hidden folder".
        why: What follows the noun, if it needs saying: "in no class folder".
    """

    path: str
    noun: str
    why: str = ""


def summary(left_out: list[LeftOut]) -> str:
    """Count what is left out by reason: "2 hidden folders (first: a/.b), 1 link to nothing (c)"."""
    paths: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path, noun, why in left_out:
        paths[noun, why].append(path)
    return ", ".join(
        f"{len(those)} {noun}{'s' if len(those) > 1 else ''}{f' {why}' if why else ''} "
        f"({'first: ' if len(those) > 1 else ''}{those[0]})"
        for (noun, why), those in paths.items()
    )


def entries(
    root: Path, where: str, left_out: list[LeftOut], *, holds_classes: bool = False
) -> tuple[list[str], list[str]]:
    """List a folder's image files and sub-folders, by name.

    Args:
        root: The folder of images.
        where: The folder to list, relative to it; "" for itself.
        left_out: Receives everything else.
        holds_classes: Whether the sub-folders may be classes or parts: then links to folders are
            followed, unless they lead back up, and any name will do. Below a class links to folders
            are left out, so that no file is met twice and no walk is endless, and a folder named
            like an image counts as one, which nobody can read.

    Returns:
        Paths of image files, and of folders, relative to `root`; none of the folder of a run, whose
        images are samples.

    Raises:
        OSError: If the folder cannot be listed, naming it.
    """
    images, folders = [], []
    known = Image.registered_extensions()
    with os.scandir(root / where) as found:
        listed = sorted(found, key=lambda entry: entry.name)
    if where and _of_run({entry.name for entry in listed}):
        left_out.append(LeftOut(where, "folder", _OF_RUN))
        return [], []
    for entry in listed:
        path = f"{where}/{entry.name}" if where else entry.name
        is_folder, suffix = _is_folder(entry), Path(entry.name).suffix.lower()
        is_link = is_folder and entry.is_symlink()
        follows = holds_classes and not (is_link and _leads_up(Path(entry.path)))
        if odd := _by_name(entry.name, is_folder):
            left_out.append(LeftOut(path, odd))
        elif is_folder and (follows or not (is_link or suffix in known)):
            folders.append(path)
        elif suffix in known and not is_link:
            images.append(path)
        else:
            left_out.append(LeftOut(path, *_other(entry, suffix)))
    return images, folders


def image_files(root: Path, folder: str, left_out: list[LeftOut]) -> Iterator[str]:
    """Yield the image files of a class, at any depth: those of a folder before its sub-folders'.

    Args:
        root: The folder of images.
        folder: The class's folder, relative to it.
        left_out: Receives everything else.
    """
    pending = [folder]
    while pending:
        images, folders = entries(root, pending.pop(), left_out)
        yield from images
        pending += reversed(folders)


def holds_only_runs(root: Path, folder: str) -> bool:
    """Return whether a folder is a run or an audit, or holds such and no image beside them.

    Of a folder that is called as robustdiff calls its own, images below others, such as figures of
    comparisons, do not count.

    Args:
        root: The folder of images.
        folder: The folder, relative to it.

    Raises:
        OSError: If it cannot be listed.
    """
    names, known = {*os.listdir(root / folder)}, Image.registered_extensions()
    if _of_run(names):
        return True
    # Most classes show it by their first image, and need not be listed twice.
    if any(Path(name).suffix.lower() in known and not name.startswith(".") for name in names):
        return False
    left_out: list[LeftOut] = []
    images = image_files(root, folder, left_out)
    if folder in _OWN:
        list(images)  # all are looked at, and none counts
    elif any(images):
        return False
    return any(one.why == _OF_RUN for one in left_out)


def is_begun(names: Set[str]) -> bool:
    """Return whether these are the entries of a run's folder before it has a configuration."""
    known = all(name in _BEGUN_RUN or name.endswith(".tmp") for name in names)
    return known and ".lock" in names


def _of_run(names: Set[str]) -> bool:
    """Return whether these are the entries of a run, begun or whole, or of a published model."""
    whole = {"config.json", "labels.npz"} <= names or "robustdiff.json" in names
    return whole or is_begun(names)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # of a link to itself
        return False


def _leads_up(link: Path) -> bool:
    """Return whether a link leads to a folder that it lies in."""
    return link.parent.resolve().is_relative_to(link.resolve())


def _by_name(name: str, is_folder: bool) -> str | None:
    kind = "folder" if is_folder else "file"
    if name.startswith("."):
        return f"hidden {kind}"
    return f"tool {kind}" if name.casefold() in _TOOLS else None


def _other(entry: os.DirEntry[str], suffix: str) -> tuple[str, str]:
    """Return the noun and reason of an entry that is neither a folder to list nor an image."""
    if _is_folder(entry):
        return "link", "to a folder"
    try:
        is_file = stat.S_ISREG(entry.stat().st_mode)
    except OSError:
        return "link", "to nothing"
    if suffix in _NO_READER:
        return f"{suffix} file", "that nothing installed reads"
    if is_file and _looks_like_an_image(Path(entry.path)):
        return "image", "without an image's extension"
    return "file", "of another kind"


def _looks_like_an_image(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    webp = head[:4] == b"RIFF" and head[8:] == b"WEBP"
    bmp = head[:2] == b"BM" and head[6:10] == bytes(4)
    return head.startswith(_MAGIC) or webp or bmp
