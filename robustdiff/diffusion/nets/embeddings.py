"""Embeddings of time and class, and the patterns of class embedding sizes."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TimeEmbedding(nn.Module):
    """Sinusoids of t followed by a two-layer perceptron.

    Attributes:
        size: Length of the embedding (100 in the paper).
    """

    frequencies: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        half = size // 2
        # Periods from 1e-3 to 10 in units of t, as for 1000 integer steps.
        frequencies = 1000 * torch.exp(-math.log(10_000) * torch.arange(half) / half)
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * half, size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: Tensor) -> Tensor:
        """Embed (B,) times in [0, 1] as (B, size)."""
        angles = t.float()[:, None] * self.frequencies
        embedded: Tensor = self.layers(torch.cat([angles.sin(), angles.cos()], dim=1))
        return embedded


class ClassEmbeddingNetwork(nn.Module):
    """Map a class, the null class included, to a vector (section 3.2 of the paper).

    A perceptron on the one-hot class; its first layer is a table, which is equivalent.

    Attributes:
        null: Row of the null class, K.
    """

    def __init__(
        self,
        num_classes: int,
        size: int,
        *,
        hidden: int,
        depth: int,
        activate: Callable[[Tensor], Tensor] = F.silu,
    ) -> None:
        super().__init__()
        self.null = num_classes
        self.activate = activate
        widths = [hidden] * depth
        self.table = nn.Embedding(num_classes + 1, widths[0])
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.out = nn.Linear(widths[-1], size)

    def forward(self, labels: Tensor) -> Tensor:
        """Embed (B,) int64 labels in [0, K] as (B, size)."""
        h = self.activate(self.table(labels))
        for layer in self.hidden:
            h = self.activate(layer(h))
        embedded: Tensor = self.out(h)
        return embedded


def broadcast_concat(h: Tensor, vector: Tensor) -> Tensor:
    """Concatenate a (B, E) vector to every pixel of (B, C, H, W), giving (B, C + E, H, W)."""
    tiled = vector.to(h.dtype)[:, :, None, None].expand(-1, -1, *h.shape[2:])
    return torch.cat([h, tiled], dim=1).contiguous(memory_format=torch.channels_last)


# Each pattern maps (input channels of the encoder levels, bottleneck channels) to one size per
# encoder level and one for the bottleneck; the decoder mirrors. With the paper's channels they
# give its vectors, e.g. pyramid = [1, 128, 256, 256, 512].
CEN_PATTERNS: dict[str, Callable[[Sequence[int], int], list[int]]] = {
    "pyramid": lambda inputs, bottleneck: [*inputs, bottleneck // 2],
    "bottleneck": lambda inputs, bottleneck: [1] * len(inputs) + [bottleneck],
    "complete-bottleneck": lambda inputs, bottleneck: [0] * len(inputs) + [bottleneck],
    "add": lambda inputs, bottleneck: [0] * (len(inputs) + 1),
    "adagn": lambda inputs, bottleneck: [0] * (len(inputs) + 1),
    "cross-attention": lambda inputs, bottleneck: [0] * (len(inputs) + 1),
}


def class_embedding_sizes(cen: str, image_channels: int, channels: Sequence[int]) -> list[int]:
    """Resolve a class embedding pattern to its vector of sizes.

    Args:
        cen: A key of `CEN_PATTERNS`, "uniform-I" for I everywhere, or the vector itself as
            comma-separated integers. Three concatenate nothing: "add" adds the class to the time
            embedding; "adagn" does so too, and the sum scales and shifts the normalised features of
            every level (Dhariwal & Nichol 2021); in "cross-attention" every level attends to tokens
            of the class.
        image_channels: Channels of the image (of the first level's input).
        channels: Output channels of the L encoder levels; the last are the bottleneck's.

    Returns:
        L + 1 sizes, at least 0; 0 means that nothing is concatenated at that level.

    Raises:
        ValueError: If `cen` is none of these, or has the wrong length.
    """
    if cen in CEN_PATTERNS:
        return CEN_PATTERNS[cen]([image_channels, *channels[:-1]], channels[-1])
    levels = len(channels) + 1
    text = cen.removeprefix("uniform-")
    try:
        sizes = [int(text)] * levels if text != cen else [int(part) for part in cen.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) != levels or min(sizes) < 0:
        raise ValueError(
            f"cen must be one of {', '.join(CEN_PATTERNS)}, uniform-<size>, or {levels} "
            f"comma-separated sizes >= 0 (one per level and one for the bottleneck), got {cen!r}"
        )
    return sizes
