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


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Resolve "auto", "fp32" or "bf16"; auto takes bf16 only where hardware multiplies in it."""
    if precision == "auto":
        if device.type == "cuda":
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if precision == "bf16" else torch.float32
