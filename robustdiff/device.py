"""Which device to compute on, and in which precision."""

import torch


def pick_device(name: str) -> torch.device:
    """Resolve "auto", "cpu" or "cuda".

    Raises:
        ValueError: If the device asked for is not there.
    """
    has_cuda = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_cuda else "cpu")
    if name == "cuda" and not has_cuda:
        raise ValueError("device cuda is not available here; available: cpu")
    return torch.device(name)


def set_precision(precision: str, device: torch.device) -> torch.dtype:
    """Set how products are computed, in the whole process, and return the dtype of the network's.

    Args:
        precision: "fp32", "bf16" or "auto", bf16 only where hardware multiplies in it. But for
            "fp32", what stays float32 on CUDA (classifiers, mostly) is multiplied in TF32.
        device: Where the network computes.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"  # torch's own default is always
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
