"""Which sub-folders or words are the parts of a split, such as train and test."""

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

_SHOWN = 5
_TRAIN = ("train", "training", "trn", "trainval")
# Of several held-out parts the first in this order is taken.
_TEST = (
    *("test", "testing", "tst", "val", "valid", "validation", "eval", "evaluation"),
    *("dev", "development", "holdout"),
)
_WORD = re.compile(f"({'|'.join((*_TRAIN, *_TEST))})(?:set|data)?")
_BESIDE = {"set", "data", "dataset", "images", "imgs", "image", "img", "split", "part", "samples"}


class Content(NamedTuple):
    """What a sub-folder holds.

    Attributes:
        has_images: Whether images lie directly in it.
        groups: Names of its sub-folders that hold images.
    """

    has_images: bool
    groups: frozenset[str]


def part_names(names: list[str]) -> dict[str, str]:
    """Return which names are those of parts, each with its word in `_TRAIN` or `_TEST`.

    A name counts if it has exactly one such word, in any case, and besides it digits, marks and
    words such as "set" only, or the same words as another name with a word of the other kind:
    "Training_Set", "VAL", "photos-train" beside "photos-test"; not "bullet train".
    """
    found = {}
    for name in names:
        text = re.sub(r"(?i)(hold|held)[\W_]*out", "holdout", name)
        words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)]
        matches = [match[1] if (match := _WORD.fullmatch(word)) else None for word in words]
        rest = tuple(word for word, match in zip(words, matches, strict=True) if match is None)
        if len(rest) == len(words) - 1:
            found[name] = next(match for match in matches if match), rest
    kinds = {(word in _TRAIN, rest) for word, rest in found.values()}
    return {
        name: word
        for name, (word, rest) in found.items()
        if _BESIDE.issuperset(rest) or (word not in _TRAIN, rest) in kinds
    }


def held_out_names(names: list[str]) -> list[str]:
    """Return which names are those of held-out parts; see `part_names`."""
    return [name for name, word in part_names(names).items() if word in _TEST]


def find_parts(root: Path, contents: dict[str, Content]) -> list[str]:
    """Decide which sub-folders are parts, where only one reading is possible.

    Args:
        root: The folder, for messages.
        contents: What each of its sub-folders holds; those without images decide nothing.

    Returns:
        The training part, then the held-out part if there is one; nothing if every sub-folder is
        a class.

    Raises:
        ValueError: If the sub-folders can be read in more ways than one, naming them.
    """
    holding = {name: content for name, content in contents.items() if any(content)}
    words = part_names(list(holding))
    train = [name for name in holding if words.get(name) in _TRAIN]
    held = sorted((n for n in words if n not in train), key=lambda name: _TEST.index(words[name]))
    others = {name: content for name, content in holding.items() if name not in words}
    if not words:
        return []
    groups = holding[train[0]].groups if len(train) == 1 else frozenset()
    if groups:
        # With nothing beside it, `train` cannot be a class: there would be no second one.
        if not held and not others:
            return train
        # A held-out part needs class folders; one of unlabelled images cannot serve.
        test = next((name for name in held if holding[name].groups), None)
        # Alone, `train` and `test` would be the only classes; beside others, class folders of the
        # same names in both show a split. Then `others` are left out: classes lie in the parts.
        alike = test is not None and len(groups) > 1 and groups == holding[test].groups
        if test and (alike or not others):
            return [train[0], test]
    # Without class folders in it, `train` cannot be a part. Beside folders that hold images
    # themselves it is a class like them: a vehicle, as in CIFAR-100. "test" has no such meaning:
    # beside classes it may as well hold images that nobody has labelled.
    elif len(train) == 1 and not held and others and all(c.has_images for c in others.values()):
        return []
    raise _uncertain(root, holding, [*train, *held, *others])


def split_words(paths: Sequence[str]) -> list[str] | None:
    """Return the part that each path lies in, by its first folder below all that they share.

    Args:
        paths: Of images, or of shards without their numbers, "/" between folders.

    Returns:
        A word for each, such as "train"; None where the folders are no parts, or nothing is.
    """
    if not paths:
        return None
    words = [path.split("/") for path in paths]
    # The least and the greatest share what all share.
    ends = min(parts[:-1] for parts in words), max(parts[:-1] for parts in words)
    shared = sum(takewhile(bool, (one == other for one, other in zip(*ends, strict=False))))
    first = [parts[shared] for parts in words]
    distinct = list(dict.fromkeys(first))
    found = part_names(distinct)
    kinds = {word in _TRAIN for word in found.values()}
    return first if len(found) == len(distinct) and True in kinds else None


def chosen_parts(names: Sequence[str], where: str) -> tuple[str, str | None]:
    """Return which of the splits of a source is trained on, and which is held out, if any.

    Raises:
        ValueError: If that is not certain, naming them.
    """
    words = part_names(list(names))
    train = [name for name in names if words.get(name) in _TRAIN]
    held = sorted((n for n in words if n not in train), key=lambda name: _TEST.index(words[name]))
    if len(train) != 1 or len(words) < len(names):
        shown = ", ".join(map(repr, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
        raise ValueError(
            f"{where} needs one split to train on, called train, and may have others to hold out, "
            f"called test or val, got {shown or 'none'}; --split none takes all rows together"
        )
    return train[0], held[0] if held else None


def _uncertain(root: Path, holding: dict[str, Content], names: list[str]) -> ValueError:
    found = ", ".join(f"{name}/ ({_described(holding[name])})" for name in names[:_SHOWN])
    return ValueError(
        f"{root} holds {found}{', ...' if len(names) > _SHOWN else ''}, and it is not certain "
        "which are parts of a split and which are classes: a split is one train/ and one test/ "
        "with the same class folders; --split none takes every sub-folder as a class; --data-dir "
        "may point at a sub-folder"
    )


def _described(content: Content) -> str:
    count = len(content.groups)
    groups = f"{count} folder{'s' if count > 1 else ''} of images"
    return " and ".join(["images"] * content.has_images + [groups] * (count > 0))
