"""Classifier-free guidance: dropping labels in training, mixing two predictions in sampling."""

from dataclasses import dataclass

import torch
from torch import Tensor

from robustdiff.model import Model
from robustdiff.samplers import Denoise


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


def guide(conditional: Tensor, null: Tensor, weight: float) -> Tensor:
    """Return `(1 + w) conditional - w null` (eq. 7 of the paper); w = 0 is plain conditional.

    The formula is for eps; since x_0 and v are affine in eps at a fixed x_t with coefficients that
    sum to one over the two terms, it is the same for them.
    """
    return (1 + weight) * conditional - weight * null


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """How labels enter sampling.

    Attributes:
        weight: The paper's w, at least 0.
        interval: (low, high) times between which guidance acts; (0, 1) is always.
        outside: "null" samples unconditionally outside the interval (section 4.3 of the paper),
            "given" keeps the label there, without guidance.
    """

    weight: float
    interval: tuple[float, float] = (0.0, 1.0)
    outside: str = "null"


def guided_denoiser(model: Model, labels: Tensor, guidance: Guidance) -> Denoise:
    """Bind labels and guidance to a model; both branches run in one forward.

    The estimate of x_0 is clipped to the image range [-1, 1].

    Args:
        model: The denoiser.
        labels: (B,) int64 classes to generate.
        guidance: See `Guidance`.

    Returns:
        A denoiser for the samplers.
    """
    null = torch.full_like(labels, model.null_class)
    low, high = guidance.interval

    def x_0(x_t: Tensor, t: Tensor, classes: Tensor) -> Tensor:
        return model.x_0(x_t, t.to(x_t.device).expand(len(x_t)), classes)

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        if not low <= float(t) <= high:
            estimate = x_0(x_t, t, null if guidance.outside == "null" else labels)
        elif guidance.weight == 0:
            estimate = x_0(x_t, t, labels)
        else:
            both = x_0(torch.cat([x_t, x_t]), t, torch.cat([labels, null]))
            conditional, unconditional = both.chunk(2)
            estimate = guide(conditional, unconditional, guidance.weight)
        return estimate.clamp(-1, 1)

    return denoise
