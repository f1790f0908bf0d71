"""A convolution that is computed as one matrix product where images are small."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A product is faster up to so many positions an image and, 3x3, from so many weights on.
_FEW_POSITIONS, _MANY_WEIGHTS = 16, 2**21


class Conv(nn.Conv2d):
    """A 1x1 or 3x3 convolution that keeps the size of its input.

    On a CPU, torch's convolution takes up to four times as long as a matrix product of the same
    numbers where an image has few positions: its backward pass is slow there, and a 3x3 kernel on
    a single position multiplies zeros by eight of its nine weights.

    Args:
        inputs: Channels of the input.
        outputs: Channels of the output.
        size: 1 or 3, side of the kernel.
    """

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__(inputs, outputs, size, padding=size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, H, W) to (B, outputs, H, W)."""
        positions, size = x.shape[2] * x.shape[3], self.kernel_size[0]
        if x.device.type != "cpu" or positions > _FEW_POSITIONS:
            return super().forward(x)
        last, weight = x.permute(0, 2, 3, 1), self.weight.permute(0, 2, 3, 1)  # channels last
        if size == 1 or positions == 1:
            weight = weight[:, size // 2, size // 2]
        elif self.weight.numel() >= _MANY_WEIGHTS:
            last, weight = neighbourhoods(last), weight.flatten(1)
        else:
            return super().forward(x)
        return F.linear(last, weight, self.bias).permute(0, 3, 1, 2)


def neighbourhoods(x: Tensor) -> Tensor:
    """Return (B, H, W, 9 C) of (B, H, W, C): each position's 3 x 3 surroundings, 0 outside."""
    height, width = x.shape[1:3]
    padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    return torch.cat(
        [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], dim=-1
    )
