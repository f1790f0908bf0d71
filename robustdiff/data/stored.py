"""Images that lie in files: tensors without memory of their own, whose rows are read when used."""

import mmap
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_map

from curricula.types import Ints
from robustdiff.data.ahead import in_order
from robustdiff.data.decode import Pixels

IN_MEMORY = 2**30
"""Bytes up to which images are in memory, where they can be."""

# Share of a GPU's free memory that images may take.
_SHARE = 0.5
# Batches that are read ahead, and images that move to a GPU at a time.
_AHEAD, _MOVED = 4, 8192

aten = torch.ops.aten


class Reader(NamedTuple):
    """What reads images.

    Attributes:
        shape: (N, C, H, W) of all of them.
        read: From (B,) rows to (B, C, H, W) uint8; several threads may call it.
        mapped: All of them, where they are an array in a file that is mapped into memory.
        decodes: Whether it decodes image files, which is slow.
    """

    shape: tuple[int, ...]
    read: Callable[[Ints], Pixels]
    mapped: Pixels | None = None
    decodes: bool = False


class Stored(Tensor):
    """Images that a reader reads: (N, C, H, W) uint8.

    As of any tensor, `images[a:b]` and `torch.split` are parts that hold nothing, and
    `images[rows]` is a copy of some rows, here on `images.device`. All else reads every image: it
    is for parts that fit into memory.

    Attributes:
        reader: See `Reader`.
        places: (N,) rows that the reader knows the images by.
    """

    reader: Reader
    places: Ints
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(
        cls: type["Stored"],
        reader: Reader,
        places: Ints | None = None,
        device: torch.device | None = None,
    ) -> "Stored":
        """Return the images at some rows of a reader, all by default."""
        places = np.arange(reader.shape[0]) if places is None else places
        shape = (len(places), *reader.shape[1:])
        made: Stored = Tensor._make_wrapper_subclass(cls, shape, dtype=torch.uint8, device=device)
        made.reader, made.places = reader, places
        return made

    def at(self, rows: Ints | slice) -> "Stored":
        """Return some of the images; nothing is read."""
        return Stored(self.reader, self.places[rows], self.device)

    def fetch(self, rows: Ints) -> Tensor:
        """Read some of the images, (B, C, H, W) uint8 on the CPU; pinned for a GPU."""
        chosen = np.asarray(self.places[rows])
        pixels = torch.from_numpy(self.reader.read(chosen.ravel()))
        pixels = pixels.reshape(*chosen.shape, *self.shape[1:])
        return pixels.pin_memory() if self.device.type == "cuda" else pixels

    def whole(self) -> Tensor:
        """Read all images, on their device.

        Raises:
            ValueError: If they are many, and each of them would be decoded.
        """
        first, mapped = int(self.places[0]) if len(self.places) else 0, self.reader.mapped
        if self.reader.decodes and self.nbytes > IN_MEMORY:
            raise ValueError(
                f"this needs all pixels of {len(self)} images at once, {self.nbytes / 1e9:.1f} GB, "
                "and data.copy is false: leave out --no-copy, or use a smaller data.train_size"
            )
        rows = np.arange(len(self))
        if mapped is not None and np.array_equal(self.places, first + rows):
            return torch.from_numpy(mapped[first : first + len(rows)]).to(self.device)
        return self.fetch(rows).to(self.device)

    def numpy(self, *, force: bool = False) -> NDArray[Any]:
        """Return all images as an array, see `whole`."""
        found: NDArray[Any] = self.whole().numpy(force=force)
        return found

    def __repr__(self) -> str:  # type: ignore[override]
        """Return what this is, without the pixels."""
        return f"Stored({tuple(self.shape)}, device={str(self.device)!r})"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls,
        function: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 torch's
        """Take parts and rows without reading more; for all else read all images."""
        images, *rest = args
        kwargs = kwargs or {}
        with torch.inference_mode(mode=False):  # or torch refuses what it takes for views
            found = NotImplemented
            if isinstance(images, Stored) and function in _PARTS:
                found = _PARTS[function](images, *rest, **kwargs)
            if found is NotImplemented:
                args, kwargs = tree_map(_in_memory, (args, kwargs))
                found = function(*args, **kwargs)
        return found


def _in_memory(value: object) -> object:
    return value.whole() if isinstance(value, Stored) else value


