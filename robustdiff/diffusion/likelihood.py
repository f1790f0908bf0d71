"""Likelihood of images in bits per dimension: the variational bound of diffusion models.

For uint8 images x, with z the image at log-SNR lambda (Kingma et al. 2021, eq. 11 to 15),

    -log p(x | c) <= KL(q(z_min | x) || N(0, I))                               prior
                     + 1/2 integral E |eps - eps(z_lambda, c)|^2 dlambda        diffusion
                     + E[-log p(x | z_max)]                                     reconstruction

over the log-SNRs of the model's schedule. The integral is estimated at stratified log-SNRs, without
bias. The decoder p(x | z_max) is, pixel by pixel, Bayes' rule over the 256 levels with the noise
that is left and the levels' shares among the training images: it knows neither the neighbours nor
the label. The bound is in nats of the discrete images; nothing is dequantised.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from robustdiff.data.arrays import to_float
from robustdiff.data.likeness import pieces
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.noise_levels import log_snr_bounds
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.diffusion.schedules import time_at
from robustdiff.progress import Progress, silent
from robustdiff.rng import Stream, normal, uniform

# A wider range lowers neither the prior's nor the decoder's term; the ends that Kingma et al. 2021
# learn are near -13 and 5 to 13.
LOG_SNR_RANGE = (-13.0, 13.0)
_LEVELS = 256
_BATCH = 64
_PIXELS_AT_ONCE = 2**15


@dataclass(frozen=True)
class Bound:
    """Upper bounds on -log p(x | label) in nats, (N,) float64 each; their sum is the bound."""

    prior: Tensor
    diffusion: Tensor
    reconstruction: Tensor

    @property
    def nats(self) -> Tensor:
        """The bound, (N,)."""
        return self.prior + self.diffusion + self.reconstruction


def level_shares(images: Tensor) -> Tensor:
    """Return the shares of the 256 levels among all pixels of uint8 images, one of each added."""
    counts = torch.ones(_LEVELS, dtype=torch.float64, device=images.device)
    for part in pieces(images):
        counts += torch.bincount(part.flatten().long(), minlength=_LEVELS)
    return counts / counts.sum()


def prior_nats(x_0: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """Return KL(N(alpha x_0, sigma^2) || N(0, 1)), summed over each image: (B,)."""
    each = sigma**2 + alpha**2 * x_0**2 - 1 - 2 * torch.log(sigma)
    return each.flatten(1).sum(1) / 2


def reconstruction_nats(
    levels: Tensor, z: Tensor, alpha: Tensor, sigma: Tensor, shares: Tensor
) -> Tensor:
    """Return -log p(x | z), summed over each image: (B,) float64.

    Args:
        levels: (B, C, H, W) uint8.
        z: (B, C, H, W) float64, `alpha x_0 + sigma eps`.
        alpha: Scalar float64.
        sigma: Scalar float64.
        shares: (256,) float64, see `level_shares`.
    """
    values = alpha * to_float(torch.arange(_LEVELS, device=z.device)).double()
    parts = []
    for noisy, level in zip(
        torch.split(z.flatten(), _PIXELS_AT_ONCE),
        torch.split(levels.flatten(), _PIXELS_AT_ONCE),
        strict=True,
    ):
        logits = shares.log() - (noisy[:, None] - values).square() / (2 * sigma**2)
        chosen = logits.gather(1, level.long()[:, None])[:, 0]
        parts.append(logits.logsumexp(1) - chosen)
    return torch.cat(parts).reshape(len(z), -1).sum(1)


@torch.inference_mode()
def bounds(
    model: Model,
    images: Tensor,
    labels: Mapping[str, Tensor],
    *,
    num_levels: int,
    seed: int,
    shares: Tensor,
    progress: Progress = silent,
) -> dict[str, Bound]:
    """Bound the likelihood of images under several labels, on equal noise for all of them.

    Args:
        model: The denoiser.
        images: (N, C, H, W) uint8, on the model's device.
        labels: Name -> (N,) int64 in [0, K]; K is no label.
        num_levels: Stratified log-SNRs per image.
        seed: Root of the draws.
        shares: (256,) float64, see `level_shares`.
        progress: Called with (images done, images in all).

    Returns:
        Name -> bound.
    """
    low, high = log_snr_bounds(model.schedule, LOG_SNR_RANGE)
    ends = torch.tensor([low, high], dtype=torch.float64)
    alpha, sigma = torch.sigmoid(ends).sqrt(), torch.sigmoid(-ends).sqrt()
    parts: dict[str, list[Tensor]] = {name: [] for name in (*labels, "prior", "reconstruction")}
    for index in torch.split(torch.arange(len(images), device=images.device), _BATCH):
        x_0, shape = to_float(images[index]).double(), tuple(images.shape[1:])
        key = (seed, Stream.LIKELIHOOD, 0, index)
        noise = normal(*key, shape, draw=2 * num_levels).double()
        z = diffuse(x_0, noise, alpha[1], sigma[1])
        decoded = reconstruction_nats(images[index], z, alpha[1], sigma[1], shares)
        parts["reconstruction"].append(decoded)
        parts["prior"].append(prior_nats(x_0, alpha[0], sigma[0]))
        wanted = torch.stack([conditions[index] for conditions in labels.values()], dim=1)
        total = torch.zeros(wanted.shape, dtype=torch.float64, device=images.device)
        for k in range(num_levels):
            u = uniform(*key, draw=2 * k)[:, 0]
            t = time_at(model.schedule, low + (high - low) * (k + u) / num_levels)
            eps = normal(*key, shape, draw=2 * k + 1).double()
            total += _squared_error(model, x_0, eps, t, wanted)
        total *= (high - low) / (2 * num_levels)
        for name, part in zip(labels, total.unbind(1), strict=True):
            parts[name].append(part)
        progress(int(index[-1]) + 1, len(images))
    joined = {name: torch.cat(part).cpu() for name, part in parts.items()}
    return {name: Bound(joined["prior"], joined[name], joined["reconstruction"]) for name in labels}


def _squared_error(model: Model, x_0: Tensor, eps: Tensor, t: Tensor, labels: Tensor) -> Tensor:
    """Return |eps - eps(x_t, label)|^2, summed over each image: (B, M) for (B, M) labels."""
    alpha, sigma = (per_image(part, x_0) for part in model.schedule(t))
    predicted = model.eps_under(diffuse(x_0, eps, alpha, sigma), t, labels)
    return (predicted - eps[:, None]).square().flatten(2).sum(2)


def draw_given(clean: Tensor, transition: Tensor, seed: int) -> Tensor:
    """Draw given labels of images under T[clean, given]: (N,) int64 of (N,) int64."""
    u = uniform(seed, Stream.LIKELIHOOD, 1, torch.arange(len(clean)))
    drawn = (u >= transition.cumsum(1)[clean]).sum(1)
    return drawn.clamp_max(len(transition) - 1)
