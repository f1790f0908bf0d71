import copy

import pytest
import torch

from robustdiff.config.sections import ModelConfig
from robustdiff.diffusion.nets.embeddings import ClassEmbeddingNetwork, class_embedding_sizes
from robustdiff.diffusion.nets.unet import ClassAttention, Norm, ResidualBlock, UNet, attend
from robustdiff.training.ema import ema_decay, update_ema
from robustdiff.training.task import build_network


def small(**changes):
    setting = {"channels": (8, 16), "cen_hidden": 8, "time_size": 8} | changes
    torch.manual_seed(0)
    return UNet(ModelConfig(**setting), image_channels=1, num_classes=4)


def awake(network):
    """Give the zero-initialised layers weights, so that the output depends on the input."""
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def batch(count=5, side=8):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, side, side, generator=generator)
    return x, torch.rand(count, generator=generator), torch.arange(count) % 5


@pytest.mark.parametrize(
    ("cen", "sizes"),
    [
        ("uniform-1", [1] * 5),
        ("uniform-16", [16] * 5),
        ("uniform-256", [256] * 5),
        ("pyramid", [1, 128, 256, 256, 512]),
        ("bottleneck", [1, 1, 1, 1, 1024]),
        ("complete-bottleneck", [0, 0, 0, 0, 1024]),
        ("3,0,2,0,9", [3, 0, 2, 0, 9]),
        ("add", [0] * 5),
        ("adagn", [0] * 5),
        ("cross-attention", [0] * 5),
    ],
)
def test_patterns_give_the_papers_vectors_at_the_papers_channels(cen, sizes):
    assert class_embedding_sizes(cen, 1, (128, 256, 256, 1024)) == sizes


@pytest.mark.parametrize("cen", ["pyramidal", "1,2", "uniform-x", "1,2,3,4,-5"])
def test_unknown_patterns_are_named(cen):
    with pytest.raises(ValueError, match=f"got '{cen}'"):
        class_embedding_sizes(cen, 1, (128, 256, 256, 1024))


def test_output_is_zero_before_training():
    assert (small()(*batch()) == 0).all()


def test_the_papers_patterns_encode_a_similar_number_of_features():
    """Section 4.2 says so of the three that are not uniform."""
    whole = {
        cen: 2 * sum(sizes[:-1]) + sizes[-1]
        for cen in ("pyramid", "bottleneck", "complete-bottleneck")
        if (sizes := class_embedding_sizes(cen, 1, (128, 256, 256, 1024)))
    }
    assert whole == {"pyramid": 1794, "bottleneck": 1032, "complete-bottleneck": 1024}


@pytest.mark.parametrize(
    "cen",
    [
        "pyramid", "bottleneck", "complete-bottleneck", "uniform-3", "add", "adagn",
        "cross-attention",
    ],
)  # fmt: skip
@pytest.mark.parametrize("patch_size", [1, 2])
def test_images_of_a_batch_do_not_see_each_other(cen, patch_size):
    network = awake(small(cen=cen, patch_size=patch_size, heads=2))
    x, t, labels = batch()
    alone = network(x[:1], t[:1], labels[:1])
    others = network(x, t, (labels + 1).clamp(max=4).index_copy(0, torch.tensor([0]), labels[:1]))
    torch.testing.assert_close(others[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "cen",
    ["pyramid", "complete-bottleneck", "0,3,0", "0,0,0", "add", "adagn", "cross-attention"],
)
@pytest.mark.parametrize("each", [1, 3])
def test_several_labels_of_an_image_equal_several_images(cen, each):
    network = awake(small(cen=cen, patch_size=2))
    x, t, _ = batch()
    labels = torch.arange(5 * each) % 5
    together = network(x, t, labels)
    apart = network(x.repeat_interleave(each, 0), t.repeat_interleave(each), labels)
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-6)


def test_the_complete_bottleneck_runs_the_encoder_once_for_all_labels():
    network = awake(small(cen="complete-bottleneck"))
    seen = []
    for level in network.levels():
        level.block.register_forward_hook(lambda module, inputs, out: seen.append(len(out)))
    x, t, _ = batch()
    network(x, t, torch.arange(20) % 5)
    assert seen == [5, 5, 5, 20, 20]  # two encoder levels, bottleneck, two decoder levels


