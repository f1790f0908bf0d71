"""Group normalisation with what follows it: a scale and shift of each image, and SiLU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Numbers from which on a part of them is normalised at a time: no cache holds them; and the part.
_MANY, _PIECE = 2**21, 2**18


class Norm(nn.GroupNorm):
    """Normalise in groups of about 8 channels (any channel count has a divisor that does).

    Always in float32: statistics need it, and torch's kernel for bfloat16 in channels_last order
    takes several times as long on CPUs.

    Args:
        channels: C of the inputs.
        activate: Whether SiLU follows.
    """

    def __init__(self, channels: int, *, activate: bool = False) -> None:
        groups = max(1, channels // 8)
        while channels % groups:
            groups -= 1
        super().__init__(groups, channels)
        self.activate = activate

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None
    ) -> Tensor:
        """Normalise, map y to `scale * y + shift` if they are given, and activate.

        Args:
            x: (B, C, H, W).
            scale: (B, C, 1, 1) float32, or None.
            shift: The same.

        Returns:
            Of the shape of `x`, float32; bfloat16 where that would not fit into a cache.
        """
        half = x.device.type == "cpu" and x.dtype == torch.bfloat16
        if half and not torch.compiler.is_compiling() and x.numel() >= _MANY:
            made: Tensor = _Normalise.apply(x, self.weight, self.bias, scale, shift, self)
            return made
        y = super().forward(x.float())
        if scale is not None and shift is not None:
            y = torch.addcmul(shift, y, scale)
        return F.silu(y) if self.activate else y


class _Normalise(torch.autograd.Function):
    """`Norm` of bfloat16 on a CPU, a few images at a time.

    Every number is read from memory and written to it once, as bfloat16. Of all that is computed
    between, in float32, only the statistics are kept; the backward pass computes the rest again,
    which takes longer where a cache holds all of it.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        norm: Norm,
    ) -> Tensor:
        ctx.norm = norm
        made = torch.empty_like(x)
        statistics = []
        for rows in _pieces(x):
            part = x[rows].float()
            y, mean, deviation = _group_norm(part, weight, bias, norm)
            if scale is not None and shift is not None:
                y = torch.addcmul(shift[rows], y, scale[rows])
            made[rows] = F.silu(y, inplace=True) if norm.activate else y
            statistics.append((mean, deviation))
        mean, inverse = (torch.cat(parts) for parts in zip(*statistics, strict=True))
        ctx.save_for_backward(x, weight, bias, scale, shift, mean, inverse)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        x, weight, bias, scale, shift, mean, inverse = ctx.saved_tensors
        norm = ctx.norm
        of_x = torch.empty_like(x)
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        of_scale, of_shift = (
            None if part is None else torch.empty_like(part) for part in (scale, shift)
        )
        for rows in _pieces(x):
            part, grown = x[rows].float(), gradient[rows].float()
            y = _affine(part, weight, bias, mean[rows], inverse[rows])
            if norm.activate:
                z = y if scale is None else torch.addcmul(shift[rows], y, scale[rows])
                grown = torch.ops.aten.silu_backward(grown, z)
            if of_scale is not None and of_shift is not None:
                of_shift[rows] = grown.sum((2, 3), keepdim=True)
                of_scale[rows] = (grown * y).sum((2, 3), keepdim=True)
                grown = grown * scale[rows]
            b, c, h, w = part.shape
            ofs = torch.ops.aten.native_group_norm_backward(
                grown,
                part,
                mean[rows],
                inverse[rows],
                weight,
                b,
                c,
                h * w,
                norm.num_groups,
                [True] * 3,
            )
            of_x[rows] = ofs[0]
            of_weight += ofs[1]
            of_bias += ofs[2]
        return of_x, of_weight, of_bias, of_scale, of_shift, None


def _pieces(x: Tensor) -> list[slice]:
    """Return slices of a batch, of about equal length and few enough numbers each."""
    pieces = -(-x.numel() // _PIECE)
    size = max(1, -(-x.shape[0] // max(1, pieces)))
    return [slice(i, i + size) for i in range(0, x.shape[0], size)]


def _group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the normalised x, and (B, groups) means and inverse standard deviations."""
    b, c, h, w = x.shape
    made: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm(
        x, weight, bias, b, c, h * w, norm.num_groups, norm.eps
    )
    return made


def _affine(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """Return the normalised x by its statistics."""
    factor = (inverse[:, :, None] * weight.view(1, mean.shape[1], -1)).flatten(1)
    offset = bias - (mean[:, :, None] * factor.view(*mean.shape, -1)).flatten(1)
    return torch.addcmul(offset[:, :, None, None], x, factor[:, :, None, None])
