"""Images moved between the class folders of their own folder, by a journal that takes it all back.

The journal names all moves and is on disk before the first one. Every new path is free before and
named by one move, so each move is done or not, whatever became of the others: a killed process
leaves nothing that the journal does not explain, and it can be finished or undone from any point.
"""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from robustdiff.exports.places import Place
from robustdiff.files.atomic import write_text
from robustdiff.progress import Progress, silent

# Where removed images go, within their folder; hidden folders hold no images of a dataset.
REMOVED = ".robustdiff-removed"
_FORMAT = "robustdiff-moves-1"
_INSTEAD = "nothing was moved; a new folder is made by --to NEWFOLDER --link copy"
_MOST_LINKS = 40  # in a row, as Linux follows them
_RENAMING_NEVER_REPLACES = os.name == "nt"


class Journal(NamedTuple):
    """Moves of files.

    Attributes:
        root: The folder of images.
        moves: Old and new paths, relative to it.
        made: Folders that the moves make, relative to it, those that hold others first.
    """

    root: Path
    moves: tuple[tuple[str, str], ...]
    made: tuple[str, ...]


def plan_moves(root: Path, places: Sequence[Place]) -> Journal:
    """Return the moves that bring images to their new places, and removed ones out of the way.

    Args:
        root: The folder of images.
        places: See `robustdiff.exports.places.places`.

    Raises:
        ValueError: If something lies at a new path, or an image cannot be moved there: it would go
            to another file system, or a link would lead elsewhere.
    """
    root = root.resolve()
    moves = [(old, f"{REMOVED}/{old}" if new is None else new) for old, new in places if new != old]
    taken = [new for _, new in moves if os.path.lexists(root / new)]
    if taken:
        raise ValueError(f"{root} already has {len(taken)} of the new files, the first {taken[0]}")
    _check_disks(root, moves)
    _check_links(root, places, moves)
    made: dict[str, None] = {}
    for _, new in moves:
        for folder in [str(parent) for parent in Path(new).parents][-2::-1]:
            if not (root / folder).is_dir():
                made[folder] = None
    return Journal(root, tuple(moves), tuple(made))


def _check_disks(root: Path, moves: Sequence[tuple[str, str]]) -> None:
    """Refuse moves between class folders that lie on two file systems, because one is a link."""
    disks: dict[Path, int] = {}
    for old, new in moves:
        for path in (old, new):
            if (folder := (root / path).parent) not in disks:
                there = next(one for one in (folder, *folder.parents) if one.exists())
                disks[folder] = there.stat().st_dev
        if disks[(root / old).parent] != disks[(root / new).parent]:
            raise ValueError(
                f"{root / old} cannot be moved to {new}, which lies on another file system; "
                f"{_INSTEAD}"
            )


def _check_links(root: Path, places: Sequence[Place], moves: Sequence[tuple[str, str]]) -> None:
    """Refuse moves after which an image that is a link would lead elsewhere, or to nothing."""
    new_paths, moved = dict(moves), {_place(root / old) for old, _ in moves}
    for old, _ in places:
        link, new = root / old, new_paths.get(old, old)
        if not link.is_symlink():
            continue
        after = os.path.realpath(_place(root / new).parent / os.readlink(link))
        if after != os.path.realpath(link) or moved.intersection(_led_to(link)):
            raise ValueError(
                f"{link} is a link to {os.readlink(link)!r}, and would lead elsewhere once "
                f"{'that' if new == old else 'it'} is moved; {_INSTEAD}"
            )


def _led_to(link: Path) -> list[Path]:
    """Return where what a link leads to lies; if that is a link, where it leads to, and so on."""
    found: list[Path] = []
    place = _place(link)
    while place.is_symlink() and len(found) < _MOST_LINKS:
        place = _place(place.parent / os.readlink(place))
        found.append(place)
    return found


def _place(path: Path) -> Path:
    """Return where a file itself lies: links to its folders are followed, and it is not."""
    return Path(os.path.realpath(path.parent)) / path.name


def is_made(root: Path, journal: Journal) -> bool:
    """Return whether some of a journal's moves have been made in a folder, and stand."""
    return any(
        os.path.lexists(root / new) and not os.path.lexists(root / old)
        for old, new in journal.moves
    )


