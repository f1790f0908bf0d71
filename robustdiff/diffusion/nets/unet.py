"""The noise estimator: a U-Net with spatial attention and a class embedding at every level.

Figure 1 of the paper: encoder levels of convolution, self-attention, class embedding and
max-pooling; a bottleneck; a decoder that mirrors the encoder and takes its skip connections. The
time embedding is added in every level.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdiff.config.sections import ModelConfig
from robustdiff.diffusion.nets.convolution import Conv
from robustdiff.diffusion.nets.embeddings import (
    ClassEmbeddingNetwork,
    TimeEmbedding,
    broadcast_concat,
    class_embedding_sizes,
)
from robustdiff.diffusion.nets.normalisation import Norm
from robustdiff.diffusion.process import for_labels

_ACTIVATIONS = {"silu": F.silu, "relu": F.relu}
# Tokens of a class that a level attends to; attention to a single one would be constant.
_TOKENS = 4
# Longest sequence whose whole attention matrix is held; beyond it memory would grow quadratically.
_WHOLE_ATTENTION = 1024
# Numbers of attention matrices that are made at once: so many stay in a core's cache, nearly.
_SCORES_AT_ONCE = 5 * 2**19


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return `softmax(query key^T / sqrt(D)) value`.

    Args:
        query: (B, heads, L, D).
        key: (B, heads, S, D).
        value: (B, heads, S, D).

    Returns:
        (B, heads, L, D).
    """
    batch, heads, length, _ = query.shape
    if key.shape[2] == 1:  # which gets all of the attention
        return value.expand(query.shape)
    short = key.shape[2] <= _WHOLE_ATTENTION
    if not (short and query.device.type == "cpu" and query.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(query, key, value)
    # torch's flash attention on CPUs takes up to ten times as long backwards in bfloat16.
    images = max(1, _SCORES_AT_ONCE // (heads * length * key.shape[2]))
    if images >= batch:
        return _by_products(query, key, value)
    parts = (torch.split(part, images) for part in (query, key, value))
    return torch.cat([_by_products(*part) for part in zip(*parts, strict=True)])


def _by_products(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return what `attend` does; the (B, heads, L, S) matrix is held whole."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    mixed: Tensor = scores.softmax(-1) @ value
    return mixed


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with the time added between them, around a skip connection.

    With `adaptive` normalisation the time scales and shifts the normalised features between them
    instead (AdaGN; Dhariwal & Nichol 2021, section 3.1).
    """

    def __init__(
        self, inputs: int, outputs: int, time_size: int, *,
        first: bool = False, adaptive: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.adaptive = adaptive
        # The first block sees pixels: normalising them would hide the noise level.
        self.pre = nn.Identity() if first else nn.Sequential(Norm(inputs, activate=True))
        self.conv1 = Conv(inputs, outputs, 3)
        self.time = nn.Linear(time_size, 2 * outputs if adaptive else outputs)
        self.mid = nn.Sequential(Norm(outputs, activate=True))
        self.conv2 = Conv(outputs, outputs, 3)
        nn.init.zeros_(self.conv2.weight)
        self.skip = Conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map (B, inputs, H, W) and the (B, time_size) embedding to (B, outputs, H, W)."""
        h = self.conv1(self.pre(x))
        shift = self.time(time)[:, :, None, None]
        if self.adaptive:
            scale, shift = shift.float().chunk(2, dim=1)
            h = self.mid[0](h, 1 + scale, shift)
        else:
            h = self.mid(h + shift.to(h.dtype))
        out: Tensor = self.skip(x) + self.conv2(h)
        return out


class SpatialAttention(nn.Module):
    """Residual multi-head self-attention over the H x W positions of one image."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = Norm(channels)
        self.qkv = Conv(channels, 3 * channels, 1)
        self.out = Conv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape; images of a batch do not see each other."""
        b, c, h, w = x.shape
        qkv = self.qkv(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, 3, self.heads, -1)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = attend(query, key, value)
        mixed = mixed.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
        out: Tensor = x + self.out(mixed)
        return out


class ClassAttention(nn.Module):
    """Residual attention from the H x W positions of an image to the tokens of its class."""

    def __init__(self, channels: int, heads: int, token_size: int, tokens: nn.Module) -> None:
        super().__init__()
        self.heads, self.token_size = heads, token_size
        self.tokens = tokens
        self.norm = Norm(channels)
        self.query = Conv(channels, channels, 1)
        self.key_value = nn.Linear(token_size, 2 * channels)
        self.out = Conv(channels, channels, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """Map (B, C, H, W) and (B,) labels to (B, C, H, W)."""
        b, c, h, w = x.shape
        query = self.query(self.norm(x)).permute(0, 2, 3, 1).reshape(b, h * w, self.heads, -1)
        tokens = self.tokens(labels).reshape(b, -1, self.token_size)
        key, value = (
            part.reshape(b, tokens.shape[1], self.heads, -1).transpose(1, 2)
            for part in self.key_value(tokens).chunk(2, dim=-1)
        )
        mixed = attend(query.transpose(1, 2), key, value)
        mixed = mixed.transpose(1, 2).reshape(b, h, w, c).permute(0, 3, 1, 2)
        out: Tensor = x + self.out(mixed)
        return out


class Level(nn.Module):
    """Convolution block, attention, then the class: attended to, or concatenated to every pixel."""

    def __init__(
        self,
        block: ResidualBlock,
        attention: SpatialAttention,
        *,
        cross: ClassAttention | None,
        cen: ClassEmbeddingNetwork | None,
    ) -> None:
        super().__init__()
        self.block = block
        self.attention = attention
        self.cross = cross
        self.cen = cen

    def forward(self, x: Tensor, time: Tensor, labels: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs + class size, H, W).

        With M labels an image, the layers before the class are computed once for all of them.
        """
        h: Tensor = self.attention(self.block(x, for_labels(time, x.shape[0])))
        if self.cross is not None or self.cen is not None:
            h = for_labels(h, labels.shape[0])
        if self.cross is not None:
            h = self.cross(h, labels)
        return h if self.cen is None else broadcast_concat(h, self.cen(labels))


class UNet(nn.Module):
    """Predict eps, x_0 or v from a noisy image, its time and its class.

    Args:
        config: Sizes. The paper's encoder [1, 128, 256, 256] with a 1024-channel bottleneck has
            `channels` [128, 256, 256, 1024].
        image_channels: C of the images.
        num_classes: K; class K is the null class.

    Raises:
        ValueError: If the class embedding is unknown, or the heads do not divide the channels.
    """

    def __init__(self, config: ModelConfig, *, image_channels: int, num_classes: int) -> None:
        super().__init__()
        channels, time_size = config.channels, config.time_size
        if any(width % config.heads for width in channels):
            raise ValueError(
                f"model.heads must divide all of model.channels {list(channels)}, "
                f"got {config.heads}"
            )
        self.patch_size = config.patch_size
        pixels = image_channels * config.patch_size**2
        sizes = class_embedding_sizes(config.cen, pixels, channels)
        self.time = TimeEmbedding(time_size)

        def embedding(size: int) -> ClassEmbeddingNetwork:
            return ClassEmbeddingNetwork(
                num_classes,
                size,
                hidden=size if config.cen_hidden == "size" else config.cen_hidden,
                depth=config.cen_depth,
                activate=_ACTIVATIONS[config.cen_activation],
            )

        def level(inputs: int, outputs: int, size: int, *, first: bool = False) -> Level:
            cen = embedding(size) if size else None
            adaptive = config.cen == "adagn"
            block = ResidualBlock(inputs, outputs, time_size, first=first, adaptive=adaptive)
            attention = SpatialAttention(outputs, config.heads)
            cross = None
            if config.cen == "cross-attention":
                tokens = embedding(_TOKENS * time_size)
                cross = ClassAttention(outputs, config.heads, time_size, tokens)
            return Level(block, attention, cross=cross, cen=cen)

        self.add = embedding(time_size) if config.cen in ("add", "adagn") else None
        after = [width + size for width, size in zip(channels, sizes, strict=False)]
        inputs = [pixels, *after[:-1]]
        self.encoder = nn.ModuleList(
            level(inputs[i], width, sizes[i], first=i == 0) for i, width in enumerate(channels)
        )
        self.bottleneck = level(after[-1], channels[-1], sizes[-1])
        self.decoder = nn.ModuleList()
        below = channels[-1] + sizes[-1]
        mirrored = [channels[0], *channels[:-1]]
        for i in reversed(range(len(channels))):
            self.decoder.append(level(below + after[i], mirrored[i], sizes[i]))
            below = mirrored[i] + sizes[i]
        out = Conv(below, pixels, 3)
        nn.init.zeros_(out.weight)
        nn.init.zeros_(out.bias)  # type: ignore[arg-type]
        # The empty place keeps the names of the weights what they were.
        self.head = nn.Sequential(Norm(below, activate=True), nn.Identity(), out)

    def levels(self) -> list[nn.Module]:
        """Return the levels in order of use; they hold nearly all weights."""
        return [*self.encoder, self.bottleneck, *self.decoder]

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Predict from noisy images.

        Args:
            x_t: (B, C, H, W) float32.
            t: (B,) times in [0, 1].
            labels: (B,) int64 in [0, K], K for the null class; or (B M,), M labels for each image,
                image by image. The layers before the first that sees the class then run once an
                image; with the complete bottleneck that is the whole encoder.

        Returns:
            (B, C, H, W), or (B M, C, H, W), zero before training.
        """
        time = self.time(t)
        if self.add is not None:
            time = for_labels(time, labels.shape[0]) + self.add(labels)
        time = F.silu(time)
        h = for_labels(F.pixel_unshuffle(x_t, self.patch_size), time.shape[0])
        h = h.contiguous(memory_format=torch.channels_last)
        skips: list[Tensor] = []
        for i, encode in enumerate(self.encoder):
            h = encode(F.max_pool2d(h, 2) if i else h, time, labels)
            skips.append(h)
        h = self.bottleneck(h, time, labels)
        for decode, skip in zip(self.decoder, reversed(skips), strict=True):
            if h.shape[2:] != skip.shape[2:]:
                h = F.interpolate(h, size=skip.shape[2:], mode="nearest")
            h = decode(torch.cat([h, for_labels(skip, h.shape[0])], dim=1), time, labels)
        return for_labels(F.pixel_shuffle(self.head(h), self.patch_size), labels.shape[0])


def smallest_image(config: ModelConfig) -> int:
    """Return the smallest image side that survives the network's poolings."""
    return int(config.patch_size * 2 ** (len(config.channels) - 1))
