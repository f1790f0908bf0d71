"""Features of the standard Inception network, for numbers that can be put beside published ones.

The network is the port of the TensorFlow graph of 2015-12-05 that Frechet distances are published
with; torchvision's inception_v3 is another network with other weights. It is an option, not the
default: on small gray images its features say little, and it takes seconds per batch on a CPU.
"""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustdiff.data.checks import check_images
from robustdiff.errors import DamagedError

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

OFFICIAL_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
# Two projects publish the file under these names.
OFFICIAL_NAMES = (
    "weights-inception-2015-12-05-6726825d.pth",
    "pt_inception-2015-12-05-6726825d.pth",
)

_BATCH_SIZE = 32


def load_inception(
    weights: str | Path | None, *, sha256: str = OFFICIAL_SHA256
) -> "FeatureExtractorInceptionV3":
    """Load the Inception network of 2015-12-05.

    Args:
        weights: File of the weights, None to look for the published file in torch's hub cache.
            Nothing is ever downloaded.
        sha256: Digest that the file must have.

    Raises:
        ValueError: If the package or the file is missing.
        DamagedError: If the file has another digest or does not hold this network's weights.
    """
    path = _cached_weights() if weights is None else Path(weights)
    return _build(_read_state(path, sha256))


def inception_features(
    images: Tensor, weights: str | Path | None, *, sha256: str = OFFICIAL_SHA256
) -> Tensor:
    """Compute the 2048 pooled features of the Inception network of 2015-12-05.

    Images are resized to 299 x 299 as that graph does it: bilinear without half-pixel centres and
    without antialiasing. Gray images are repeated to three channels.

    Args:
        images: (N, C, H, W) uint8; the network runs on their device.
        weights: See `load_inception`, like sha256.
        sha256: Digest that the file must have.

    Returns:
        (N, 2048) float64 on the CPU; the network itself computes in float32.

    Raises:
        ValueError: If the images have a wrong type or shape, or the package or file is missing.
        DamagedError: If the file has another digest or does not hold this network's weights.
    """
    check_images(images, "images")
    network = load_inception(weights, sha256=sha256).to(images.device)
    with torch.no_grad():
        return torch.cat(
            [
                network(batch.expand(-1, 3, -1, -1).contiguous())[0].double().cpu()
                for batch in torch.split(images, _BATCH_SIZE)
            ]
        )


def _cached_weights() -> Path:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for name in OFFICIAL_NAMES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(
        f"no Inception weights: {OFFICIAL_NAMES[0]} is not in {folder}; fetch that file where "
        "there is a network (torch-fidelity publishes it) and pass --inception-weights FILE"
    )


def _read_state(path: Path, sha256: str) -> dict[str, Tensor]:
    """Read a state dict from the very bytes whose digest was checked."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"cannot read --inception-weights {path}: {error.strerror or error}"
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != sha256:
        raise DamagedError(f"Inception weights {path} must have sha256 {sha256}, got {digest}")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # what holds something else fails in many ways
        raise DamagedError(
            f"Inception weights {path} must hold tensors and nothing else"
        ) from error
    if not isinstance(state, dict):
        raise DamagedError(
            f"Inception weights {path} must hold a dict of tensors, got {type(state).__name__}"
        )
    return state


def _build(state: dict[str, Tensor]) -> "FeatureExtractorInceptionV3":
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        # A torchvision that does not fit torch raises RuntimeError from within the import.
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            "Inception features need torch-fidelity and a torchvision that fits torch; "
            f"pip install 'robustdiff[inception]' ({reason})"
        ) from error
    # The constructor unpickles whatever file it is given, so it gets one written here.
    own_file = io.BytesIO()
    torch.save(state, own_file)
    own_file.seek(0)
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048"], feature_extractor_weights_path=own_file
        ).eval()
    except (RuntimeError, TypeError, AttributeError) as error:
        raise DamagedError(
            "the Inception weights do not fit the network of 2015-12-05: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error
