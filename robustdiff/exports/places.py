"""Where every image of a folder belongs: the path that it gets under its corrected label."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from robustdiff.data.arrays import Images
from robustdiff.data.parts import part_names


class Place(NamedTuple):
    """One image of a folder.

    Attributes:
        old: Its path, relative to the folder.
        new: Its path under its corrected label; None if it was removed.
    """

    old: str
    new: str | None


def places(
    images: Images, labels: NDArray[np.int64], removed: NDArray[np.bool_]
) -> tuple[list[Place], list[str]]:
    """Find the new path of every image.

    Only the class's folder changes: parts such as train/, sub-folders of classes and names stay.
    A name that is taken there gets "-from-" and the old class, and a number if need be, so that no
    new path is the path of another image, before or after, on disks that tell upper case from lower
    case and on others. Held-out images keep their places.

    Args:
        images: A folder of images.
        labels: (N,) int64, corrected labels of the training part.
        removed: (N,) bool, which of these images are to be left out.

    Returns:
        A place for every image, the held-out ones last; the folders, in every part, of the classes
        that have an image left: every command refuses a class without images.
    """
    assert images.paths is not None
    held = images.test_paths or ()
    names = images.class_names
    old_labels = [*images.train_labels.tolist(), *images.test_labels.tolist()]
    depth = _depth([*images.paths, *held], [names[label] for label in old_labels])
    wanted = [*labels.tolist(), *images.test_labels.tolist()]
    left_out = [*removed.tolist(), *[False] * len(held)]
    taken = {path.casefold() for path in (*images.paths, *held)}
    found, parts = [], set()
    for path, label, is_removed in zip([*images.paths, *held], wanted, left_out, strict=True):
        words = path.split("/")
        parts.add("/".join(words[:depth]))
        if is_removed:
            found.append(Place(path, None))
        elif words[depth] == names[label]:
            found.append(Place(path, path))
        else:
            moved = "/".join([*words[:depth], names[label], *words[depth + 1 :]])
            found.append(Place(path, _free(moved, words[depth], taken)))
    bases = [f"{part}/" if part else "" for part in sorted(parts)]
    return found, _folders(bases, images, labels, removed)


def places_by_class(
    images: Images, labels: NDArray[np.int64], removed: NDArray[np.bool_]
) -> tuple[list[Place], list[str]]:
    """Find a path for every image of a source that has no class folders.

    It is the class's folder and the image's name, below train/ and test/ where images are held out.
    Folders of the name that are called as classes or as parts of a split are left out, or they
    would be taken for such there.

    Args:
        images: Images with names and a store.
        labels: See `places`.
        removed: See `places`.

    Returns:
        What `places` returns.

    Raises:
        ValueError: If a class's name cannot be that of a folder.
    """
    names, held = images.class_names, images.test_paths or ()
    if odd := [name for name in names if not name or name[0] == "." or "/" in name]:
        raise ValueError(
            f"no folder can have the name of class {odd[0]!r}; corrected labels of such classes "
            "leave as .npz or .csv"
        )
    parts = ["train/", "test/"] if held else [""]
    folders = {word for path in (*(images.paths or ()), *held) for word in _words(path)[:-1]}
    said = {*names, "train", "test", *part_names(sorted(folders))}
    found: list[Place] = []
    taken: set[str] = set()
    for path, label, is_removed in zip(images.paths or (), labels, removed, strict=True):
        below = None if is_removed else _below(f"{parts[0]}{names[label]}", path, said, images)
        found.append(Place(path, None if below is None else _free(below, "another", taken)))
    for path, label in zip(held, images.test_labels.tolist(), strict=True):
        below = _below(f"test/{names[label]}", path, said, images)
        found.append(Place(path, _free(below, "another", taken)))
    return found, _folders(parts, images, labels, removed)


def _folders(
    parts: Sequence[str], images: Images, labels: NDArray[np.int64], removed: NDArray[np.bool_]
) -> list[str]:
    left = {*np.asarray(labels)[~removed].tolist(), *images.test_labels.tolist()}
    names = [name for number, name in enumerate(images.class_names) if number in left]
    return [f"{part}{name}" for part in parts for name in names]


def _below(folder: str, name: str, said: set[str], images: Images) -> str:
    """Return a path for an image in a folder, without the words that are said above it."""
    words = [word for word in _words(name) if word not in said] or ["image"]
    if Path(words[-1]).suffix.lower() not in Image.registered_extensions():
        assert images.store is not None
        with images.store.open(name) as file, Image.open(file) as opened:
            words[-1] += f".{str(opened.format).lower()}"
    return "/".join([folder, *words])


def _words(name: str) -> list[str]:
    """Return the folders and the file of a name without dots before them, which would hide them."""
    return [plain for word in name.split("/") if (plain := word.lstrip("."))]


def _depth(paths: Sequence[str], classes: Sequence[str]) -> int:
    """Return which word of the paths is the class's folder: the first, or that below a part."""
    words = [path.split("/") for path in paths]
    first = all(some[0] == name for some, name in zip(words, classes, strict=True))
    return 0 if first else 1


def _free(path: str, origin: str, taken: set[str]) -> str:
    """Return a path that no other has, in any case, and take it: `taken` is casefolded."""
    suffix = PurePosixPath(path).suffix
    stem, number, tried = path.removesuffix(suffix), 0, path
    while tried.casefold() in taken:
        number += 1
        tried = f"{stem}-from-{origin}{f'-{number}' * (number > 1)}{suffix}"
    taken.add(tried.casefold())
    return tried
