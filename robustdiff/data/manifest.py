"""Tables that name image files: a manifest, and the metadata of an image folder of the hub."""

import os
import posixpath
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from corruptions.columns import DECIDED, plain_name
from corruptions.labels import check_decided
from corruptions.tables import first_few, is_missing
from robustdiff.config.images import DataConfig
from robustdiff.data.decode import file_state
from robustdiff.data.layout import Layout
from robustdiff.data.listing import LeftOut, entries
from robustdiff.data.parts import split_words
from robustdiff.data.rows import Rows, lay_out
from robustdiff.data.store import Store, files_under
from robustdiff.data.tables import Columns, pick_columns, read_columns

METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet"))


def read_manifest(config: DataConfig) -> tuple[Layout, Store]:
    """List the images that a table names.

    Args:
        config: `data_dir` is the table, see `read_columns`; its files are relative to `image_root`.

    Raises:
        ValueError: If the table cannot be used, or a file is missing that may not be left out.
    """
    path = Path(config.data_dir)
    root = path.parent if config.image_root is None else Path(config.image_root).expanduser()
    if not root.is_dir():
        raise ValueError(f"there is no folder {root} for the files of {path}")
    rows = _rows_of(path, root, "", config)
    if rows.splits is None:
        rows = rows._replace(splits=split_words(rows.names))
    _refuse_missing(rows, root, config)
    return lay_out(rows, config), files_under(root, path)


def read_image_folder(config: DataConfig) -> tuple[Layout, Store]:
    """List the images of a folder whose labels stand in files metadata.csv, .jsonl or .parquet.

    This is the convention of the hub: a row names a file of the metadata's folder, or below it, in
    column `file_name`; the folders train and test are splits.

    Args:
        config: `data_dir` is the folder.

    Raises:
        ValueError: If there is no metadata, or like `read_manifest`.
    """
    root = Path(config.data_dir)
    found = metadata_files(root)
    if not found:
        raise ValueError(f"{root} holds none of {', '.join(METADATA)}, in no folder of it")
    tables = [
        _rows_of(path, root, path.parent.relative_to(root).as_posix(), config) for path in found
    ]
    names = [name for table in tables for name in table.names]
    splits = [table.splits for table in tables if table.splits is not None]
    if splits and len(splits) < len(tables):
        raise ValueError(f"of the metadata in {root} some has a column of splits and some has none")
    removed = [name for table in tables for name in table.removed]
    known = {*names, *removed}
    rows = Rows(
        where=str(found[0]) if len(found) == 1 else f"the metadata in {root}",
        names=names,
        labels=[label for table in tables for label in table.labels],
        splits=[*chain.from_iterable(splits)] if splits else split_words(names),
        notes=tuple(note for table in tables for note in table.notes),
        left_out=[
            LeftOut(path, "image", "that no metadata names")
            for path in _images_in(root)
            if path not in known
        ],
        removed=removed,
    )
    _refuse_missing(rows, root, config)
    return lay_out(rows, config), files_under(root)


def metadata_files(root: Path) -> list[Path]:
    """Return the files of metadata in a folder, hidden sub-folders left out.

    Raises:
        ValueError: If one folder holds several.
    """
    found = []
    for folder, below, files in os.walk(root):
        below[:] = sorted(name for name in below if not name.startswith("."))
        here = [Path(folder) / name for name in METADATA if name in files]
        if len(here) > 1:
            raise ValueError(f"{folder} holds {first_few(path.name for path in here)}; keep one")
        found += here
    return found


def _images_in(root: Path) -> list[str]:
    found, pending = [], [""]
    while pending:
        images, folders = entries(root, pending.pop(), [])
        found += images
        pending += folders
    return found


def _rows_of(path: Path, root: Path, below: str, config: DataConfig) -> Rows:
    """Read a table whose files are relative to a sub-folder of the root."""
    cells = read_columns(path)
    asked = {
        "image": config.image_column,
        "label": config.label_column,
        "split": config.split_column,
    }
    columns = pick_columns([*cells], str(path), asked)
    names = _names(cells[columns.image], columns, root, below, path)
    splits = None if columns.split is None else [str(word or "") for word in cells[columns.split]]
    removed = _removed(cells, path)
    kept = [row for row in range(len(names)) if row not in removed]
    return Rows(
        where=str(path),
        names=[names[row] for row in kept],
        labels=[cells[columns.label][row] for row in kept],
        splits=None if splits is None else [splits[row] for row in kept],
        notes=columns.notes,
        removed=[names[row] for row in sorted(removed)],
    )


def _removed(cells: dict[str, list[object]], path: Path) -> set[int]:
    """Return the rows of images that a person has removed, as a table of corrected labels says."""
    found: set[int] = set()
    for name in cells:
        if plain_name(name) in DECIDED:
            words = [str(word) for word in cells[name]]
            check_decided(words, path)
            found |= {row for row, word in enumerate(words) if word == "removed"}
    return found


def _names(
    cells: Sequence[object], columns: Columns, root: Path, below: str, path: Path
) -> list[str]:
    """Return the files that a column names, relative to the root."""
    where = f"column {columns.image!r} of {path}"
    if odd := [cell for cell in cells if cell is not None and not isinstance(cell, str)]:
        said = "several images a row" if isinstance(odd[0], list) else repr(odd[0])[:60]
        raise ValueError(f"{where} must name one file a row, got {said}")
    if empty := [row + 1 for row, cell in enumerate(cells) if is_missing(str(cell or ""))]:
        raise ValueError(f"{len(empty)} files are missing in {where}: data row {first_few(empty)}")
    base = Path(os.path.abspath(root)).as_posix()
    names, outside = [], []
    for cell in cells:
        written = str(cell).strip().replace("\\", "/")
        full = posixpath.normpath(posixpath.join(base, below, written))
        names.append(posixpath.relpath(full, base))
        outside += [written] * (not full.startswith(f"{base.rstrip('/')}/"))
    if outside:
        raise ValueError(
            f"{len(outside)} files in {where} lie outside of {root}: {first_few(outside)}; "
            "--image-root names the folder that a manifest's files lie in"
        )
    return names


def _refuse_missing(rows: Rows, root: Path, config: DataConfig) -> None:
    if config.on_bad_image == "skip":
        return
    missing = [name for name in rows.names if isinstance(file_state(root / name), str)]
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(rows.names)} files that {rows.where} names cannot be read "
            f"in {root}: {first_few(missing)}; leave them out with --on-bad-image skip"
        )
