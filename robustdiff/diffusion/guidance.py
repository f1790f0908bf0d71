"""Label dropout in training, and guidance of samples towards their label.

A guided estimate combines the conditional one with another, or with a classifier's gradient.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor, nn

from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import eps_from_x_0, per_image
from robustdiff.diffusion.samplers import Denoise

_TINY = 1e-12


def drop_labels(labels: Tensor, u: Tensor, p_uncond: float, null_class: int) -> Tensor:
    """Replace each label by the null class with probability `p_uncond` (algorithm 1, line 3).

    Args:
        labels: (B,) int64 in [0, K].
        u: (B,) uniform random numbers in (0, 1), one per example.
        p_uncond: Probability in [0, 1].
        null_class: K.

    Returns:
        (B,) int64.
    """
    return torch.where(u < p_uncond, null_class, labels)


def guide(conditional: Tensor, null: Tensor, weight: float | Tensor) -> Tensor:
    """Return `(1 + w) conditional - w null` (eq. 7 of the paper); w = 0 is plain conditional.

    The formula is for eps; since x_0 and v are affine in eps at a fixed x_t with coefficients that
    sum to one over the two terms, it is the same for them.
    """
    return (1 + weight) * conditional - weight * null


Guide = Callable[[Model, Tensor, Tensor, Tensor, float], tuple[Tensor, Tensor]]
"""(model, x_t (B, C, H, W) float64, t (B,) float64, labels (B,) int64, w) -> estimates of x_0, the
conditional one and the guided one, each (B, C, H, W) float64."""


def classifier_free(
    model: Model, x_t: Tensor, t: Tensor, labels: Tensor, weight: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Guide away from the model's own unconditional estimate (eq. 7 of the paper); see `Guide`.

    Both branches run in one forward, and the layers before the class once for both.
    """
    both = torch.stack([labels, torch.full_like(labels, model.null_class)], dim=1)
    estimates = model.x_0(x_t, t, both.flatten())
    # In other forms of this, such as slices of every second, exported graphs refuse single images.
    estimates = estimates.reshape(labels.shape[0], 2, *estimates.shape[1:])
    conditional, unconditional = estimates.unbind(1)
    return conditional, guide(conditional, unconditional, weight)


