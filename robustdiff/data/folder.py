"""A folder of images, one folder per class: listed, decoded once, then memory-mapped.

DIR/<class>/*.png, or DIR/train/<class>/* and DIR/test/<class>/*. Without a test part, a fifth of
every class is held out: the files whose names have the smallest digests. So the split does not
depend on the seed of a run, and few files change sides when others are added.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from robustdiff.files.atomic import write_text
from robustdiff.progress import Report

Pixels = NDArray[np.uint8]
T = TypeVar("T")

DEFAULT_SIZE = 32
_FORMAT = 1
_HELD_OUT = 0.2
_LEAST = 5
_TEST_NAMES = ("test", "val", "valid", "validation")
_GREY = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}


class Listed(NamedTuple):
    """One image file.

    Attributes:
        path: Relative to the folder.
        label: Class number.
        is_test: Whether it is held out.
    """

    path: str
    label: int
    is_test: bool


class Folder(NamedTuple):
    """A folder's images, the training part first.

    Attributes:
        images: (N, C, size, size) uint8, C 1 if all are grey, else 3; memory-mapped.
        listed: The N files.
        class_names: K names, sorted.
        bad: Files that could not be read, with the reason.
    """

    images: Pixels
    listed: list[Listed]
    class_names: tuple[str, ...]
    bad: list[tuple[str, str]]


def read_folder(root: Path, size: int, report: Report) -> Folder:
    """Read a folder of images, from its cache if nothing has changed.

    Args:
        root: The folder.
        size: Side in pixels; images are cropped to a square about their centre and resized.
        report: Receives progress.

    Returns:
        The images that can be read.

    Raises:
        ValueError: If there is no such folder, or it does not hold two classes of images.
    """
    class_names, listed = list_folder(root)
    fingerprint = _fingerprint(root, size, listed)
    key = hashlib.sha256(f"{root.resolve()}\0{size}".encode()).hexdigest()[:16]
    stem = _cache_root() / f"folder-{key}"
    cached = _read_cache(stem, fingerprint)
    if cached is None:
        _decode_into(stem, fingerprint, root, size, listed, report)
        cached = _read_cache(stem, fingerprint)
    if cached is None:
        raise OSError(f"cannot read back the image cache {stem}.npy")
    images, bad = cached
    left_out = {path for path, _ in bad}
    return Folder(images, [e for e in listed if e.path not in left_out], class_names, bad)


def list_folder(root: Path) -> tuple[tuple[str, ...], list[Listed]]:
    """List a folder's classes and image files, the training part first.

    Raises:
        ValueError: If there is no such folder, it holds fewer than two classes, or a class has too
            few images to hold some out.
    """
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}")
    parts = _subfolders(root)
    test = next((name for name in _TEST_NAMES if name in parts), None)
    has_train = "train" in parts
    base = root / "train" if has_train else root
    class_names = tuple(_subfolders(base))
    if len(class_names) < 2:
        raise ValueError(
            f"{base} must hold one folder of images per class, at least 2, got {len(class_names)}"
        )
    train = [
        Listed(path, label, is_test=False)
        for label, name in enumerate(class_names)
        for path in _image_files(root, base / name)
    ]
    if not (has_train and test):
        return class_names, _hold_out(train, class_names)
    unknown = sorted(set(_subfolders(root / test)) - set(class_names))
    if unknown:
        raise ValueError(f"{root / test} has a class {unknown[0]!r} that {base} has not")
    held = [
        Listed(path, label, is_test=True)
        for label, name in enumerate(class_names)
        for path in _image_files(root, root / test / name)
    ]
    return class_names, train + held


def _subfolders(folder: Path) -> list[str]:
    return sorted(e.name for e in folder.iterdir() if e.is_dir() and not e.name.startswith("."))


def _image_files(root: Path, folder: Path) -> Iterator[str]:
    known = Image.registered_extensions()
    for where, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in known and not name.startswith("."):
                yield str((Path(where) / name).relative_to(root))


def _hold_out(listed: list[Listed], class_names: tuple[str, ...]) -> list[Listed]:
    train, test = [], []
    for label, name in enumerate(class_names):
        members = [entry for entry in listed if entry.label == label]
        if len(members) < _LEAST:
            raise ValueError(
                f"every class needs at least {_LEAST} images, some to train on and some to hold "
                f"out, but {name!r} has {len(members)}"
            )
        by_digest = sorted(members, key=lambda e: hashlib.sha256(os.fsencode(e.path)).digest())
        count = max(2, round(_HELD_OUT * len(members)))
        held = set(by_digest[:count])
        test += [entry._replace(is_test=True) for entry in members if entry in held]
        train += [entry for entry in members if entry not in held]
    return train + test


def _fingerprint(root: Path, size: int, listed: list[Listed]) -> str:
    digest = hashlib.sha256(f"{_FORMAT} {size}".encode())
    for entry in listed:
        status = (root / entry.path).stat()
        digest.update(os.fsencode(entry.path))
        digest.update(f"\0{entry.is_test} {status.st_size} {status.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def _cache_root() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "robustdiff"


def _read_cache(stem: Path, fingerprint: str) -> tuple[Pixels, list[tuple[str, str]]] | None:
    try:
        index = json.loads(stem.with_suffix(".json").read_text())
        if index["fingerprint"] != fingerprint:
            return None
        # Copy on write: torch wants writable memory, and the file must not change.
        images = np.load(stem.with_suffix(".npy"), mmap_mode="c", allow_pickle=False)
        bad = [(str(path), str(reason)) for path, reason in index["bad"]]
    except Exception:  # noqa: BLE001 damaged files fail in many ways; the cache is made anew
        return None
    return (images, bad) if isinstance(images, np.ndarray) else None


def _decode_into(
    stem: Path, fingerprint: str, root: Path, size: int, listed: list[Listed], report: Report
) -> None:
    """Decode all images into the cache; its index is written last and makes it valid."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".json").unlink(missing_ok=True)
    paths = [entry.path for entry in listed]
    with ThreadPoolExecutor() as pool:
        grey = _each(pool, lambda path: _is_grey(root / path), paths, report, "looking at images")
        failed = {p: str(g) for p, g in zip(paths, grey, strict=True) if isinstance(g, Exception)}
        channels = 1 if all(g is True for g in grey if isinstance(g, bool)) else 3
        readable = [path for path in paths if path not in failed]
        decoded = _each(
            pool,
            lambda path: read_image(root / path, size, channels),
            readable,
            report,
            "reading images",
        )
        temporary = stem.with_name(f".{stem.name}.{os.getpid()}.npy")
        try:
            good = [picture for picture in decoded if isinstance(picture, np.ndarray)]
            np.save(temporary, np.stack(good) if good else np.empty((0, channels, size, size)))
            temporary.replace(stem.with_suffix(".npy"))
        finally:
            temporary.unlink(missing_ok=True)
    failed |= {
        path: str(outcome)
        for path, outcome in zip(readable, decoded, strict=True)
        if isinstance(outcome, Exception)
    }
    index = {"fingerprint": fingerprint, "bad": [(p, failed[p]) for p in paths if p in failed]}
    write_text(stem.with_suffix(".json"), json.dumps(index))


