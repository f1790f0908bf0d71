"""A small classifier of noisy images that knows how noisy they are, and how it is trained."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from curricula.types import Doubles
from robustdiff.classifiers.fit import Fit, Recipe, forward_corrected
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.nets.embeddings import TimeEmbedding
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.diffusion.schedules import Schedule
from robustdiff.progress import Progress
from robustdiff.rng import Stream, normal, stream_seed, uniform

_WIDTHS = (32, 48, 64)
_TIME_SIZE = 32
_RECIPE = Recipe("adamw", learning_rate=2e-3, weight_decay=1e-2, batch_size=128)
# More than a classifier of clean images sees: every image comes at many noise levels.
_PASSES, _LEAST_SEEN, _MOST_SEEN = 28, 24_000, 160_000


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


def train_time_classifier(
    data: LabelledImages,
    num_classes: int,
    *,
    transition: Doubles,
    schedule: Schedule,
    seed: int,
    progress: Progress,
) -> TimeClassifier:
    """Train a classifier of noisy images that predicts the clean class.

    Args:
        data: Images and given labels.
        num_classes: K.
        transition: (K, K), T[clean, given].
        schedule: Noise of the diffusion model that it is for; times are uniform, as in training.
        seed: Seed of the run.
        progress: Called with (steps done, steps in all).

    Returns:
        Classifier in evaluation mode, without gradients; equal arguments give equal weights.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, Stream.TIME_CLASSIFIER))
        classifier = TimeClassifier(data.images.shape[1], num_classes)
    classifier.to(data.images.device)
    batch_size = min(_RECIPE.batch_size, len(data))
    steps = min(max(_PASSES * len(data), _LEAST_SEEN), _MOST_SEEN) // batch_size
    fit, batches = (
        Fit(classifier, _RECIPE, steps),
        _batches(data, batch_size, steps, schedule, seed),
    )
    for step, (inputs, labels) in enumerate(batches, start=1):
        fit.step(inputs, partial(forward_corrected, labels=labels, transition=transition))
        progress(step, steps)
    return classifier.eval().requires_grad_(requires_grad=False)


def _batches(
    data: LabelledImages, batch_size: int, steps: int, schedule: Schedule, seed: int
) -> Iterator[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Yield noisy images with their times, and the labels; images are drawn with replacement."""
    places = torch.arange(batch_size, device=data.images.device)
    for step in range(steps):
        u = uniform(seed, Stream.TIME_CLASSIFIER, step, places, count=2)
        x_0, labels, _ = data[(u[:, 0] * len(data)).long()]
        t = u[:, 1]
        eps = normal(seed, Stream.TIME_CLASSIFIER, step, places, tuple(x_0.shape[1:]), draw=1)
        alpha, sigma = (per_image(part, x_0) for part in schedule(t))
        yield (diffuse(x_0, eps, alpha, sigma), t), labels
