"""Sources of images of one's own: what lies at a path, and the function that lists each kind."""

import os
from collections.abc import Callable
from pathlib import Path

from robustdiff.config.images import DataConfig
from robustdiff.data.handed import INDEX
from robustdiff.data.layout import Layout, list_folder
from robustdiff.data.manifest import metadata_files, read_image_folder, read_manifest
from robustdiff.data.parquet import holds_images, read_arrow, read_parquet
from robustdiff.data.saved import is_saved
from robustdiff.data.shards import read_shards
from robustdiff.data.store import Store, files_under
from robustdiff.data.tables import SUFFIXES, pyarrow, undamaged

Lister = Callable[[DataConfig], tuple[Layout, Store]]


def _class_folders(config: DataConfig) -> tuple[Layout, Store]:
    root = Path(config.data_dir)
    return list_folder(root, config.split, whole=config.whole), files_under(root)


SOURCES: dict[str, Lister] = {
    "folder": _class_folders,
    "manifest": read_manifest,
    "imagefolder": read_image_folder,
    "parquet": read_parquet,
    "arrow": read_arrow,
    "webdataset": read_shards,
}


def files_in(config: DataConfig) -> Path | None:
    """Return the folder that files of images are relative to; None where they are no files."""
    place = Path(config.data_dir).expanduser()
    if config.dataset in ("folder", "imagefolder"):
        return place
    if config.dataset != "manifest":
        return None
    return place.parent if config.image_root is None else Path(config.image_root).expanduser()


def kind_of(path: Path) -> str:
    """Return which kind of source lies at a path, a key of `SOURCES` or "arrays".

    Raises:
        ValueError: If there is none, or it may be of several kinds, naming them.
    """
    path = path.expanduser()
    if path.is_file():
        return _kind_of_file(path)
    if not path.is_dir():
        raise ValueError(f"there is no file or folder {path}")
    if (path / INDEX).is_file():
        return "arrays"
    if is_saved(path):
        return "arrow"
    kinds = _kinds_of_folder(path)
    if len(kinds) > 1:
        raise ValueError(
            f"{path} may be {' or '.join(kinds)}; say which by --dataset, with --data-dir {path}"
        )
    return kinds[0] if kinds else "folder"


def _kind_of_file(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        arrow = pyarrow()
        with undamaged(path):
            schema = arrow.parquet.read_schema(path)
        return "parquet" if any(holds_images(field.type) for field in schema) else "manifest"
    if suffix in SUFFIXES:
        return "manifest"
    if suffix == ".tar":
        return "webdataset"
    raise ValueError(
        f"files of images are .tar or .parquet, tables of their files {', '.join(SUFFIXES)}, "
        f"got {path}"
    )


def _kinds_of_folder(path: Path) -> list[str]:
    found = set()
    for _, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]
        suffixes = {Path(name).suffix.lower() for name in files if not name.startswith("metadata.")}
        found |= {kind for suffix, kind in _BY_SUFFIX.items() if suffix in suffixes}
    kinds = sorted(found)
    if metadata_files(path):
        kinds.append("imagefolder")
    return [*kinds, "folder"] if kinds and _has_classes(path) else kinds


_BY_SUFFIX = {".parquet": "parquet", ".tar": "webdataset"}


def _has_classes(path: Path) -> bool:
    try:
        layout = list_folder(path, whole=True)
    except ValueError:
        return False
    return len({entry.label for entry in layout.listed}) > 1
