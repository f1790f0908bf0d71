"""The network of a class-conditional diffusion model, as a model of diffusers."""

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor

from robustdiff.config.sections import ModelConfig
from robustdiff.diffusion.nets.unet import UNet


class RobustdiffUNet(ModelMixin, ConfigMixin):
    """Predict eps, x_0 or v from noisy images, their time and their class.

    Args:
        model: Sizes, see `ModelConfig`.
        in_channels: C of the images.
        num_classes: K; class K stands for no class.
        sample_size: (H, W) of the images.
    """

    @register_to_config
    def __init__(
        self,
        model: dict[str, Any],
        in_channels: int,
        num_classes: int,
        sample_size: tuple[int, int],
    ) -> None:
        super().__init__()
        sizes = ModelConfig(**{**model, "channels": tuple(model["channels"])})
        self.network = UNet(sizes, image_channels=in_channels, num_classes=num_classes)
        self.network.to(memory_format=torch.channels_last)

    def forward(
        self,
        sample: Tensor,
        timestep: Tensor | float,
        class_labels: Tensor,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """Predict.

        Args:
            sample: (B, C, H, W) noisy images.
            timestep: Time in [0, 1], or one for each image; 0 is almost clean, 1 is noise.
            class_labels: (B,) int64 in [0, K], K for no class; or (B M,), M for each image, image
                by image, and as many outputs.
            return_dict: Whether the output is a `UNet2DOutput`, else a tuple.
        """
        times = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        output = self.network(sample, times, class_labels)
        return UNet2DOutput(sample=output) if return_dict else (output,)
