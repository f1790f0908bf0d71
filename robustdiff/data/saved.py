"""What `datasets.save_to_disk` has written: the splits of a folder, and the arrow files of each."""

import json
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any

# Files of `save_to_disk`, and the list that each holds: of splits, and of arrow files.
_DICT, _STATE = "dataset_dict.json", "state.json"
_LISTS = {_DICT: "splits", _STATE: "_data_files"}


def saved_splits(root: Path) -> list[str | None]:
    """Return the names of the splits of a folder, None for the only one of a dataset without.

    Raises:
        ValueError: If the file that names them is damaged, or something else.
    """
    path = root / _DICT
    if not path.is_file():
        return [None]
    names = _listed(path)
    if not all(isinstance(name, str) for name in names):
        raise _not_saved(path, f"its {_LISTS[_DICT]!r} are not names")
    return names


def arrow_files(folder: Path) -> list[str]:
    """Return the arrow files of a dataset, relative to its folder.

    Raises:
        ValueError: If the file that names them is missing, damaged, or something else.
    """
    path = folder / _STATE
    entries = _listed(path)
    if not all(isinstance(one, dict) and isinstance(one.get("filename"), str) for one in entries):
        raise _not_saved(path, f"its {_LISTS[_STATE]!r} do not all have a filename")
    return [one["filename"] for one in entries]


def is_saved(root: Path) -> bool:
    """Return whether `datasets.save_to_disk` has written a folder.

    Other programs have files of these names, too, so the content counts; where that cannot be read,
    arrow files beside it do.
    """
    found = [root / name for name in _LISTS if (root / name).is_file()]
    for path in found:
        with suppress(ValueError):
            _listed(path)
            return True
    return bool(found) and any(chain(root.glob("*.arrow"), root.glob("*/*.arrow")))


def _listed(path: Path) -> list[Any]:
    """Return the list that a JSON file of `save_to_disk` holds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _not_saved(path, f"cannot read it ({error})") from error
    found = content.get(_LISTS[path.name]) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise _not_saved(path, f"it has no list {_LISTS[path.name]!r}")
    return found


def _not_saved(path: Path, why: str) -> ValueError:
    return ValueError(
        f"{path.parent} was not written by datasets.save_to_disk, or is damaged: {path.name}: {why}"
    )
