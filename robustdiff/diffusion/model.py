"""A denoiser: a network with its schedule and parametrisation."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustdiff.diffusion.process import PREDICTIONS, Prediction, for_labels, per_image
from robustdiff.diffusion.schedules import SCHEDULES, Schedule

Network = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(x_t (B, C, H, W) float32, t (B,), labels (B,) int64) -> output (B, C, H, W) float32.

With labels (B M,), M for each image, image by image, the output is (B M, C, H, W)."""


@dataclass(frozen=True)
class Model:
    """A denoiser: network, schedule and parametrisation.

    Attributes:
        network: See `Network`.
        schedule: The noise schedule it is for.
        prediction: What it predicts.
        null_class: K, the label for no class.
    """

    network: Network
    schedule: Schedule
    prediction: Prediction
    null_class: int

    def x_0(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Estimate the clean images, (B, C, H, W) in the dtype of `x_t`."""
        return self._convert(self.prediction.to_x_0, x_t, t, labels)

    def eps(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Estimate the noise, (B, C, H, W) in the dtype of `x_t`."""
        return self._convert(self.prediction.to_eps, x_t, t, labels)

    def eps_under(self, x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Estimate the noise under (B, M) labels, M for each image: (B, M, C, H, W)."""
        eps = self.eps(x_t, t, labels.flatten())
        return eps.reshape(*labels.shape, *eps.shape[1:])

    def _convert(
        self, convert: Callable[..., Tensor], x_t: Tensor, t: Tensor, labels: Tensor
    ) -> Tensor:
        output = self.network(x_t.float(), t, labels).to(x_t.dtype)
        x_t, t = for_labels(x_t, labels.shape[0]), for_labels(t, labels.shape[0])
        alpha, sigma = (per_image(part, x_t) for part in self.schedule(t))
        return convert(output, x_t, alpha, sigma)


def autocast(network: nn.Module, dtype: torch.dtype) -> Network:
    """Bind a compute precision to a network; weights and inputs stay float32."""

    def forward(x_t: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        half = dtype != torch.float32
        with torch.autocast(x_t.device.type, dtype) if half else nullcontext():
            output: Tensor = network(x_t, t, labels)
        return output.float()

    return forward


def bind(
    network: nn.Module, schedule: str, prediction: str, *, null_class: int, dtype: torch.dtype
) -> Model:
    """Return a network as a denoiser.

    Args:
        network: See `Network`.
        schedule: Key of `SCHEDULES`.
        prediction: Key of `PREDICTIONS`.
        null_class: K, the label for no class.
        dtype: Compute precision.
    """
    return Model(autocast(network, dtype), SCHEDULES[schedule], PREDICTIONS[prediction], null_class)
