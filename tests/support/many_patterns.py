"""Images of many classes: a pattern of colours each, and noise; three labels in ten are wrong."""

import torch
import torch.nn.functional as F

from corruptions import NoisyLabels, corrupt
from robustdiff.data.arrays import Images

K, EACH, SIDE, NOISE = 200, 20, 8, 0.15


def many_patterns() -> tuple[Images, NoisyLabels]:
    """Return images and their labels; the first of every class are held out as well."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(K, 3, 3, 3, generator=generator)
    patterns = F.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")
    clean = torch.arange(K).repeat(EACH)
    noise = NOISE * torch.randn(len(clean), 3, SIDE, SIDE, generator=generator)
    train = (255 * (patterns[clean] + noise).clamp(0, 1)).byte()
    images = Images(
        name="patterns",
        train=train,
        train_labels=clean,
        test=train[:K],
        test_labels=clean[:K],
        class_names=tuple(map(str, range(K))),
    )
    return images, corrupt(clean.numpy(), num_classes=K, rate=0.3, seed=0)
