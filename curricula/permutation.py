"""A permutation computed by index: the sample at any place of an epoch, without the others.

A Feistel network (Luby and Rackoff 1988) is a bijection of numbers of 2 w bits, whatever its round
function, here the finaliser of SplitMix64 under a key for every round. Where it leaves [0, N) it is
applied again until it does not (cycle walking, Black and Rogaway 2002), at most four times on
average. So it takes no memory and no time before the first batch.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from curricula.types import Indices

_ROUNDS = 8
_GOLDEN, _FIRST, _SECOND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
# Places that are computed at a time.
_PIECE = 1 << 20

Words = NDArray[np.uint64]


@dataclass(frozen=True)
class Permutation:
    """A permutation of [0, N), read like an array of N indices.

    Attributes:
        keys: (R,) uint64, one for each round.
        count: N.
    """

    keys: Words
    count: int

    @classmethod
    def of(cls, count: int, *entropy: int) -> Self:
        """Return the permutation that belongs to some numbers of at least 0, such as a seed."""
        keys = np.random.SeedSequence(entropy).generate_state(_ROUNDS, np.uint64)
        return cls(keys.astype(np.uint64), count)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, places: slice) -> Indices:
        """Return the indices at a slice of places; int32 below 2**31 samples."""
        words = self._mixed(np.arange(*places.indices(self.count), dtype=np.uint64))
        while (beyond := words >= self.count).any():
            words[beyond] = self._mixed(words[beyond])
        return words.astype(np.int32 if self.count <= np.iinfo(np.int32).max else np.int64)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:  # noqa: ANN401 what numpy passes
        parts = [self[start : start + _PIECE] for start in range(0, self.count, _PIECE)]
        found = np.concatenate(parts)
        return found if dtype is None else found.astype(dtype)

    def _mixed(self, words: Words) -> Words:
        """Apply the network to numbers below 4**w, the least such that is N or more."""
        half = np.uint64(max(1, -(-(self.count - 1).bit_length() // 2)))
        mask = (np.uint64(1) << half) - np.uint64(1)
        left, right = words >> half, words & mask
        for key in self.keys:
            left, right = right, left ^ (_hashed(right + key) & mask)
        return (left << half) | right


def _hashed(words: Words) -> Words:
    words = words * _GOLDEN
    words = (words ^ (words >> np.uint64(30))) * _FIRST
    words = (words ^ (words >> np.uint64(27))) * _SECOND
    return words ^ (words >> np.uint64(31))
