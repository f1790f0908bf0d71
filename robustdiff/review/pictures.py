"""The images of a review: small ones from memory, and the files that they come from."""

import numpy as np
from numpy.typing import NDArray

from robustdiff.data.arrays import Images
from robustdiff.data.decode import short_digest
from robustdiff.reports.pictures import png_bytes

_LARGE = 64 * 2**20  # bytes of a file that takes too long to show
# Beginnings of the files that every browser shows.
_KINDS = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


class Pictures:
    """Images by the number of their sample, and nothing else.

    Args:
        images: The dataset; its training part is reviewed.
        rows: (N,) which samples of the run these images are.
        files: The name of each image of the run; None without names.
    """

    def __init__(
        self, images: Images, rows: NDArray[np.int64], files: tuple[str, ...] | None
    ) -> None:
        self._pixels = images.train
        self._row = {number: row for row, number in enumerate(rows.tolist())}
        self._files = files
        self._store = images.store
        self._digests = images.digests

    def name(self, number: int) -> str | None:
        """Return the name of an image, relative to its source; None if it has none."""
        return None if self._files is None else self._files[number]

    def is_as_read(self, number: int) -> bool:
        """Return whether the image of a sample is still what was read at the start."""
        if number not in self._row:
            return False
        if self._store is None or self._digests is None:
            return True
        try:
            with self._store.open(str(self.name(number))) as file:
                found = short_digest(file.read())
        except (OSError, ValueError):  # the file is gone, or the one that held it was changed
            return False
        return found == self._digests[self._row[number]]

    def _is_there(self, number: int) -> bool:
        return self._store is None or self._store.holds(str(self.name(number)))

    def small(self, number: int) -> bytes:
        """Return the image as the judge saw it, as PNG.

        Raises:
            KeyError: If there is none of this number.
        """
        return png_bytes(self._pixels[self._row[number]], compress_level=1)

    def original(self, number: int) -> tuple[bytes, str] | None:
        """Return the file of an image and its MIME type; None if no browser would show it well.

        Raises:
            KeyError: If there is no image of this number.
        """
        if number not in self._row:
            raise KeyError(number)
        if self._store is None or not self._is_there(number):
            return None
        with self._store.open(str(self.name(number))) as file:
            content = file.read(_LARGE + 1)
        if len(content) > _LARGE:
            return None
        kind = next((kind for start, kind in _KINDS.items() if content.startswith(start)), None)
        return None if kind is None else (content, kind)