def _each(
    pool: ThreadPoolExecutor,
    work: Callable[[str], T],
    paths: list[str],
    report: Report,
    task: str,
) -> list[T | Exception]:
    def guarded(path: str) -> T | Exception:
        try:
            return work(path)
        except Exception as error:  # noqa: BLE001 decoders of damaged files fail in many ways
            return error

    return list(_counted(pool.map(guarded, paths), len(paths), report, task))


def _counted(results: Iterable[T], total: int, report: Report, task: str) -> Iterator[T]:
    for done, result in enumerate(results, start=1):
        report.progress(task, done, total)
        yield result


def _is_grey(path: Path) -> bool:
    with Image.open(path) as image:
        return image.mode in _GREY


def read_image(path: Path, size: int, channels: int) -> Pixels:
    """Decode an image: turned upright, over white, cropped about its centre, resized.

    Args:
        path: Any format that Pillow reads; of an animation the first frame.
        size: Side in pixels.
        channels: 1 or 3.

    Returns:
        (channels, size, size) uint8.

    Raises:
        ValueError: If the pixels have no fixed range.
        Exception: Whatever Pillow raises for a damaged file.
    """
    with Image.open(path) as opened:
        image = _eight_bits(ImageOps.exif_transpose(opened))
    if image.mode in {"LA", "PA", "RGBA", "La", "RGBa"} or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, colour)
    image = image.convert("L" if channels == 1 else "RGB")
    fitted = np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC))
    return fitted[None] if channels == 1 else np.ascontiguousarray(fitted.transpose(2, 0, 1))


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey values, which Pillow would clip instead."""
    if image.mode == "F":
        raise ValueError("32-bit floating point pixels have no fixed range")
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