def autoguidance(weak: Model) -> Guide:
    """Guide away from a weaker model under the same label (Karras et al. 2024, eq. 4).

    Their weight is 1 + w. The weaker model must have the schedule of the model.
    """

    def guided(
        model: Model, x_t: Tensor, t: Tensor, labels: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        conditional = model.x_0(x_t, t, labels)
        return conditional, guide(conditional, weak.x_0(x_t, t, labels), weight)

    return guided


def classifier_guidance(classifier: Callable[[Tensor, Tensor], Tensor]) -> Guide:
    """Guide by the gradient of a classifier of noisy images (eq. 3 to 5 of the paper).

    `eps = eps(x_t, c) - w sigma_t grad log p(c | x_t)`; the paper's eq. 3 leaves out the logarithm
    that its eq. 4 has. In terms of x_0 that adds `w sigma_t^2 / alpha_t grad log p(c | x_t)`.

    Args:
        classifier: (x_t (B, C, H, W), t (B,)) -> (B, K) logits.
    """

    def guided(
        model: Model, x_t: Tensor, t: Tensor, labels: Tensor, weight: float
    ) -> tuple[Tensor, Tensor]:
        conditional = model.x_0(x_t, t, labels)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            chosen = classifier(x, t).log_softmax(1).gather(1, labels[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), x)
        alpha, sigma = (per_image(part, x_t) for part in model.schedule(t))
        return conditional, conditional + weight * sigma**2 / alpha * gradient

    return guided


def rescale(guided: Tensor, conditional: Tensor, phi: float) -> Tensor:
    """Bring an output's spread back towards that of the conditional one (Lin et al. 2024, 3.4).

    The spread is that over an image's pixels and channels. The formula is for the outputs of the
    network, not for what is converted from them: its result depends on the parametrisation.

    Args:
        guided: (B, C, H, W).
        conditional: (B, C, H, W).
        phi: Share of the rescaled output in the result, in [0, 1].

    Returns:
        (B, C, H, W); with phi = 1 each image has the standard deviation of its conditional output.
    """
    factor = _spread(conditional) / _spread(guided)
    return guided * (1 + phi * (factor - 1))


def _spread(images: Tensor) -> Tensor:
    return images.std(dim=(1, 2, 3), keepdim=True).clamp_min(_TINY)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How labels enter sampling.

    Attributes:
        weight: The paper's w, at least 0.
        interval: (low, high) times between which guidance acts; (0, 1) is always.
        outside: "null" samples unconditionally outside the interval (section 4.3 of the paper),
            "given" keeps the label there, without guidance.
        rescale: phi of `rescale`, in [0, 1].
        every: Of so many calls within the interval the first makes the guided estimate; the others
            take its difference from the conditional one, as one of v, for their own.
        guide: Makes the guided estimate.
    """

    weight: float
    interval: tuple[float, float] = (0.0, 1.0)
    outside: str = "null"
    rescale: float = 0.0
    every: int = 1
    guide: Guide = classifier_free


def guided_denoiser(model: Model, labels: Tensor, guidance: Guidance) -> Denoise:
    """Bind labels and guidance to a model, for one sampling: it counts its calls.

    The estimate of x_0 is clipped to the image range [-1, 1].

    Args:
        model: The denoiser.
        labels: (B,) int64 classes to generate.
        guidance: See `Guidance`.

    Returns:
        A denoiser for the samplers.
    """
    low, high = guidance.interval
    null = torch.full_like(labels, model.null_class)
    outside = null if guidance.outside == "null" else labels
    estimates = _guided(model, labels, guidance)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        times = t.to(x_t.device).expand(len(x_t))
        if not low <= float(t) <= high:
            return model.x_0(x_t, times, outside).clamp(-1, 1)
        if guidance.weight == 0:
            return model.x_0(x_t, times, labels).clamp(-1, 1)
        conditional, guided = estimates(x_t, times)
        if guidance.rescale > 0:
            guided = _rescaled(model, x_t, times, (guided, conditional), guidance.rescale)
        return guided.clamp(-1, 1)

    return denoise


def _guided(
    model: Model, labels: Tensor, guidance: Guidance
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return (x_t, t (B,)) -> conditional and guided estimate of x_0, guided in every n-th call.

    In the others, guided minus conditional v, which is that of x_0 over -sigma_t, stays as it was.
    """
    if guidance.every == 1:
        return lambda x_t, times: guidance.guide(model, x_t, times, labels, guidance.weight)
    numbers, kept = count(), torch.zeros(())

    def estimates(x_t: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal kept
        sigma = per_image(model.schedule(times)[1], x_t)
        if next(numbers) % guidance.every > 0:
            conditional = model.x_0(x_t, times, labels)
            return conditional, conditional + sigma * kept
        conditional, guided = guidance.guide(model, x_t, times, labels, guidance.weight)
        kept = (guided - conditional) / sigma
        return conditional, guided

    return estimates


def _rescaled(
    model: Model, x_t: Tensor, times: Tensor, estimates: tuple[Tensor, Tensor], phi: float
) -> Tensor:
    """Rescale a guided estimate of x_0 towards the conditional one by the network's outputs."""
    alpha, sigma = (per_image(part, x_t) for part in model.schedule(times))
    guided, conditional = (
        model.prediction.target(x_0, eps_from_x_0(x_0, x_t, alpha, sigma), alpha, sigma)
        for x_0 in estimates
    )
    return model.prediction.to_x_0(rescale(guided, conditional, phi), x_t, alpha, sigma)


class GuidedStep(nn.Module):
    """One classifier-free guided estimate as a module, whose graph can be exported.

    Args:
        network: See `robustdiff.diffusion.model.Network`.
        model: The denoiser that holds it.
        phi: See `rescale`.
    """

    def __init__(self, network: nn.Module, model: Model, *, phi: float) -> None:
        super().__init__()
        self.network = network
        self.model = model
        self.phi = phi

    def forward(self, x_t: Tensor, t: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
        """Estimate x_0.

        Args:
            x_t: (B, C, H, W) float64.
            t: () float64.
            labels: (B,) int64 in [0, K], K for no class.
            weight: () float64, w; 0 for no guidance.

        Returns:
            (B, C, H, W) float64 in [-1, 1].
        """
        times = t.expand(x_t.shape[0])
        conditional, guided = classifier_free(self.model, x_t, times, labels, weight)
        if self.phi > 0:
            guided = _rescaled(self.model, x_t, times, (guided, conditional), self.phi)
        return guided.clamp(-1, 1)
