"""One copy of arrays for several processes of a host, in memory that has no name (Linux).

The memory belongs to the processes that have mapped it, so the last one to end frees it, however
it ends. What is read is mapped copy-on-write: who changes an array changes its own copy.
"""

import mmap
import os
import pickle
from typing import Any, NamedTuple

# Arrays begin at multiples of so many bytes.
_ALIGNED = 64


class Handle(NamedTuple):
    """Where another process of this user finds an object.

    Attributes:
        path: Of the memory, in /proc.
        parts: Start and length of the description of the object, and of each array.
    """

    path: str
    parts: tuple[tuple[int, int], ...]


def can_share() -> bool:
    """Return whether this system has memory without a name."""
    return hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd")


def put(value: Any) -> tuple[int, Handle]:  # noqa: ANN401 whatever holds arrays
    """Write an object with its arrays, and return a descriptor, which holds the memory, and where.

    Args:
        value: Picklable; its contiguous arrays are written as they are.
    """
    buffers: list[pickle.PickleBuffer] = []
    about = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    parts, end = [], 0
    content = [memoryview(about), *(buffer.raw() for buffer in buffers)]
    for part in content:
        parts.append((end, len(part)))
        end += -(-len(part) // _ALIGNED) * _ALIGNED
    descriptor = os.memfd_create("robustdiff", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, end)
        with mmap.mmap(descriptor, end) as memory:
            for (start, length), part in zip(parts, content, strict=True):
                memory[start : start + length] = part
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, Handle(f"/proc/{os.getpid()}/fd/{descriptor}", tuple(parts))


def get(handle: Handle) -> Any:  # noqa: ANN401 what was put
    """Map an object that a process of this host has put."""
    with open(handle.path, "rb") as file:
        memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    about, *arrays = (memory[start : start + length] for start, length in handle.parts)
    # What this run's own process has written, in memory that nobody else can name.
    return pickle.loads(about, buffers=arrays)  # noqa: S301
