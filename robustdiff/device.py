"""Which device to compute on, in which precision, with which memory, and whether compiled."""

import ctypes
import os
import platform
import shutil

import torch

# Parameters of glibc's mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


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


def keep_freed_memory() -> None:
    """Keep freed memory of the CPU for what comes next, in the whole process.

    Every forward pass frees what the next one asks for. glibc would hand large blocks back to the
    system each time, and the system clears every page that it gives out again. Other C libraries
    are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_compiler(setting: str) -> None:
    """Refuse to compile networks where torch.compile finds no C++ compiler.

    Raises:
        ValueError: Naming the setting that asked for it.
    """
    if not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
        raise ValueError(
            f"{setting} needs a C++ compiler (c++, g++ or clang++, or the one that CXX names), "
            "and there is none; leave it false"
        )
