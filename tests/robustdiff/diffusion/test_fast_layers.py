"""Layers that are computed in another way where that is faster: they give what torch's give."""

import pytest
import torch
import torch.nn.functional as F

from robustdiff.diffusion.nets import convolution, normalisation
from robustdiff.diffusion.nets.convolution import Conv
from robustdiff.diffusion.nets.normalisation import Norm
from robustdiff.diffusion.nets.unet import attend


def gradients(output, inputs, seed=0):
    seed = random(*output.shape, seed=seed).bfloat16().to(output.dtype)
    return torch.autograd.grad(output, inputs, seed)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def close(found, wanted, within):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert (one.float() - other.float()).abs().max() <= within * other.float().abs().max()


@pytest.mark.parametrize(("size", "height", "width"), [(1, 1, 1), (1, 3, 2), (3, 1, 1), (3, 3, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_images_are_convolved_as_torch_does(size, height, width, dtype, monkeypatch):
    monkeypatch.setattr(convolution, "_MANY_WEIGHTS", 0)
    torch.manual_seed(0)
    conv = Conv(5, 7, size).to(dtype)
    x = random(4, 5, height, width).to(dtype).requires_grad_()
    wanted = F.conv2d(x, conv.weight, conv.bias, padding=size // 2)
    inputs = [x, conv.weight, conv.bias]
    found = conv(x)
    within = 1e-5 if dtype == torch.float32 else 1e-12
    close([found, *gradients(found, inputs)], [wanted, *gradients(wanted, inputs)], within)


def test_a_product_takes_the_place_of_a_convolution_where_it_is_said_to(monkeypatch):
    seen = []
    linear = F.linear
    monkeypatch.setattr(F, "linear", lambda *given: seen.append(given[1].shape) or linear(*given))
    monkeypatch.setattr(convolution, "_MANY_WEIGHTS", 9 * 6 * 6)
    for channels, size, side in [(6, 3, 5), (5, 3, 4), (6, 1, 5)]:
        Conv(channels, channels, size)(torch.ones(2, channels, side, side))
    assert seen == []
    for channels, size, side in [(6, 3, 4), (5, 3, 1), (5, 1, 4)]:
        Conv(channels, channels, size)(torch.ones(2, channels, side, side))
    assert [tuple(shape) for shape in seen] == [(6, 54), (5, 5), (5, 5)]


@pytest.mark.parametrize("activate", [False, True])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_equals_group_norm_scale_and_silu_whole_or_in_pieces(
    activate, scaled, dtype, monkeypatch
):
    monkeypatch.setattr(normalisation, "_MANY", 0)
    monkeypatch.setattr(normalisation, "_PIECE", 3 * 24 * 5 * 3)  # batches of 3, 3 and 1
    norm = Norm(24, activate=activate)
    for seed, weight in enumerate(norm.parameters()):
        weight.data = random(24, seed=seed)
    x = random(7, 24, 5, 3).to(dtype, memory_format=torch.channels_last).requires_grad_()
    scale, shift = (random(7, 24, 1, 1, seed=seed).requires_grad_() for seed in (3, 4))
    inputs = [x, norm.weight, norm.bias, *([scale, shift] if scaled else [])]

    y = F.group_norm(x.double(), 3, norm.weight.double(), norm.bias.double(), norm.eps)
    y = y * scale + shift if scaled else y
    wanted = F.silu(y) if activate else y
    found = norm(x, scale, shift) if scaled else norm(x)
    assert found.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 2.0**-8
    close([found, *gradients(found, inputs)], [wanted, *gradients(wanted, inputs)], rounding)


def test_norm_in_pieces_gives_the_bits_that_it_gives_whole(monkeypatch):
    norm = Norm(24, activate=True)
    x = random(7, 24, 5, 3).to(torch.bfloat16, memory_format=torch.channels_last)
    whole = norm(x)
    assert whole.dtype == torch.float32
    monkeypatch.setattr(normalisation, "_MANY", 0)
    monkeypatch.setattr(normalisation, "_PIECE", 3 * 24 * 5 * 3)
    assert torch.equal(norm(x), whole.bfloat16())
    assert torch.equal(norm(x[2:3]), whole[2:3].bfloat16())


def test_attention_in_pieces_gives_the_bits_that_it_gives_whole(monkeypatch):
    parts = [random(7, 2, 9, 4, seed=seed).bfloat16().requires_grad_() for seed in range(3)]
    whole = attend(*parts)
    wanted = gradients(whole, parts)
    monkeypatch.setattr("robustdiff.diffusion.nets.unet._SCORES_AT_ONCE", 3 * 2 * 9 * 9)
    pieces = attend(*parts)
    assert torch.equal(pieces, whole)
    assert all(map(torch.equal, gradients(pieces, parts), wanted))


def test_a_single_position_gets_all_attention():
    parts = [random(3, 2, 1, 4, seed=seed) for seed in range(3)]
    assert torch.equal(attend(*parts), parts[2])
    assert torch.equal(attend(*parts), F.scaled_dot_product_attention(*parts))
