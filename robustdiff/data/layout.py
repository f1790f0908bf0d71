"""How images of one's own are used: their classes, which are trained on, which held out.

DIR/<class>/*.png, or DIR/train/<class>/* and DIR/test/<class>/* under any usual names. Without a
test part, a fifth of every class is held out: the files whose names have the smallest digests, so
that adding files moves few others, and the split does not depend on the seed of a run.
"""

import hashlib
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from robustdiff.config.names import SplitName
from robustdiff.data.listing import LeftOut, entries, holds_only_runs, image_files, summary
from robustdiff.data.parts import Content, find_parts, held_out_names, part_names

BY_NAME = "a fifth of every class, by file name"
_HELD_OUT = 0.2
_LEAST = 5
_SHOWN = 5


class Listed(NamedTuple):
    """One image.

    Attributes:
        path: Its name: the path of its file, relative to the folder, where it is one.
        label: Class number.
        is_test: Whether it is held out.
    """

    path: str
    label: int
    is_test: bool


class Layout(NamedTuple):
    """Images of one's own as they are used.

    Attributes:
        class_names: K names; of a folder sorted.
        listed: The images, the training part first.
        held_out: Where the held-out part comes from: "test/", or how it is drawn; "" where there is
            none.
        nested: Those of the images that lie in sub-folders of their class's folder.
        left_out: Everything else.
        notes: What was chosen on the way, one line each.
    """

    class_names: tuple[str, ...]
    listed: list[Listed]
    held_out: str
    nested: list[str]
    left_out: list[LeftOut]
    notes: tuple[str, ...] = ()

    def describe(self, name: str) -> list[str]:
        """Return what a person must know, one line each: what is used, then what else there is."""
        held = sum(entry.is_test for entry in self.listed)
        more = len(self.class_names) > _SHOWN
        shown = [*self.class_names[:_SHOWN], *["..."] * more]
        used = f"{len(self.listed)} images"
        if self.held_out:
            used = (
                f"{len(self.listed) - held} images to train on, {held} held out ({self.held_out})"
            )
        lines = [f"{name}: {len(self.class_names)} classes ({', '.join(shown)}), {used}"]
        lines += self.notes
        if self.nested:
            lines.append(
                f"images in sub-folders of their class: {len(self.nested)} (first: "
                f"{self.nested[0]})"
            )
        if self.left_out:
            lines.append(f"left out: {summary(self.left_out)}")
        return lines


def list_folder(root: Path, split: SplitName = "auto", *, whole: bool = False) -> Layout:
    """List a folder's classes and image files.

    Args:
        root: The folder.
        split: "auto" takes sub-folders such as train and test as parts where that is certain, see
            `find_parts`; "none" takes every sub-folder as a class.
        whole: Whether the training part is all of the folder, so that nothing is held out.

    Raises:
        ValueError: If there is no such folder, its parts are not certain or differ in their
            classes, it has fewer than two classes, a class has too few images to hold some out, or
            two classes or parts are the same folder.
        OSError: If a folder in it cannot be listed.
    """
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    left_out: list[LeftOut] = []
    names = _class_folders(root, "", left_out)
    parts = _parts(root, names, left_out) if split == "auto" else []
    bases = [f"{part}/" for part in parts] or [""]
    if parts:
        names = _class_folders(root, parts[0], left_out)
    if len(names) < 2:
        raise ValueError(
            f"{root / bases[0]} must hold one folder of images per class, at least 2, "
            f"got {len(names)}{f' ({names[0]})' if names else ''}{_besides(left_out)}"
        )
    for part in parts[1:]:
        _check_classes(root, parts[0], names, part, _class_folders(root, part, left_out))
    _check_links(root, [f"{base}{name}" for base in bases for name in names])
    listed = [
        Listed(path, label, is_test=base in bases[1:] and not whole)
        for base in bases
        for label, name in enumerate(names)
        for path in image_files(root, f"{base}{name}", left_out)
    ]
    nested = [entry.path for entry in listed if entry.path.count("/") > 1 + bool(parts)]
    if split == "auto":
        _check_nested(root, nested, 1 + bool(parts))
    if whole:
        return Layout(tuple(names), listed, "", nested, left_out)
    if len(bases) > 1:
        return Layout(tuple(names), listed, bases[1], nested, left_out)
    divided = hold_out(listed, names, left_out)
    return Layout(tuple(names), divided, BY_NAME, nested, left_out)


