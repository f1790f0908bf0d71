"""Images as training sees them: shifted, and mirrored where that keeps the class."""

import torch
import torch.nn.functional as F
from torch import Tensor

# Images are shifted at random by up to this share of their size. Without it the features of a small
# training set are tighter than those of unseen images, and real images fail the density test.
_MAX_SHIFT = 1 / 8


def augmented(images: Tensor, generator: torch.Generator, *, flip: bool) -> Tensor:
    """Shift each image at random and repeat its border; mirror half of them.

    Args:
        images: (B, C, H, W) float32.
        generator: On the CPU; it moves on.
        flip: Whether to mirror.

    Returns:
        (B, C, H, W), channels last in memory.
    """
    height, width = images.shape[2:]
    reach = int(min(height, width) * _MAX_SHIFT)
    padded = F.pad(images, (reach,) * 4, mode="replicate").permute(0, 2, 3, 1).contiguous()
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
    down, right = offsets.to(images.device)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    if flip:
        mirrored = torch.rand(len(images), generator=generator).to(images.device) < 0.5
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    rows = (down[:, None] + torch.arange(height, device=images.device))[:, :, None]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[which, rows, (right[:, None] + columns)[:, None, :]].permute(0, 3, 1, 2)
