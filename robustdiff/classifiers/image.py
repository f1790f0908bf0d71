"""A small classifier of images with a small feature space, and how it is trained."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.types import Doubles
from robustdiff.classifiers.fit import fit
from robustdiff.data.arrays import to_float
from robustdiff.data.checks import check_images, check_labels
from robustdiff.progress import Progress, silent

# Metrics cache trained weights: whoever changes one of these changes `RECIPE` in metrics/evaluator.
_BATCH_SIZE, _MIN_PASSES = 128, 3
_LEARNING_RATE = 1e-2
_LEAST_PROBABILITY = 1e-9
# Images are shifted at random by up to this share of their size. Without it the features of a small
# training set are tighter than those of unseen images, and real images fail the density test.
_MAX_SHIFT = 1 / 8
# Smaller images are enlarged by a whole factor.
_LEAST_SIDE = 8


class ImageClassifier(nn.Module):
    """Classify images of any size, and expose a small feature space.

    The features are the batch-normalised inputs of the last hidden layer: over the training images
    each has mean 0 and variance 1, so that distances in this space have one scale for all datasets.
    There are few of them because a class-wise Frechet distance must estimate their covariance from
    the samples of one class.

    Attributes:
        num_classes: K.
        num_features: D.
    """

    def __init__(self, channels: int, num_classes: int, num_features: int = 32) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = num_features
        self.stages = nn.Sequential(
            *_stage(channels, 24),
            nn.MaxPool2d(2),
            *_stage(24, 48),
            nn.MaxPool2d(2),
            *_stage(48, 64),
        )
        # 2 x 2 cells keep a coarse position at every image size.
        self.project = nn.Linear(64 * 4, num_features, bias=False)
        self.normalise = nn.BatchNorm1d(num_features, affine=False)
        self.classify = nn.Linear(num_features, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 images in [-1, 1] to (B, D) features."""
        if (side := min(images.shape[2:])) < _LEAST_SIDE:  # two poolings must leave something
            images = F.interpolate(images, scale_factor=-(-_LEAST_SIDE // side), mode="nearest")
        cells = F.adaptive_avg_pool2d(self.stages(images), 2).flatten(1)
        features: Tensor = self.normalise(self.project(cells))
        return features

    def logits(self, features: Tensor) -> Tensor:
        """Map (B, D) features to (B, K) logits."""
        logits: Tensor = self.classify(F.relu(features))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, C, H, W) float32 images in [-1, 1] to (B, K) logits."""
        return self.logits(self.features(images))


def _stage(channels_in: int, channels_out: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    ]


def train_image_classifier(
    images: Tensor,
    labels: Tensor,
    num_classes: int,
    *,
    seed: int,
    images_seen: int,
    transition: Doubles | None = None,
    progress: Progress = silent,
) -> ImageClassifier:
    """Train a classifier of images; equal arguments give equal weights on one machine.

    Args:
        images: (N, C, H, W) uint8, N >= 2; training runs on their device.
        labels: (N,) int64 in [0, num_classes): clean, or noisy under `transition`.
        num_classes: K.
        seed: Seed of the initial weights and of the order; the global generators stay untouched.
        images_seen: The images are repeated until this many have been seen, three times at least.
        transition: (K, K), T[clean, given], for noisy labels; see `fit`.
        progress: Called with (steps done, steps in all) after each step.

    Returns:
        Classifier in evaluation mode.

    Raises:
        ValueError: If images or labels have a wrong type, shape or range.
    """
    check_images(images, "training images")
    check_labels(labels, len(images), num_classes, "training labels")
    if len(images) < 2:
        raise ValueError("training a classifier takes at least 2 images, got 1")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        classifier = ImageClassifier(images.shape[1], num_classes)
    classifier.to(images.device).to(memory_format=torch.channels_last)
    batch_size = min(_BATCH_SIZE, len(images))
    passes = max(_MIN_PASSES, -(-images_seen // len(images)))
    fit(
        classifier,
        _batches(images, labels, batch_size, passes, seed),
        steps=passes * (len(images) // batch_size),
        learning_rate=_LEARNING_RATE,
        transition=transition,
        least=_LEAST_PROBABILITY,
        progress=progress,
    )
    return classifier.to(memory_format=torch.contiguous_format).eval()


def _batches(
    images: Tensor, labels: Tensor, batch_size: int, passes: int, seed: int
) -> Iterator[tuple[tuple[Tensor], Tensor]]:
    """Yield shifted images and their labels; each pass has an order of its own."""
    orders, shifts = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    for _ in range(passes):
        order = torch.randperm(len(images), generator=orders)
        # A short last batch is left out: batch norm needs company.
        for batch in order[: len(images) - len(images) % batch_size].reshape(-1, batch_size):
            where = batch.to(images.device)
            yield (_shifted(to_float(images[where]), shifts),), labels[where]


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image at random, repeating its border; the result is channels-last in memory."""
    size = images.shape[2:]
    reach = int(min(size) * _MAX_SHIFT)
    padded = F.pad(images, (reach,) * 4, mode="replicate").permute(0, 2, 3, 1).contiguous()
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator)
    down, right = offsets.to(images.device)
    rows = (down[:, None] + torch.arange(size[0], device=images.device))[:, :, None]
    columns = (right[:, None] + torch.arange(size[1], device=images.device))[:, None, :]
    which = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[which, rows, columns].permute(0, 3, 1, 2)


@torch.no_grad()
def embed(
    classifier: ImageClassifier, images: Tensor, batch_size: int = 1000
) -> tuple[Tensor, Tensor]:
    """Compute features and logits in float32, in evaluation mode, whatever the classifier's mode.

    Args:
        classifier: A trained one; its mode is left as it was.
        images: (N, C, H, W) uint8.
        batch_size: Images per forward pass; changes memory and time, not the result.

    Returns:
        (N, D) features and (N, K) logits, both float64 on the CPU.

    Raises:
        ValueError: If the images have a wrong type or shape.
    """
    check_images(images, "images")
    device = classifier.classify.weight.device
    was_training = classifier.training
    classifier.eval()
    try:
        with torch.autocast(device.type, enabled=False):
            features = [
                classifier.features(to_float(part.to(device)))
                for part in torch.split(images, batch_size)
            ]
            logits = [classifier.logits(part) for part in features]
    finally:
        classifier.train(was_training)
    return torch.cat(features).double().cpu(), torch.cat(logits).double().cpu()
