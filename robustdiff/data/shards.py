"""WebDataset shards: tar files whose members of one key are an image and its label."""

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from PIL import Image

from corruptions.columns import GIVEN, LABELS, plain_name
from corruptions.tables import first_few
from robustdiff.config.images import DataConfig
from robustdiff.data.layout import Layout
from robustdiff.data.parquet import named, shard_split
from robustdiff.data.parts import split_words
from robustdiff.data.rows import Rows, lay_out
from robustdiff.data.shard_index import Listing, list_shards
from robustdiff.data.store import Store, files_at

# A sample's key ends at the first dot of its name; what follows says what the member is.
_MEMBER = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]+)", re.DOTALL)
_PACKED = (".gz", ".tgz", ".bz2", ".xz", ".zst")


class _Member(NamedTuple):
    """Where a member's bytes lie in its shard."""

    shard: str
    name: str
    start: int
    size: int


Sample = dict[str, _Member]
"""What follows the key -> the member."""


def read_shards(config: DataConfig) -> tuple[Layout, Store]:
    """List the images of a tar file, or of all in a folder; nothing is unpacked.

    Args:
        config: `data_dir` is the file or folder.

    Raises:
        ValueError: If there is none, one is packed or damaged, or a sample has no image, several,
            or no label.
    """
    home = Path(config.data_dir)
    root, shards = files_at(home, ".tar")
    if not shards:
        raise ValueError(f"there is no .tar file {home}, nor a folder of them")
    words = split_words([shard_split(shard) for shard in shards])
    images, labels, splits = [], [], []
    scan = partial(_scan, root, config.label_column)
    for number, some in enumerate(list_shards(home, root, shards, config.label_column, scan)):
        images += [_Member(shards[number], *where) for where in zip(*some[:3], strict=True)]
        labels += some.labels
        splits += [None if words is None else words[number]] * len(some.names)
    stems = [image.shard.removesuffix(".tar") for image in images]
    names, notes = named(
        [image.name for image in images],
        stems if words is None else [str(split) for split in splits],
        stems,
    )
    rows = Rows(
        where=str(home),
        names=names,
        labels=labels,
        splits=None if words is None else [str(split) for split in splits],
        notes=notes,
    )
    place = dict(zip(names, images, strict=True))
    return lay_out(rows, config), Store(home, root, _opener(root, place), tuple(shards))


def _scan(root: Path, asked: str | None, shard: str) -> Listing:
    """List a shard by the headers of its members."""
    found = Listing([], [], [], [])
    for key, sample in _samples(root, shard):
        image = _image_of(sample, f"sample {key} of {root / shard}")
        found.names.append(image.name)
        found.starts.append(image.start)
        found.sizes.append(image.size)
        found.labels.append(_label_of(sample, root, asked, f"{root / shard}: {key}"))
    return found


def _opener(root: Path, place: dict[str, _Member]) -> Callable[[str], BinaryIO]:
    return lambda name: io.BytesIO(_content(root, place[name]))


def _content(root: Path, member: _Member) -> bytes:
    with (root / member.shard).open("rb") as file:
        file.seek(member.start)
        return file.read(member.size)


def _samples(root: Path, shard: str) -> Iterator[tuple[str, Sample]]:
    """Yield the samples of a shard with their keys; members of one key follow each other."""
    path, key, sample, done = root / shard, None, Sample(), set()
    for member in _members(path, shard):
        match = _MEMBER.fullmatch(member.name)
        if match is None:
            continue
        if match[1] != key:
            if key is not None:
                yield key, sample
            key, sample = match[1], {}
            if key in done:
                raise ValueError(f"{path} has members of sample {key!r} in several places")
            done.add(key)
        if match[2].lower() in sample:
            raise ValueError(f"{path} holds {member.name} twice")
        sample[match[2].lower()] = member
    if key is not None:
        yield key, sample


def _members(path: Path, shard: str) -> Iterator[_Member]:
    if path.suffix.lower() in _PACKED:
        raise ValueError(f"{path} is packed, and no image can be read alone; unpack it to .tar")
    size = path.stat().st_size
    try:
        with tarfile.open(path, "r:") as opened:
            for entry in opened:
                if entry.isreg():
                    if entry.offset_data + entry.size > size:
                        raise ValueError(f"{path} ends within {entry.name}: it is cut off")
                    yield _Member(
                        shard, entry.name.removeprefix("./"), entry.offset_data, entry.size
                    )
                opened.members = []  # type: ignore[attr-defined] # kept for look-ups by name
            _check_end(opened, path)
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no .tar file, or is packed or damaged: {error}") from error


def _check_end(opened: tarfile.TarFile, path: Path) -> None:
    """Refuse a shard whose members end without the block of zeros that every writer puts there."""
    file = opened.fileobj
    assert file is not None
    file.seek(opened.offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(
            f"{path} is cut off or damaged: after its last whole member, at byte {opened.offset}, "
            "no end of an archive follows"
        )


def _image_of(sample: Sample, where: str) -> _Member:
    known = Image.registered_extensions()
    found = [member for kind, member in sample.items() if f".{kind.rpartition('.')[2]}" in known]
    if len(found) != 1:
        raise ValueError(f"every sample must have one image, but {where} has {first_few(sample)}")
    return found[0]


def _label_of(sample: Sample, root: Path, asked: str | None, where: str) -> object:
    """Return the label of a sample: what is asked for, else its .cls, else one of its .json."""
    if asked in sample or (asked is None and "cls" in sample):
        return _content(root, sample[asked or "cls"]).decode(errors="surrogateescape")
    if "json" not in sample:
        raise ValueError(
            f"{where} has no label: it has {first_few(sample)}; a sample needs .cls or .json, or "
            "--label-column names what holds it"
        )
    try:
        entries = json.loads(_content(root, sample["json"]))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}.json is not JSON: {error}") from error
    if not isinstance(entries, dict):
        return entries
    found = [key for key in entries if key == asked] if asked else _usual(entries)
    if len(found) != 1:
        raise ValueError(
            f"{where}.json must have one label, and has {first_few(entries)}; name its key with "
            "--label-column"
        )
    return entries[found[0]]


def _usual(entries: dict[str, object]) -> list[str]:
    return [key for key in entries if plain_name(key) in (*GIVEN, *LABELS, "cls")]
