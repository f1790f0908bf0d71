"""Where every image of a folder belongs: the path that it gets under its corrected label."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from robustdiff.data.arrays import Images


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
    new path is the path of another image, before or after. Held-out images keep their places.

    Args:
        images: A folder of images.
        labels: (N,) int64, corrected labels of the training part.
        removed: (N,) bool, which of these images are to be left out.

    Returns:
        A place for every image, the held-out ones last; the folders of all classes.
    """
    assert images.paths is not None
    held = images.test_paths or ()
    names = images.class_names
    old_labels = [*images.train_labels.tolist(), *images.test_labels.tolist()]
    depth = _depth([*images.paths, *held], [names[label] for label in old_labels])
    wanted = [*labels.tolist(), *images.test_labels.tolist()]
    left_out = [*removed.tolist(), *[False] * len(held)]
    taken = {*images.paths, *held}
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
            free = _free(moved, words[depth], taken)
            taken.add(free)
            found.append(Place(path, free))
    folders = [f"{part}/{name}" if part else name for part in sorted(parts) for name in names]
    return found, folders


def _depth(paths: Sequence[str], classes: Sequence[str]) -> int:
    """Return which word of the paths is the class's folder: the first, or that below a part."""
    words = [path.split("/") for path in paths]
    first = all(some[0] == name for some, name in zip(words, classes, strict=True))
    return 0 if first else 1


def _free(path: str, origin: str, taken: set[str]) -> str:
    if path not in taken:
        return path
    one = PurePosixPath(path)
    stem = path.removesuffix(one.suffix)
    number = 1
    while (tried := f"{stem}-from-{origin}{f'-{number}' * (number > 1)}{one.suffix}") in taken:
        number += 1
    return tried
