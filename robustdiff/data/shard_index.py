"""What lies where in shards, kept on disk, so that the next start reads no headers."""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from robustdiff.data.decode import file_state
from robustdiff.data.image_cache import few_bytes, fingerprint
from robustdiff.files.atomic import write_text
from robustdiff.files.caches import cache_folder

_FORMAT = 2


class Listing(NamedTuple):
    """The samples of one shard, in their order.

    Attributes:
        names: Of the images.
        starts: First byte of each in the shard.
        sizes: Bytes of each.
        labels: As written: words, numbers, whatever JSON holds.
    """

    names: list[str]
    starts: list[int]
    sizes: list[int]
    labels: list[Any]


def list_shards(
    home: Path,
    root: Path,
    shards: list[str],
    asked: str | None,
    scan: Callable[[str], Listing],
) -> list[Listing]:
    """List the samples of shards; those that are as they were when they were listed are not read.

    Args:
        home: The source.
        root: The folder of the shards.
        shards: Their paths in it.
        asked: What the labels are read from; None for the usual.
        scan: Lists one shard by its headers.

    Returns:
        The samples of each shard.
    """
    file = _file(home, asked)
    kept = {} if file is None else _read(file)
    states = {shard: file_state(root / shard) for shard in shards}
    few = few_bytes(states)
    marks = {
        shard: fingerprint(root, 0, {shard: state}, by_content=few)
        for shard, state in states.items()
    }
    found = {
        shard: kept[shard][1] if kept.get(shard, (None,))[0] == mark else scan(shard)
        for shard, mark in marks.items()
    }
    if file is not None and {shard: mark for shard, (mark, _) in kept.items()} != marks:
        content = json.dumps({shard: [mark, *found[shard]] for shard, mark in marks.items()})
        with suppress(OSError):  # the next start reads the headers again
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, f"{_digest(content)}\n{content}")
    return [found[shard] for shard in shards]


def _file(home: Path, asked: str | None) -> Path | None:
    base = cache_folder()
    key = hashlib.sha256(os.fsencode(home.resolve()) + f"\0{asked}".encode()).hexdigest()[:16]
    return None if base is None else base / f"shards-{key}.json"


def _read(file: Path) -> dict[str, tuple[str, Listing]]:
    """Return the mark and the samples of each shard; none if there is no file, or a damaged one."""
    try:
        digest, content = file.read_text(encoding="utf-8").split("\n")
        if digest != _digest(content):
            return {}
        return {name: (mark, Listing(*rest)) for name, (mark, *rest) in json.loads(content).items()}
    except (OSError, ValueError):
        return {}


def _digest(content: str) -> str:
    return hashlib.sha256(f"{_FORMAT} {content}".encode()).hexdigest()
