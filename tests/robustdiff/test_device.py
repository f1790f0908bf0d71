"""Memory that is freed and asked for again; the precision of products."""

import platform
import resource

import pytest
import torch

from robustdiff.device import keep_freed_memory, set_precision


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_used_again_without_the_system():
    keep_freed_memory()
    for _ in range(20):  # aligned blocks take a few rounds to find their places
        torch.ones(16 * 2**20)  # 64 MiB, here and gone
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(16 * 2**20)
    new_pages = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    assert new_pages < 1000  # of 327,680


def test_products_on_a_gpu_keep_float32_only_if_asked_to():
    cpu, backends = torch.device("cpu"), torch.backends
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        assert set_precision(precision, cpu) == dtype
        tf32 = precision != "fp32"
        assert backends.cuda.matmul.allow_tf32 == backends.cudnn.allow_tf32 == tf32
        assert backends.cudnn.deterministic
