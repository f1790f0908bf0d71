"""Where the time of one training step goes, and how near its products are to the machine's rate."""

import time
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

# Part -> operators whose own time counts to it, by the beginning of the name.
PARTS = {
    "convolutions": ("aten::convolution", "aten::mkldnn_convolution", "aten::cudnn_convolution"),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"),
    "softmax": ("aten::_softmax",),
    "normalisation": ("aten::native_group_norm",),
    "activations": ("aten::silu",),
    "copies and casts": ("aten::copy_", "aten::cat", "aten::clone", "aten::_to_copy"),
    "pooling and upsampling": ("aten::max_pool2d", "aten::upsample"),
    "optimiser, average, clipping": (
        "aten::_fused_adamw_", "aten::lerp", "aten::_foreach", "aten::linalg_vector_norm",
    ),
    "random numbers": ("aten::bitwise", "aten::__rshift__", "aten::__and__", "aten::__xor__"),
}  # fmt: skip
PRODUCTS = ("convolutions", "matrix products")


def matrix_rate(dtype: torch.dtype, device: torch.device, size: int = 2048) -> float:
    """Return the best FLOP/s of a square matrix product in five tries."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        float((a @ b)[0, 0])  # waits for the device
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best


def flops(step: Callable[[], object]) -> int:
    """Return the floating point operations of convolutions and products in one call."""
    with FlopCounterMode(display=False) as counter:
        step()
    return int(counter.get_total_flops())


def parts(step: Callable[[], object], calls: int) -> dict[str, float]:
    """Return seconds per call of each part of `PARTS`, and of "all else"."""
    step()
    on = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        on.append(ProfilerActivity.CUDA)
    with profile(activities=on) as seen:
        for _ in range(calls):
            step()
    found = dict.fromkeys([*PARTS, "all else"], 0.0)
    for event in seen.key_averages():
        own = (
            event.self_device_time_total if torch.cuda.is_available() else event.self_cpu_time_total
        )
        name = next((n for n, heads in PARTS.items() if event.key.startswith(heads)), "all else")
        found[name] += own / 1e6 / calls
    return found
