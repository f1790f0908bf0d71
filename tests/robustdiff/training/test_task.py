import pytest
import torch
from tasks import SMALL

from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data.arrays import LabelledImages
from robustdiff.training.state import new_state
from robustdiff.training.step import train_step
from robustdiff.training.task import Task, total_steps


def test_epochs_are_passes_that_leave_out_a_short_last_batch():
    config = resolve(SMALL, {"train": {"epochs": 3}})
    assert total_steps(config, 64) == 12
    assert total_steps(config, 70) == 12


@pytest.mark.slow
def test_the_preset_of_published_size_makes_a_step():
    config = resolve(preset("cifar10"), {"train": {"batch_size": 1}})
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    data = LabelledImages(images, torch.arange(2))
    task = Task(config=config, data=data, num_classes=10, dtype=torch.float32)
    state = new_state(task)
    # EDM's DDPM++ for CIFAR-10 has 55.7 million (Karras et al. 2022).
    assert sum(p.numel() for p in state.model.parameters()) == pytest.approx(55.7e6, rel=0.05)
    train_step(state, task, data[torch.tensor([1])])
    assert 0 < state.losses.take_mean() < 10
