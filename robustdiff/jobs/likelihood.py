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

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustdiff.config.sections import Config
from robustdiff.data.arrays import to_float
from robustdiff.data.registry import load_images
from robustdiff.device import pick_device
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.noise_levels import log_snr_bounds
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.diffusion.schedules import Schedule, time_at
from robustdiff.files.atomic import sha256, write_text
from robustdiff.jobs.sample import load_model
from robustdiff.labels.given import known_noise
from robustdiff.progress import Report
from robustdiff.rng import Stream, normal, uniform
from robustdiff.runs.folder import Run

FILE_NAME = "likelihood.json"

# Beyond these the prior's and the decoder's terms have no more to give; the ends that Kingma et al.
# 2021 learn are near -13 and 5 to 13.
_LOG_SNR_RANGE = (-13.0, 13.0)
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
    counts = torch.bincount(images.flatten().long(), minlength=_LEVELS).double() + 1
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


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How the bound is estimated.

    Attributes:
        num_levels: Stratified log-SNRs per image.
        seed: Root of the draws.
        shares: See `level_shares`.
    """

    num_levels: int
    seed: int
    shares: Tensor


def _ends(schedule: Schedule) -> tuple[tuple[float, float], Tensor, Tensor]:
    """Return the range of log-SNRs, and alpha and sigma at its two ends."""
    low, high = log_snr_bounds(schedule, _LOG_SNR_RANGE)
    log_snr = torch.tensor([low, high], dtype=torch.float64)
    return (low, high), torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()


@torch.inference_mode()
def bounds(
    model: Model,
    images: Tensor,
    labels: Mapping[str, Tensor],
    probing: Probing,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Bound]:
    """Bound the likelihood of images under several labels, on equal noise for all of them.

    Args:
        model: The denoiser.
        images: (N, C, H, W) uint8, on the model's device.
        labels: Name -> (N,) int64 in [0, K]; K is no label.
        probing: See `Probing`.
        progress: Called with (images done, images in all).

    Returns:
        Name -> bound.
    """
    (low, high), alpha, sigma = _ends(model.schedule)
    parts: dict[str, list[Tensor]] = {name: [] for name in (*labels, "prior", "reconstruction")}
    for index in torch.split(torch.arange(len(images), device=images.device), _BATCH):
        x_0, shape = to_float(images[index]).double(), tuple(images.shape[1:])
        key = (probing.seed, Stream.LIKELIHOOD, 0, index)
        noise = normal(*key, shape, draw=2 * probing.num_levels).double()
        z = diffuse(x_0, noise, alpha[1], sigma[1])
        decoded = reconstruction_nats(images[index], z, alpha[1], sigma[1], probing.shares)
        parts["reconstruction"].append(decoded)
        parts["prior"].append(prior_nats(x_0, alpha[0], sigma[0]))
        wanted = torch.stack([conditions[index] for conditions in labels.values()], dim=1)
        total = torch.zeros(wanted.shape, dtype=torch.float64, device=images.device)
        for k in range(probing.num_levels):
            u = uniform(*key, draw=2 * k)[:, 0]
            t = time_at(model.schedule, low + (high - low) * (k + u) / probing.num_levels)
            eps = normal(*key, shape, draw=2 * k + 1).double()
            total += _squared_error(model, x_0, eps, t, wanted)
        total *= (high - low) / (2 * probing.num_levels)
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


def likelihood_run(
    run: Run, config: Config, report: Report, *, num_images: int | None, num_levels: int, seed: int
) -> dict[str, Any]:
    """Bound the likelihood of held-out images under a run's model, and write likelihood.json.

    Each image is judged under its true label, under no label and, if the run's labels are noisy,
    under a label drawn as those were. In float32, whatever the run's precision.

    Args:
        run: The run.
        config: Its configuration; the data section may differ from the stored one.
        report: Told about progress.
        num_images: Held-out images, None for at most 500.
        num_levels: Log-SNRs per image.
        seed: Root of the draws.

    Returns:
        The content of likelihood.json.

    Raises:
        ValueError: If there are not as many held-out images, or the run cannot be used.
    """
    images, labels = load_images(config.data, report), run.labels()
    available = len(images.test)
    count = min(500, available) if num_images is None else num_images
    if not 2 <= count <= available or num_levels < 1:
        raise ValueError(
            f"num_images must be between 2 and {available}, the held-out images of {images.name}, "
            f"and levels at least 1, got {count} and {num_levels}"
        )
    generator = torch.Generator().manual_seed(seed)
    which = torch.randperm(available, generator=generator)[:count]
    pictures, clean = images.test[which], images.test_labels[which]
    conditions = {"true label": clean, "no label": torch.full_like(clean, images.num_classes)}
    transition = torch.from_numpy(labels.nominal)
    if labels.realised_rate > 0:
        conditions["given label"] = draw_given(clean, transition, seed)
    exact = replace(config, train=replace(config.train, precision="fp32"))
    model, device = load_model(run, exact, images), pick_device(config.train.device)
    found = bounds(
        model,
        pictures.to(device),
        {name: part.to(device) for name, part in conditions.items()},
        Probing(num_levels=num_levels, seed=seed, shares=level_shares(images.train).to(device)),
        lambda done, total: report.progress("bounding the likelihood", done, total),
    )
    result = {
        "run": str(run.path),
        "dataset": images.name,
        "noise": known_noise(config.data, labels),
        "num_images": count,
        "levels": num_levels,
        "seed": seed,
        "log_snr": list(_ends(model.schedule)[0]),
        "weights": sha256(run.weights_file),
        **summary(found, conditions, pictures[0].numel()),
    }
    write_text(run.path / FILE_NAME, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def summary(
    found: Mapping[str, Bound], labels: Mapping[str, Tensor], dimensions: int
) -> dict[str, Any]:
    """Return means and standard errors over images, as JSON holds them.

    Args:
        found: Name -> bound, of "true label", "no label" and perhaps "given label".
        labels: Name -> (N,) labels.
        dimensions: Numbers per image.

    Returns:
        `bits_per_dim`, an upper bound, for each name, with its three parts; `label_gain_bits` per
        image for each label, the bound without a label less that with it, which estimates their
        mutual information as far as both bounds are equally loose; both again for the images whose
        given label is wrong.
    """
    every = torch.ones(len(next(iter(labels.values()))), dtype=torch.bool)
    content = _over(found, every, dimensions)
    if "given label" in labels:
        wrong = labels["given label"] != labels["true label"]
        content["wrong_share"] = float(wrong.double().mean())
        if int(wrong.sum()) > 1:
            content["given_label_wrong"] = _over(found, wrong, dimensions)
    return content


def _over(found: Mapping[str, Bound], where: Tensor, dimensions: int) -> dict[str, Any]:
    per_dim = 1 / (dimensions * math.log(2))
    content: dict[str, Any] = {"bits_per_dim": {}, "label_gain_bits": {}}
    for name, bound in found.items():
        figures = _mean(bound.nats[where] * per_dim)
        for part in ("prior", "diffusion", "reconstruction"):
            figures[part] = float(getattr(bound, part)[where].mean()) * per_dim
        content["bits_per_dim"][name] = figures
        if name != "no label":
            gain = found["no label"].nats[where] - bound.nats[where]
            content["label_gain_bits"][name] = _mean(gain / math.log(2))
    return content


def _mean(values: Tensor) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std()) / math.sqrt(len(values)),
    }
