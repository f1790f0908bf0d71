"""Random numbers as a pure function of (seed, stream, step, sample).

Philox4x32-10 (Salmon et al., 2011) turns a counter and a key into 128 random bits, so any draw can
be repeated alone: sample 17 gets the same noise in any batch, on any rank, after any resume, and no
generator state has to be saved. The key comes from (seed, stream), the counter from the rest.
"""

import math
from enum import IntEnum

import numpy as np
import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


class Stream(IntEnum):
    """What a random draw is for; two streams of one seed are independent."""

    INIT = 0
    TIME = 1
    NOISE = 2
    LABEL_DROP = 3
    PROBE = 4
    PROBE_DROP = 5
    SAMPLE = 6
    SAMPLE_STEP = 7
    CROSSFIT = 8
    SOFT_LABEL = 9
    TIME_CLASSIFIER = 10
    LIKELIHOOD = 11


def check_seed(seed: int) -> None:
    """Refuse a seed below 0.

    Raises:
        ValueError: If it is.
    """
    if seed < 0:
        raise ValueError(f"seed must be at least 0, got {seed}")


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Return four 32-bit words per counter.

    Args:
        counter: Four int64 tensors of one broadcastable shape, values in [0, 2**32).
        key: Two integers in [0, 2**32).

    Returns:
        Four int64 tensors of the broadcast shape, values in [0, 2**32).
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap modulo 2**64; the bits are those of the unsigned product.
        product_0, product_1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c2 = (
            ((product_1 >> 32) & _MASK) ^ c1 ^ k0,
            ((product_0 >> 32) & _MASK) ^ c3 ^ k1,
        )
        c1, c3 = product_1 & _MASK, product_0 & _MASK
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return [c0, c1, c2, c3]


def stream_seed(seed: int, stream: Stream, *numbers: int) -> int:
    """Return a 63-bit seed for a library that wants one integer.

    Args:
        seed: Seed of the run, at least 0.
        stream: What the library draws.
        numbers: Of the sample, say, where each has a generator of its own.
    """
    return (
        int(np.random.SeedSequence([seed, stream, *numbers]).generate_state(1, np.uint64)[0]) >> 1
    )


def _words(
    seed: int, stream: Stream, step: int | Tensor, samples: Tensor, blocks: int, draw: int
) -> list[Tensor]:
    """Return four (B, blocks) int64 tensors of 32-bit words."""
    state = np.random.SeedSequence([seed, stream]).generate_state(2, np.uint32)
    device = samples.device
    block = torch.arange(blocks, device=device)[None, :]
    fill = torch.zeros_like(block)
    counter = (block, fill + draw, fill + step, samples.to(torch.int64)[:, None] & _MASK)
    shape = (len(samples), blocks)
    return philox(
        (*(word.expand(shape) for word in counter),),  # type: ignore[arg-type]
        (int(state[0]), int(state[1])),
    )


def uniform(
    seed: int,
    stream: Stream,
    step: int | Tensor,
    samples: Tensor,
    *,
    draw: int = 0,
    count: int = 1,
) -> Tensor:
    """Draw uniform numbers in (0, 1), one row per sample.

    Args:
        seed: Seed of the run, at least 0.
        stream: What the draw is for.
        step: Training step, scoring round or sampling step, in [0, 2**32); () int64 if a tensor.
        samples: (B,) int64 sample indices in [0, 2**32).
        draw: Number of the draw within the step, for several probes of one sample.
        count: Numbers per sample.

    Returns:
        (B, count) float64 on the device of `samples`.
    """
    words = _words(seed, stream, step, samples, -(-count // 4), draw)
    bits = torch.stack(words, dim=-1).flatten(1)[:, :count]
    return (bits.double() + 0.5) / 2**32


def normal(
    seed: int,
    stream: Stream,
    step: int | Tensor,
    samples: Tensor,
    shape: tuple[int, ...],
    *,
    draw: int = 0,
) -> Tensor:
    """Draw standard normal numbers by the Box-Muller transform, one tensor per sample.

    Args:
        seed: Seed of the run, at least 0.
        stream: What the draw is for.
        step: Training step, scoring round or sampling step, in [0, 2**32); () int64 if a tensor.
        samples: (B,) int64 sample indices in [0, 2**32).
        shape: Shape of one sample.
        draw: Number of the draw within the step, for several probes of one sample.

    Returns:
        (B, *shape) float32 on the device of `samples`.
    """
    size = math.prod(shape)
    a, b, c, d = _words(seed, stream, step, samples, -(-size // 4), draw)
    # +1 keeps the logarithm finite; 2**-32 is exact in float32.
    radius = torch.sqrt(-2 * torch.log((torch.cat([a, c], 1).float() + 1) * 2**-32).clamp(max=0))
    angle = torch.cat([b, d], 1).float() * (2 * math.pi * 2**-32)
    values = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    return values[:, :size].reshape(len(samples), *shape)