def write_journal(path: Path, journal: Journal) -> None:
    """Write a journal; it is on disk when this returns.

    Raises:
        ValueError: If there is a file of this name.
    """
    if path.exists():
        raise ValueError(f"{path} already exists")
    content = {"format": _FORMAT, **journal._asdict(), "root": str(journal.root)}
    write_text(path, json.dumps(content) + "\n")


def read_journal(path: Path) -> Journal:
    """Read a journal.

    Raises:
        ValueError: If it is missing, damaged or no journal, or names paths outside of its folder.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise ValueError("another format")
        journal = Journal(
            Path(content["root"]),
            tuple((str(old), str(new)) for old, new in content["moves"]),
            tuple(map(str, content["made"])),
        )
    except FileNotFoundError as error:
        raise ValueError(f"there is no journal {path}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged or no journal of moved images") from error
    words = [*journal.made, *(word for move in journal.moves for word in move)]
    outside = [word for word in words if PurePath(word).anchor or ".." in PurePath(word).parts]
    if outside:
        raise ValueError(f"{path} names a path outside of the folder: {outside[0]!r}")
    return journal


def apply_moves(journal: Journal, progress: Progress = silent) -> int:
    """Do the moves that are not done yet.

    Args:
        journal: What is to be done; on disk.
        progress: Called with (moves done, moves in all).

    Returns:
        How many were moved.

    Raises:
        ValueError: If a file is gone, or something else lies at its new path; what was moved stays,
            and can be undone.
    """
    check_reachable(journal)
    for folder in journal.made:
        (journal.root / folder).mkdir(exist_ok=True)
    return _move_all(journal.root, journal.moves, progress)


def undo_moves(journal: Journal, progress: Progress = silent) -> int:
    """Take back the moves that were done.

    Args:
        journal: What was done, all of it or a part.
        progress: Called with (moves done, moves in all).

    Returns:
        How many were moved back.

    Raises:
        ValueError: If a file is gone, or something else lies at its old path.
    """
    back = tuple((new, old) for old, new in reversed(journal.moves))
    check_reachable(journal)
    for _, old in back:
        # A class folder that somebody has removed since because it was empty.
        (journal.root / old).parent.mkdir(parents=True, exist_ok=True)
    count = _move_all(journal.root, back, progress)
    for folder in reversed(journal.made):
        try:
            (journal.root / folder).rmdir()
        except OSError as error:  # gone already, or somebody has put more into it
            if error.errno not in (errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST):
                raise
    return count


def check_reachable(journal: Journal) -> None:
    """Refuse a journal before anything is moved, where not every move is done or can be.

    Raises:
        ValueError: If files are at neither of their paths, or different ones at both.
    """
    root = journal.root
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}; name its new place by --data-dir")
    for old, new in journal.moves:
        found = [os.path.lexists(root / path) for path in (old, new)]
        if not any(found):
            raise ValueError(f"{root / old} is gone, and not at {new} either; nothing was moved")
        if all(found) and not _same(root / old, root / new):
            raise ValueError(f"{root} has both {old} and {new}, two files; nothing was moved")


def _move_all(root: Path, moves: Sequence[tuple[str, str]], progress: Progress) -> int:
    count = 0
    for done, (old, new) in enumerate(moves, start=1):
        if os.path.lexists(root / old):
            _move(root / old, root / new)
            count += 1
        progress(done, len(moves))
    return count


def _move(old: Path, new: Path) -> None:
    """Move a file; a file that is there is never overwritten.

    It has both names for a moment, and a process killed then leaves it so.
    """
    if _RENAMING_NEVER_REPLACES:
        old.rename(new)
        return
    try:
        os.link(old, new, follow_symlinks=False)
    except FileExistsError:
        if not _same(old, new):
            raise
    except OSError as error:  # file systems without hard links
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        old.rename(new)
        return
    old.unlink()


def _same(one: Path, other: Path) -> bool:
    """Return whether two names are of one file, links not followed."""
    first, second = one.lstat(), other.lstat()
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino)
