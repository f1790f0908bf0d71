"""The presets with the paper's sizes: what they are, and one step of each kind."""

import dataclasses

import pytest
import torch

from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.generate import generate
from robustdiff.diffusion.nets.unet import UNet
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.task import Task, total_steps


@pytest.mark.parametrize(
    ("name", "heads", "epochs"), [("paper-mnist", 1, 25), ("paper-switching", 4, 12)]
)
def test_the_papers_sizes(name, heads, epochs):
    config = resolve(preset(name))
    with torch.device("meta"):
        network = UNet(config.model, image_channels=1, num_classes=10)
    inputs = [level.block.conv1.in_channels for level in network.encoder]
    # Each level's input is the channels below plus that level's class embedding of size 1.
    assert inputs == [1, 128 + 1, 256 + 1, 256 + 1]
    assert network.bottleneck.block.conv2.out_channels == 1024
    assert network.bottleneck.cen.out.out_features == 1024
    assert [level.attention.heads for level in network.encoder] == [heads] * 4
    assert (network.time.size, config.sample.steps) == (100, 1000)
    assert (config.sample.guidance_weight, config.diffusion.p_uncond) == (4.0, 0.2)
    assert total_steps(config, 60_000) == epochs * 468
    assert sum(p.numel() for p in network.parameters()) == 56_091_986


def test_what_differs_between_sections_4_2_and_4_3():
    tables, images = (resolve(preset(name)) for name in ("paper-mnist", "paper-switching"))
    assert images == dataclasses.replace(
        tables,
        model=dataclasses.replace(tables.model, heads=4),
        train=dataclasses.replace(tables.train, epochs=12),
        sample=dataclasses.replace(
            tables.sample, v=0.3, guidance_interval=(0.5, 1.0), guidance_outside="null"
        ),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper-mnist", "paper-switching"])
def test_one_step_of_training_and_of_sampling_at_the_papers_sizes(name):
    config = resolve(preset(name), {"train": {"batch_size": 2}, "sample": {"steps": 2}})
    pixels = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    data = LabelledImages(pixels, torch.arange(20) % 10)
    task = Task(config=config, data=data, num_classes=10, dtype=torch.float32)
    state = new_state(task)
    before = [p.detach().clone() for p in state.model.parameters()]
    assert isinstance(next(train(state, task)), StepDone)
    # The network's output is zero before training, so the loss is the noise's mean square.
    assert state.losses.take_mean() == pytest.approx(1, abs=0.15)
    assert any(not torch.equal(a, b) for a, b in zip(before, state.model.parameters(), strict=True))
    labels = torch.tensor([3, 7])
    made = generate(task.bind(state.ema), labels, (1, 28, 28), sample=config.sample, seed=0)
    assert made.shape == (2, 1, 28, 28)
    assert made.dtype == torch.uint8
