"""A small classifier of noisy images that knows how noisy they are."""

import torch.nn.functional as F
from torch import Tensor, nn

from robustdiff.diffusion.nets.embeddings import TimeEmbedding

_WIDTHS = (32, 48, 64)
_TIME_SIZE = 32


class TimeClassifier(nn.Module):
    """Classify x_t at any time t.

    Three convolutions with the time added after each, as in a noise estimator; averaged over 2 x 2
    cells, so that any image size fits.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        inputs = (channels, *_WIDTHS[:-1])
        self.time = nn.Sequential(TimeEmbedding(_TIME_SIZE), nn.SiLU())
        self.convolve = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(inputs, _WIDTHS, strict=True)
        )
        self.shift = nn.ModuleList(nn.Linear(_TIME_SIZE, width) for width in _WIDTHS)
        self.norm = nn.ModuleList(nn.GroupNorm(width // 16, width) for width in _WIDTHS)
        self.classify = nn.Sequential(
            nn.Linear(_WIDTHS[-1] * 4, 64), nn.SiLU(), nn.Linear(64, num_classes)
        )

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        """Return (B, K) logits of (B, C, H, W) float32 images at (B,) times."""
        time = self.time(t)
        h = x_t
        for number, (convolve, shift, norm) in enumerate(
            zip(self.convolve, self.shift, self.norm, strict=True)
        ):
            if number and min(h.shape[2:]) >= 4:
                h = F.max_pool2d(h, 2)
            h = F.silu(norm(convolve(h) + shift(time)[:, :, None, None]))
        logits: Tensor = self.classify(F.adaptive_avg_pool2d(h, 2).flatten(1))
        return logits