def _slice(
    images: Stored,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Any:  # noqa: ANN401
    return images.at(slice(start, end, step)) if dim == 0 else NotImplemented


def _split(images: Stored, size: int, dim: int = 0) -> Any:  # noqa: ANN401
    if dim != 0:
        return NotImplemented
    return [images.at(slice(i, i + size)) for i in range(0, max(1, len(images)), size)]


def _select(images: Stored, dim: int, index: int) -> Any:  # noqa: ANN401
    return images.fetch(np.array(index)).to(images.device) if dim == 0 else NotImplemented


def _index(images: Stored, indices: list[Tensor | None]) -> Any:  # noqa: ANN401
    if len(indices) > 1 or indices[0] is None:
        return NotImplemented
    return images.fetch(indices[0].cpu().numpy()).to(images.device, non_blocking=True)


def _moved(images: Stored, **kept: Any) -> Any:  # noqa: ANN401
    dtype, device = kept.get("dtype"), kept.get("device")
    if dtype not in (None, torch.uint8) or device is None:
        return NotImplemented
    return Stored(images.reader, images.places, device)


_PARTS: dict[Any, Callable[..., Any]] = {
    aten.slice.Tensor: _slice,
    aten.split.Tensor: _split,
    aten.select.int: _select,
    aten.index.Tensor: _index,
    aten._to_copy.default: _moved,
    aten.detach.default: lambda images: images.at(slice(None)),
    aten.alias.default: lambda images: images.at(slice(None)),
}


def tensor_of(images: Pixels | Reader) -> Tensor:
    """Return images as a tensor: an array that is small, or in memory anyway, else `Stored`."""
    if isinstance(images, Reader):
        return Stored(images)
    if not isinstance(images, np.memmap) or images.nbytes <= IN_MEMORY:
        return torch.from_numpy(images)
    return Stored(_of_file(images))


def _of_file(mapped: "np.memmap[Any, np.dtype[np.uint8]]") -> Reader:
    """Read rows of an array file, whose pages stay with the system and not with this process."""
    pixels, drop = np.asarray(mapped), getattr(mmap, "MADV_DONTNEED", None)
    held: Any = mapped._mmap  # type: ignore[attr-defined]

    def read(rows: Ints) -> Pixels:
        found = pixels[rows]
        if drop is not None:
            held.madvise(drop)
        return found

    return Reader(pixels.shape, read, pixels)


def chosen(images: Tensor, rows: Tensor) -> Tensor:
    """Return images at (M,) int64 rows; of stored ones nothing is read."""
    return images.at(rows.cpu().numpy()) if isinstance(images, Stored) else images[rows]


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Return two parts of the same source as one; of stored ones nothing is read."""
    if isinstance(first, Stored) and isinstance(second, Stored) and first.reader is second.reader:
        return Stored(first.reader, np.concatenate([first.places, second.places]), first.device)
    return torch.cat([first, second])


def near(images: Tensor, device: torch.device) -> Tensor:
    """Return images on a device: a copy where that fits, else they are read to it when used."""
    if device.type != "cuda" or images.device == device:
        return images.to(device)
    decoded = isinstance(images, Stored) and images.reader.decodes
    if not decoded and images.nbytes <= _SHARE * torch.cuda.mem_get_info(device)[0]:
        return _moved_whole(images, device)
    if not isinstance(images, Stored):
        pixels = images.numpy()
        images = Stored(Reader(pixels.shape, lambda rows: pixels[rows], pixels))
    return Stored(images.reader, images.places, device)


def _moved_whole(images: Tensor, device: torch.device) -> Tensor:
    found = torch.empty(images.shape, dtype=torch.uint8, device=device)
    for start in range(0, len(images), _MOVED):
        end = min(start + _MOVED, len(images))
        found[start:end] = images[torch.arange(start, end)]
    return found


def rows_ahead(images: Tensor, batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of images in their order, of stored ones with the next ones being read.

    Args:
        images: (N, C, H, W) uint8.
        batches: (B,) int64 rows of each; of stored images on the CPU.

    Yields:
        Its rows, and the images, (B, C, H, W) uint8 on their device.
    """
    if not isinstance(images, Stored):
        yield from ((rows, images[rows.to(images.device)]) for rows in batches)
        return

    def read(rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows, images.fetch(rows.numpy())

    with ThreadPoolExecutor(_AHEAD) as pool:
        for rows, pixels in in_order(pool, read, batches, _AHEAD):
            yield rows, pixels.to(images.device, non_blocking=True)