def levels_that_see_the_class(network, one, other):
    """Run two classes; say for each level, encoder first, whether its output differs."""
    levels = [*network.encoder, network.bottleneck, *network.decoder]
    seen = [[] for _ in levels]
    hooks = [
        level.register_forward_hook(lambda module, inputs, out, kept=kept: kept.append(out))
        for level, kept in zip(levels, seen, strict=True)
    ]
    x, t, _ = batch()
    for label in (one, other):
        network(x, t, torch.full((5,), label))
    for hook in hooks:
        hook.remove()
    return [not torch.equal(a, b) for a, b in seen]


@pytest.mark.parametrize("length", [5, 49, 300])
def test_attention_in_bfloat16_equals_float64_within_its_rounding(length):
    torch.manual_seed(0)
    exact = [torch.randn(3, 2, length, 8, dtype=torch.float64) for _ in range(3)]
    half = [part.bfloat16().requires_grad_() for part in exact]
    exact = [part.detach().double().requires_grad_() for part in half]
    expected, got = torch.nn.functional.scaled_dot_product_attention(*exact), attend(*half)
    torch.testing.assert_close(got.double(), expected, rtol=0.03, atol=0.01)
    seed = torch.randn_like(expected).bfloat16()
    wanted = torch.autograd.grad(expected, exact, seed.double())
    for one, other in zip(torch.autograd.grad(got, half, seed), wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=0.05, atol=0.03)


@pytest.mark.parametrize(("channels", "groups"), [(4, 1), (16, 2), (20, 2), (17, 1), (36, 4)])
def test_norm_is_that_of_groups_in_float32_whatever_came(channels, groups):
    torch.manual_seed(0)
    half = torch.randn(3, channels, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        got = Norm(channels)(half)
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    parts = half.double().reshape(3, groups, -1)
    centred = parts - parts.mean(-1, keepdim=True)
    expected = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(got.double(), expected.reshape(half.shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("cen", "encoder"),
    [
        ("uniform-2", [True, True]),
        ("pyramid", [True, True]),
        ("bottleneck", [True, True]),
        ("complete-bottleneck", [False, False]),
        ("0,3,0", [False, True]),
        ("add", [True, True]),
        ("adagn", [True, True]),
        ("cross-attention", [True, True]),
    ],
)
@pytest.mark.parametrize("other", [1, 4])  # 4 is the null class
def test_each_pattern_reaches_its_levels(cen, encoder, other):
    network = awake(small(cen=cen))
    assert levels_that_see_the_class(network, 0, other) == [*encoder, True, True, True]


def test_without_bottleneck_and_encoder_only_the_decoder_sees_the_class():
    """No pattern of the paper is like this one, but a vector may be: the decoder mirrors."""
    network = awake(small(cen="2,0,0"))
    assert levels_that_see_the_class(network, 0, 1) == [True] * 5


def parameters_of_a_level(inputs, outputs, time_size, *, first=False):
    norms = 2 * outputs + (0 if first else 2 * inputs)
    convolutions = 9 * outputs * (inputs + outputs) + 2 * outputs
    skip = 0 if inputs == outputs else (inputs + 1) * outputs
    attention = 2 * outputs + 4 * outputs * (outputs + 1)
    return norms + convolutions + skip + (time_size + 1) * outputs + attention


@pytest.mark.parametrize("cen", ["0,0,0", "uniform-4", "complete-bottleneck", "pyramid"])
@pytest.mark.parametrize(("hidden", "depth"), [(8, 1), (8, 3), ("size", 2)])
def test_a_class_embedding_costs_its_perceptrons_and_the_channels_it_adds(cen, hidden, depth):
    network = small(cen=cen, cen_hidden=hidden, cen_depth=depth)
    first, second, bottom = class_embedding_sizes(cen, 1, (8, 16))
    # Inputs and outputs of encoder, bottleneck and decoder; skips carry their class, too.
    up = 16 + bottom + 16 + second
    levels = [(1, 8), (8 + first, 16), (16 + second, 16), (up, 8), (8 + second + 8 + first, 8)]
    below = 8 + first
    expected = sum(
        parameters_of_a_level(i, o, 8, first=number == 0) for number, (i, o) in enumerate(levels)
    )
    expected += (8 + 1) * 8 + (8 + 1) * 8  # of the time embedding
    expected += 2 * below + 9 * below + 1  # of the head
    for size in (first, second, bottom, second, first):
        width = size if hidden == "size" else hidden
        if size:
            expected += 5 * width + (depth - 1) * (width + 1) * width + (width + 1) * size
    assert sum(p.numel() for p in network.parameters()) == expected


def test_one_relu_unit_gives_the_classes_it_is_off_for_one_embedding():
    """Why uniform-1 with hidden layers as wide as its vector cannot tell all classes apart."""
    torch.manual_seed(0)
    narrow = ClassEmbeddingNetwork(10, 1, hidden=1, depth=1, activate=torch.relu)
    wide = ClassEmbeddingNetwork(10, 1, hidden=64, depth=1, activate=torch.relu)
    off = int((narrow.table.weight <= 0).sum())
    assert off > 1
    labels = torch.arange(11)
    assert len(narrow(labels).unique()) == 11 - off + 1
    assert len(wide(labels).unique()) == 11


def test_adaptive_normalisation_scales_and_shifts_what_is_normalised():
    torch.manual_seed(0)
    block = ResidualBlock(8, 8, 4, adaptive=True).eval()
    torch.nn.init.normal_(block.conv2.weight)
    x, time = torch.randn(2, 8, 5, 5), torch.randn(2, 4)
    scale, shift = block.time(time).chunk(2, dim=1)
    norm = torch.nn.functional.group_norm(block.conv1(block.pre(x)), 1)
    h = torch.nn.functional.silu(norm * (1 + scale[..., None, None]) + shift[..., None, None])
    torch.testing.assert_close(block(x, time), x + block.conv2(h))


def test_attention_to_a_class_equals_torchs_own():
    torch.manual_seed(0)
    tokens = ClassEmbeddingNetwork(3, 4 * 6, hidden=5, depth=1)
    ours = awake(ClassAttention(8, 2, 6, tokens))
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True, kdim=6, vdim=6, bias=True)
    x, labels = torch.randn(4, 8, 3, 3), torch.tensor([0, 1, 2, 3])
    key, value = ours.key_value.weight.chunk(2)
    with torch.no_grad():
        reference.q_proj_weight.copy_(ours.query.weight[:, :, 0, 0])
        reference.k_proj_weight.copy_(key)
        reference.v_proj_weight.copy_(value)
        reference.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key_value.bias]))
        reference.out_proj.weight.copy_(ours.out.weight[:, :, 0, 0])
        reference.out_proj.bias.copy_(ours.out.bias)
    places = ours.norm(x).flatten(2).transpose(1, 2)
    seen = tokens(labels).reshape(4, 4, 6)
    expected = reference(places, seen, seen, need_weights=False)[0]
    torch.testing.assert_close(ours(x, labels), x + expected.transpose(1, 2).reshape(x.shape))


