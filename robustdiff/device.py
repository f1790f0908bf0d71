"""Device, precision and memory of computations, and whether there is a compiler for them."""

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
    """Set the precision of products in the whole process; return the dtype that networks use.

    On a GPU also ask for convolutions that give equal bits in every run: some of cuDNN's for
    float32 do not.

    Args:
        precision: "fp32", "bf16", or "auto": bf16 where the hardware multiplies in it, else fp32.
            Unless it is "fp32", CUDA multiplies float32 tensors, such as those of classifiers, in
            TF32.
        device: Where the network computes.
    """
    torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.allow_tf32 = precision != "fp32"  # torch's default is True
    torch.backends.cudnn.deterministic = True
    if precision == "auto":
        return native_precision(device)
    return torch.bfloat16 if precision == "bf16" else torch.float32


def native_precision(device: torch.device) -> torch.dtype:
    """Return bfloat16 where the hardware multiplies in it, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def keep_freed_memory() -> None:
    """Keep freed CPU memory in the process, for its next allocations.

    Every forward pass allocates what the one before has freed. glibc by default returns large
    blocks to the system each time, and the system clears every page before it gives it out again.
    Other C libraries keep their defaults.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def check_compiler(key: str) -> None:
    """Refuse to compile networks where torch.compile finds no C++ compiler.

    Raises:
        ValueError: Naming the configuration key that asks for it.
    """
    if not any(map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))):
        raise ValueError(
            f"{key} needs a C++ compiler (c++, g++ or clang++, or the one that CXX names), "
            "and there is none; leave it false"
        )
