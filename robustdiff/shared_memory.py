"""One copy of arrays for several processes of a host, in memory that has no name (Linux).

The memory belongs to the processes that have mapped it, so the last one to end frees it, however
it ends. What is read is mapped copy-on-write: who changes an array changes its own copy.
"""

import copy
import dataclasses
import mmap
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Arrays begin at multiples of so many bytes.
_ALIGNED = 64


class _Array(NamedTuple):
    """In place of an array: where its bytes lie, and what they are."""

    start: int
    size: int
    dtype: str
    shape: tuple[int, ...]


class _Words(NamedTuple):
    """In place of a tuple of strings, such as the names of images: where they lie, as UTF-8."""

    start: int
    size: int


class Handle(NamedTuple):
    """Where another process of this user finds an object.

    Attributes:
        path: Of the memory, in /proc.
        outline: The object, which says in place of its arrays where these lie.
    """

    path: str
    outline: Any


def can_share() -> bool:
    """Return whether this system has memory without a name."""
    return hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


def put(value: Any) -> tuple[int, Handle]:  # noqa: ANN401 whatever holds arrays
    """Write the arrays of an object, and return a descriptor, which holds the memory, and where.

    Args:
        value: Arrays, strings and numbers in tuples, lists, dicts and dataclasses.
    """
    parts: list[tuple[int, memoryview]] = []
    end = 1  # no memory of no bytes can be mapped

    def placed(content: memoryview) -> tuple[int, int]:
        nonlocal end
        start = -(-end // _ALIGNED) * _ALIGNED
        parts.append((start, content))
        end = start + len(content)
        return start, len(content)

    def taken(part: Any) -> Any:  # noqa: ANN401
        if isinstance(part, np.ndarray) and not part.dtype.hasobject:
            content = np.ascontiguousarray(part).reshape(-1).view(np.uint8).data
            return _Array(*placed(content), part.dtype.str, part.shape)
        if isinstance(part, tuple) and part and all(type(word) is str for word in part):
            text = "\0".join(part)
            if type(part) is tuple and text.count("\0") == len(part) - 1:
                return _Words(*placed(memoryview(text.encode("utf-8", "surrogatepass"))))
        return part

    outline = _changed(value, taken, {})
    descriptor = os.memfd_create("robustdiff", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, end)
        with mmap.mmap(descriptor, end) as memory:
            for start, content in parts:
                memory[start : start + len(content)] = content
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, Handle(f"/proc/{os.getpid()}/fd/{descriptor}", outline)


def get(handle: Handle) -> Any:  # noqa: ANN401 what was put
    """Map an object that a process of this host has put."""
    with open(handle.path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))

    def found(part: Any) -> Any:  # noqa: ANN401
        if isinstance(part, _Array):
            content = memory[part.start : part.start + part.size]
            return np.frombuffer(content, dtype=part.dtype).reshape(part.shape)
        if isinstance(part, _Words):
            content = memory[part.start : part.start + part.size]
            return tuple(str(content, "utf-8", "surrogatepass").split("\0"))
        return part

    return _changed(handle.outline, found, {})


def _changed(value: Any, change: Callable[[Any], Any], known: dict[int, Any]) -> Any:  # noqa: ANN401
    """Return an object with its parts changed; what it holds twice is held twice again.

    Args:
        value: The object.
        change: Returns what takes the place of a part, or the part itself.
        known: What has been changed so far, by identity.
    """
    if id(value) in known:
        return known[id(value)]
    found = change(value)
    if found is value:
        if isinstance(value, tuple):
            parts = (_changed(part, change, known) for part in value)
            found = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        elif isinstance(value, list):
            found = [_changed(part, change, known) for part in value]
        elif isinstance(value, dict):
            found = {key: _changed(part, change, known) for key, part in value.items()}
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            found = copy.copy(value)
            for field in dataclasses.fields(value):
                part = _changed(getattr(value, field.name), change, known)
                object.__setattr__(found, field.name, part)
    known[id(value)] = found
    return found