@pytest.mark.parametrize(
    "cen", ["pyramid", "complete-bottleneck", "add", "adagn", "cross-attention"]
)
@pytest.mark.parametrize("activation", ["silu", "relu"])
def test_class_time_and_every_parameter_matter(cen, activation):
    network = awake(small(cen=cen, cen_activation=activation))
    x, t, labels = batch()
    out = network(x, t, labels)
    assert not torch.allclose(out, network(x, t, (labels + 1) % 5))
    assert not torch.allclose(out, network(x, 1 - t, labels))
    out.square().mean().backward()
    still = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []
    tables = [p.grad for n, p in network.named_parameters() if n.endswith("table.weight")]
    assert all(table[4].any() for table in tables)  # the null class learns too


def test_size_0_means_no_class_at_that_level():
    network = awake(small(cen="0,0,0"))
    x, t, labels = batch()
    torch.testing.assert_close(network(x, t, labels), network(x, t, (labels + 1) % 5))


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="heads must divide"):
        small(heads=3)


def test_too_small_images_are_refused():
    with pytest.raises(ValueError, match="at least 8 pixels"):
        build_network(ModelConfig(channels=(8, 8, 8, 8)), (1, 4, 4), 10, 0)


def test_equal_seeds_build_equal_networks_and_leave_the_global_generator():
    state = torch.get_rng_state()
    config = ModelConfig(channels=(8,))
    a, b, c = (build_network(config, (1, 8, 8), 10, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    pairs = list(zip(a.parameters(), b.parameters(), c.parameters(), strict=True))
    assert all(torch.equal(x, y) for x, y, _ in pairs)
    assert any(not torch.equal(x, z) for x, _, z in pairs)


def test_average_of_constant_weights_follows_its_closed_form():
    model, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    start = copy.deepcopy(average)
    for step in range(7):
        update_ema(average, model, torch.tensor(0.1) if step % 2 else 0.1)
    for p, e_0, e in zip(model.parameters(), start.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(e, 0.9**7 * e_0 + (1 - 0.9**7) * p)


def test_average_forgets_its_start_quickly_at_first():
    decays = [ema_decay(0.999, step) for step in (0, 10, 100, 100_000)]
    assert decays == sorted(decays)
    assert decays[0] == 0.1
    assert decays[-1] == 0.999
