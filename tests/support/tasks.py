"""Small training tasks, and what their tests do with them."""

import dataclasses

import torch

from corruptions import corrupt
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.data.registry import load_images
from robustdiff.jobs.assemble import make_task
from robustdiff.progress import Report
from robustdiff.training.loop import train
from robustdiff.training.state import new_state

SMALL = {
    "model": {"channels": [8], "cen_hidden": 8, "time_size": 8},
    "train": {"steps": 12, "batch_size": 16, "precision": "fp32", "warmup_steps": 2},
    "curriculum": {"warmup": 1, "score_every": 1, "probes": 2, "dk": 0.3},
}


def small_task(**layer):
    """A task of 64 digits with 30 % wrong labels; sections replace those of `SMALL`."""
    config = resolve(SMALL, *[{k: v} for k, v in layer.items()])
    images = load_images(DataConfig(), Report())
    clean = images.train_labels[:64].numpy()
    labels = corrupt(clean, num_classes=10, rate=0.3, seed=config.seed)
    few = dataclasses.replace(images, train=images.train[:64], train_labels=images.train_labels)
    return make_task(config, few, labels, Report())


def run(task, state=None):
    """Train to the end; return the state and all events."""
    state = new_state(task) if state is None else state
    return state, list(train(state, task))


def same(a, b):
    """Whether two networks have equal weights."""
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
