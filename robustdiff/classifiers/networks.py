"""Networks that classify images: a small one, and a deeper one for natural images."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdiff.data.arrays import to_float

# Smaller images are enlarged by a whole factor.
_LEAST_SIDE = 8
# Colour images from this side on are taken for natural ones, for which the deeper network pays.
_NATURAL_SIDE = 16
_WIDTHS = (32, 128, 128)
# The first layer whitens patches of so many pixels a side; its scale is estimated from so many
# images, read so many at once, and directions of less variance than this are not blown up.
_PATCH, _WHITENED_BY, _WHITENED_AT_ONCE, _LEAST_VARIANCE = 2, 2000, 100, 5e-4


class ImageClassifier(nn.Module):
    """Classify images of any size, and expose a small feature space.

    The features are the batch-normalised inputs of the last hidden layer: over the training images
    each has mean 0 and variance 1, so that distances in this space have one scale for all datasets.
    There are few of them because a class-wise Frechet distance must estimate their covariance from
    the samples of one class.

    Args:
        trunk: Maps (B, C, H, W) float32 images in [-1, 1] to (B, width).
        width: Of its output.
        num_classes: K.
        num_features: D.

    Attributes:
        num_classes: K.
        num_features: D.
    """

    def __init__(
        self, trunk: nn.Module, width: int, num_classes: int, num_features: int = 32
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        self.trunk = trunk
        self.project = nn.Linear(width, num_features, bias=False)
        self.normalise = nn.BatchNorm1d(num_features, affine=False)
        self.classify = nn.Linear(num_features, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 images in [-1, 1] to (B, D) features."""
        features: Tensor = self.normalise(self.project(self.trunk(images)))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, K) logits."""
        logits: Tensor = self.classify(F.relu(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 images in [-1, 1] to (B, K) logits."""
        return self.logits(self.features(images))


class _SmallTrunk(nn.Module):
    """Three convolutions, averaged over 2 x 2 cells, which keep a coarse position."""

    width = 256

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.stages = nn.Sequential(
            *_normalised(channels, 24),
            nn.MaxPool2d(2),
            *_normalised(24, 48),
            nn.MaxPool2d(2),
            *_normalised(48, 64),
        )

    def forward(self, images: Tensor) -> Tensor:
        if (side := min(images.shape[2:])) < _LEAST_SIDE:  # two poolings must leave something
            images = F.interpolate(images, scale_factor=-(-_LEAST_SIDE // side), mode="nearest")
        return F.adaptive_avg_pool2d(self.stages(images), 2).flatten(1)


def _normalised(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


class _NaturalTrunk(nn.Module):
    """Whitened patches, then blocks of two convolutions that halve the side (as Page 2018 has it).

    A larger image gets more blocks, so that the last one sees about 3 x 3 cells.
    """

    width = _WIDTHS[-1]

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        whitened = 2 * channels * _PATCH**2
        self.whiten = nn.Conv2d(channels, whitened, _PATCH).requires_grad_(requires_grad=False)
        more = max(0, round(math.log2(side / 32)))
        widths = (whitened, *_WIDTHS, *[_WIDTHS[-1]] * more)
        self.blocks = nn.Sequential(*map(_block, widths[:-1], widths[1:]))

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.blocks(F.gelu(self.whiten(images)))
        return found.amax(dim=(2, 3))


def _block(channels_in: int, channels_out: int) -> nn.Module:
    first = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    second = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
    for convolution in (first, second):
        # Channels pass through at first, so that the early layers learn from the first step on.
        nn.init.dirac_(convolution.weight[:channels_in].data)
    return nn.Sequential(
        first,
        nn.MaxPool2d(2),
        nn.BatchNorm2d(channels_out),
        nn.GELU(),
        second,
        nn.BatchNorm2d(channels_out),
        nn.GELU(),
    )


def is_natural(shape: tuple[int, ...]) -> bool:
    """Return whether images of shape (C, H, W) get the deeper network."""
    return shape[0] == 3 and min(shape[1:]) >= _NATURAL_SIDE


def make_classifier(shape: tuple[int, ...], num_classes: int) -> ImageClassifier:
    """Return the classifier for images of shape (C, H, W), with weights from torch's generator."""
    if is_natural(shape):
        trunk = _NaturalTrunk(shape[0], min(shape[1:]))
        return ImageClassifier(trunk, trunk.width, num_classes)
    small = _SmallTrunk(shape[0])
    return ImageClassifier(small, small.width, num_classes)


@torch.no_grad()
def whiten(classifier: ImageClassifier, images: Tensor, rows: Tensor) -> None:
    """Set the first layer of the deeper network to whiten patches of some images.

    Its outputs are the principal components of the patches, scaled to variance 1, and their
    negatives. The smaller network has no such layer and stays as it is.

    Args:
        classifier: Changed in place.
        images: (M, C, H, W) uint8.
        rows: (N,) int64, the images that count.
    """
    if not isinstance(classifier.trunk, _NaturalTrunk):
        return
    layer = classifier.trunk.whiten
    assert layer.bias is not None
    some = rows[:: -(-len(rows) // _WHITENED_BY)].to(images.device)
    channels = layer.in_channels * _PATCH**2
    count, total = 0, torch.zeros(channels, dtype=torch.float64, device=images.device)
    squares = torch.zeros(channels, channels, dtype=torch.float64, device=images.device)
    for part in torch.split(some, _WHITENED_AT_ONCE):
        patches = F.unfold(to_float(images[part]).double(), _PATCH).transpose(1, 2).flatten(0, 1)
        count += len(patches)
        total += patches.sum(0)
        squares += patches.T @ patches
    mean = total / count
    variances, directions = torch.linalg.eigh(squares / count - torch.outer(mean, mean))
    filters = (directions / (variances + _LEAST_VARIANCE * variances.max()).sqrt()).T
    both = torch.cat([filters, -filters])
    layer.weight.copy_(both.reshape_as(layer.weight))
    layer.bias.copy_(-(both @ mean))