def _class_folders(root: Path, where: str, left_out: list[LeftOut]) -> list[str]:
    images, folders = entries(root, where, left_out, holds_classes=True)
    left_out += [LeftOut(path, "image", "in no class folder") for path in images]
    of_runs = [path for path in folders if holds_only_runs(root, path)]
    left_out += [LeftOut(path, "folder", "of runs") for path in of_runs]
    return [Path(path).name for path in folders if path not in of_runs]


def _parts(root: Path, names: list[str], left_out: list[LeftOut]) -> list[str]:
    """Return the parts among sub-folders, see `find_parts`; all else is then left out."""
    if not part_names(names):
        return []
    parts = find_parts(root, {name: _content(root, name) for name in names})
    for name in names if parts else []:
        if name not in parts:
            unused = list(image_files(root, name, left_out))
            left_out += [LeftOut(path, "image", f"in {name}/") for path in unused]
    return parts


def _content(root: Path, name: str) -> Content:
    unsaid: list[LeftOut] = []
    images, folders = entries(root, name, unsaid, holds_classes=True)
    holding = [path for path in folders if any(image_files(root, path, unsaid))]
    return Content(bool(images), frozenset(Path(path).name for path in holding))


def _check_classes(
    root: Path, train: str, of_train: list[str], test: str, of_test: list[str]
) -> None:
    """Refuse parts that do not have the same class folders."""
    for one, other, missing in (
        (test, train, set(of_test) - set(of_train)),
        (train, test, set(of_train) - set(of_test)),
    ):
        if missing:
            raise ValueError(
                f"{root / one} has a class {min(missing)!r} that {root / other} has not; both "
                "parts of a split need the same class folders (--split none takes every "
                "sub-folder as a class)"
            )


def _check_nested(root: Path, nested: list[str], depth: int) -> None:
    """Refuse folders called test within a class, whose images would be trained on."""
    inner = {name: path for path in nested for name in path.split("/")[depth:-1]}
    if held := held_out_names(sorted(inner)):
        raise ValueError(
            f"{root} has a folder {held[0]!r} within a class, as in {inner[held[0]]}: a split has "
            "its parts above the class folders (train/ant, test/ant); --split none takes every "
            "sub-folder of a class as part of that class"
        )


def _check_links(root: Path, folders: list[str]) -> None:
    """Refuse links by which an image would have two classes, or be trained on and held out."""
    places = sorted(((root / folder).resolve().parts, folder) for folder in folders)
    for (first, one), (second, other) in pairwise(places):
        if second[: len(first)] == first:
            raise ValueError(
                f"{root / one} and {root / other} hold the same files, because of a link: an image "
                "must have one class, and be either trained on or held out"
            )


def hold_out(
    listed: list[Listed], class_names: Sequence[str], left_out: list[LeftOut]
) -> list[Listed]:
    """Hold out the images of each class whose paths have the smallest digests.

    Args:
        listed: The images, in the order that both parts keep.
        class_names: K names.
        left_out: What else there is, for messages.

    Returns:
        The training part, then the held-out part.

    Raises:
        ValueError: If a class has too few images.
    """
    held: set[Listed] = set()
    of_class: list[list[Listed]] = [[] for _ in class_names]
    for entry in listed:
        of_class[entry.label].append(entry)
    for name, members in zip(class_names, of_class, strict=True):
        if len(members) < _LEAST:
            raise ValueError(
                f"every class needs at least {_LEAST} images, some to train on and some to hold "
                f"out, but {name!r} has {len(members)}{_besides(left_out)}"
            )
        by_digest = sorted(members, key=lambda e: hashlib.sha256(os.fsencode(e.path)).digest())
        count = max(2, round(_HELD_OUT * len(members)))
        held.update(by_digest[:count])
    train = [entry for entry in listed if entry not in held]
    return train + [entry._replace(is_test=True) for entry in listed if entry in held]


def _besides(left_out: list[LeftOut]) -> str:
    return f" (left out: {summary(left_out)})" if left_out else ""
