"""Weights as safetensors files with a digest: loading executes nothing and detects damage."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import write_atomic

_DIGEST_KEY = "tensors_sha256"


def save_weights(path: Path, network: nn.Module, *, prefix: str = "") -> None:
    """Write a network's state dict atomically, with its digest; the folder must exist.

    Args:
        path: The file.
        network: The network.
        prefix: What the names of its tensors begin with in the file.
    """
    tensors = {
        prefix + name: value.cpu().contiguous() for name, value in network.state_dict().items()
    }
    metadata = {"format": "pt", _DIGEST_KEY: _digest(tensors)}
    content = _in_order(save(tensors, metadata=metadata))
    write_atomic(path, lambda file: file.write(content))


def load_weights(path: Path, network: nn.Module, *, prefix: str = "") -> None:
    """Load what `save_weights` wrote, with the same prefix, into a network of its architecture.

    Raises:
        DamagedError: If the file is missing, damaged, or of another network; the network is
            unchanged then.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # The format checks its header only, so the tensors carry their own digest.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            recorded = (file.metadata() or {}).get(_DIGEST_KEY)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise DamagedError(f"{path} cannot be read as weights") from error
    # Earlier versions recorded no digest for the weights of runs.
    if recorded is not None and recorded != _digest(tensors):
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the recorded one")
    state = network.state_dict().items()
    wanted = {prefix + name: (value.dtype, value.shape) for name, value in state}
    if wanted != {name: (value.dtype, value.shape) for name, value in tensors.items()}:
        raise DamagedError(f"{path} holds the weights of another network")
    network.load_state_dict({name.removeprefix(prefix): part for name, part in tensors.items()})


def _in_order(content: bytes) -> bytes:
    """Return a safetensors file with its header in order: the library writes metadata in any."""
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8 : 8 + size]), sort_keys=True, separators=(",", ":"))
    header += " " * (-len(header) % 8)  # tensors begin at a multiple of 8 bytes
    return len(header).to_bytes(8, "little") + header.encode() + content[8 + size :]


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()
