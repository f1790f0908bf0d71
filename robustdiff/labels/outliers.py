"""Images that fit no class: how strange each looks, and whether its label fits it.

How an image looks is described by statistics of its pixels, not by a classifier's features: a
classifier learns what tells the classes apart, and sees in a noise image one of them.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor

from curricula.sparse import ClassValues, largest_other, of_class
from curricula.types import Doubles, Ints
from robustdiff.data.likeness import pieces
from robustdiff.progress import Progress, silent

# Fewer images have no usual look.
_FEWEST = 40
# An image is as strange as the distance that this share of the others lies within, so that this
# many images may be strange in one way; so many of the others are looked at.
_SHARE, _REFERENCES = 0.05, 2000
_PIECE = 2000
# Edges below this contrast are none; added to what logarithms are taken of.
_FLAT, _LEAST = 0.03, 0.01
# Values are at most so many quartile distances from the median, and the usual image is fitted to
# this share of the images, several times.
_FARTHEST, _USUAL, _ROUNDS = 8.0, 0.8, 3
# Shares of the covariance that are its diagonal's, and added to it.
_SHRUNK, _ADDED = 0.3, 0.03
# Strangeness from which on images are off-topic: where no class is likely; how much more where
# another class than the given one is certain; and where no classifier speaks.
_STRANGE, _MORE, _STRANGEST = 4.2, 3.0, 8.0


def looks(images: Tensor) -> Doubles:
    """Describe how images look by statistics of brightness, contrast, edges and colour.

    Edges are measured at three scales: their mean strength, how uneven it is, and the share of
    the image that has none.

    Args:
        images: (N, C, H, W) uint8.

    Returns:
        (N, D) float64, D at most 15.
    """
    parts = [_looks(part.float() / 255) for part in pieces(images)]
    return torch.cat(parts).double().cpu().numpy()


def _looks(x: Tensor) -> Tensor:
    pixels = x.flatten(1)
    found, scaled = [], x
    for _ in range(3):
        if min(scaled.shape[2:]) < 4:
            break
        across = (scaled[..., 1:] - scaled[..., :-1])[..., :-1, :]
        down = (scaled[..., 1:, :] - scaled[..., :-1, :])[..., :-1]
        edges = torch.hypot(across, down).flatten(1)
        mean, root = edges.mean(1), edges.square().mean(1).sqrt()
        found += [
            (mean + _LEAST).log(),
            (root + _LEAST).log() - (mean + _LEAST).log(),
            ((edges < _FLAT).float().mean(1) + _LEAST).log(),
        ]
        scaled = F.avg_pool2d(scaled, 2)
    extreme = ((pixels < _FLAT) | (pixels > 1 - _FLAT)).float().mean(1)
    found += [
        (pixels.std(1, correction=0) + _LEAST).log(),
        pixels.mean(1),
        (extreme + 2 * _LEAST).log(),
    ]
    if x.shape[1] > 1:
        colour = x - x.mean(1, keepdim=True)
        local = colour - colour.mean((2, 3), keepdim=True)
        changes = (colour[..., 1:] - colour[..., :-1]).flatten(1).abs().mean(1)
        spreads = (
            colour.flatten(1).std(1, correction=0),
            local.flatten(1).std(1, correction=0),
            changes,
        )
        found += [(spread + _LEAST).log() for spread in spreads]
    return torch.stack(found, 1)


def strangeness(images: Tensor, progress: Progress = silent) -> Doubles:
    """Measure how strange images look among the others.

    The looks are whitened by the covariance of the usual ones. The strangeness is the logarithm of
    the distance to a twentieth of the images, less its median, over the distance between its
    median and upper quartile: 0 for the usual image, 1 for every fourth.

    Args:
        images: (N, C, H, W) uint8.
        progress: Called with (images done, images in all).

    Returns:
        (N,) float64; 0 for all where there are fewer than 40 images.
    """
    count = len(images)
    if count < _FEWEST:
        return np.zeros(count)
    whitened = torch.from_numpy(_whitened(looks(images))).float()
    references = whitened[torch.linspace(0, count - 1, min(count, _REFERENCES)).round().long()]
    near = max(1, round(_SHARE * len(references)))
    distances = []
    for part in torch.split(whitened, _PIECE):
        distances.append(torch.cdist(part, references).kthvalue(near, dim=1).values)
        progress(sum(map(len, distances)), count)
    logs = torch.cat(distances).double().clamp(min=1e-12).log().numpy()
    median, upper = np.quantile(logs, [0.5, 0.75])
    # Of images that are all alike none is strange.
    return np.asarray((logs - median) / max(upper - median, 1e-3))


def _whitened(values: Doubles) -> Doubles:
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
    spread = np.where(high - low > 1e-6, high - low, values.std(axis=0) + 1e-6)
    scaled = np.clip((values - median) / spread, -_FARTHEST, _FARTHEST)
    usual = np.ones(len(scaled), dtype=bool)
    whitened = scaled
    for _ in range(_ROUNDS):
        covariance = np.cov(scaled[usual].T)
        diagonal = np.diag(np.diag(covariance))
        covariance = (
            (1 - _SHRUNK) * covariance + _SHRUNK * diagonal + _ADDED * np.eye(len(diagonal))
        )
        sizes, axes = np.linalg.eigh(covariance)
        whitened = (scaled - scaled[usual].mean(axis=0)) @ axes / np.sqrt(sizes)
        distances = np.linalg.norm(whitened, axis=1)
        usual = distances <= np.quantile(distances, _USUAL)
    return np.asarray(whitened)


def off_topic(strange: Doubles, given: Ints, image_classes: ClassValues | None) -> Doubles:
    """Score how sure it is that images fit no class.

    Args:
        strange: (N,) see `strangeness`.
        given: (N,) int64 labels.
        image_classes: (N, K) class probabilities by the image alone; None where there are none, and
            only the strangest images are found.

    Returns:
        (N,) float64 in [0, 1]; over 0.5 are off-topic. Where there are probabilities, the score is
        at most 1 less that of the given label, as far as it is over 1 / K: a strange image whose
        label a classifier predicts that was not trained on it is a rare member of its class. The
        surer another class is, the stranger an image must be: else it is one of that class, and
        its label wrong.
    """
    if image_classes is None:
        return np.asarray(expit(strange - _STRANGEST))
    guess = 1 / image_classes.shape[1]
    label, other = (
        np.clip((share.astype(np.float64) - guess) / (1 - guess), 0, 1)
        for share in (of_class(image_classes, given), largest_other(image_classes, given))
    )
    return np.asarray(expit(strange - _STRANGE - _MORE * other) * (1 - label))
