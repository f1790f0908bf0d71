import copy

import pytest
import torch

from robustdiff.config import ModelConfig, preset, resolve
from robustdiff.ema import ema_decay, update_ema
from robustdiff.nets.embeddings import class_embedding_sizes
from robustdiff.nets.unet import UNet
from robustdiff.task import build_network


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
        ("uniform-16", [16] * 5),
        ("pyramid", [1, 128, 256, 256, 512]),
        ("bottleneck", [1, 1, 1, 1, 1024]),
        ("complete-bottleneck", [0, 0, 0, 0, 1024]),
        ("3,0,2,0,9", [3, 0, 2, 0, 9]),
        ("add", [0] * 5),
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


@pytest.mark.parametrize(
    "cen", ["pyramid", "bottleneck", "complete-bottleneck", "uniform-3", "add"]
)
@pytest.mark.parametrize("patch_size", [1, 2])
def test_images_of_a_batch_do_not_see_each_other(cen, patch_size):
    network = awake(small(cen=cen, patch_size=patch_size, heads=2))
    x, t, labels = batch()
    alone = network(x[:1], t[:1], labels[:1])
    others = network(x, t, (labels + 1).clamp(max=4).index_copy(0, torch.tensor([0]), labels[:1]))
    torch.testing.assert_close(others[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cen", ["pyramid", "complete-bottleneck", "add"])
def test_class_time_and_every_parameter_matter(cen):
    network = awake(small(cen=cen))
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


def test_paper_preset_has_the_papers_sizes():
    config = resolve(preset("paper-mnist"))
    with torch.device("meta"):
        network = UNet(config.model, image_channels=1, num_classes=10)
    inputs = [level.block.conv1.in_channels for level in network.encoder]
    # Each level's input is the channels below plus that level's class embedding of size 1.
    assert inputs == [1, 128 + 1, 256 + 1, 256 + 1]
    assert network.bottleneck.block.conv2.out_channels == 1024
    assert [level.attention.heads for level in network.encoder] == [1] * 4
    assert (network.time.size, config.train.epochs, config.sample.steps) == (100, 25, 1000)
    sample, diffusion = config.sample, config.diffusion
    assert (sample.v, sample.guidance_weight, diffusion.p_uncond) == (0.2, 4.0, 0.2)


def test_average_of_constant_weights_follows_its_closed_form():
    model, average = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    start = copy.deepcopy(average)
    for _ in range(7):
        update_ema(average, model, 0.9)
    for p, e_0, e in zip(model.parameters(), start.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(e, 0.9**7 * e_0 + (1 - 0.9**7) * p)


def test_average_forgets_its_start_quickly_at_first():
    decays = [ema_decay(0.999, step) for step in (0, 10, 100, 100_000)]
    assert decays == sorted(decays)
    assert decays[0] == 0.1
    assert decays[-1] == 0.999
