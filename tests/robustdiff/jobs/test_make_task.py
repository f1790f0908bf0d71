import dataclasses

import pytest
from tasks import SMALL, run

from corruptions import corrupt
from curricula import CURRICULA
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.data.registry import load_images
from robustdiff.jobs.assemble import assemble, make_task
from robustdiff.parallel import Workers
from robustdiff.progress import Report

pytestmark = pytest.mark.usefixtures("quick_classifiers")


class Blind:
    """Stands for an object of which some attributes must not be read."""

    def __init__(self, original, hidden):
        self._original, self._hidden = original, hidden

    def __getattr__(self, name):
        assert name not in self._hidden, f"{name} was read"
        return getattr(self._original, name)


BLIND = [
    *({"curriculum": {"name": name}} for name in sorted(set(CURRICULA) - {"oracle"})),
    {"objective": {"name": "tdsm"}},
    {"objective": {"name": "tdsm-class"}},
]


@pytest.mark.parametrize("layer", BLIND, ids=str)
def test_nothing_but_the_oracle_can_see_the_clean_labels(layer):
    config, images = resolve(SMALL, layer), load_images(DataConfig(), Report())
    few = dataclasses.replace(
        images, train=images.train[:64], train_labels=images.train_labels[:64]
    )
    labels = corrupt(few.train_labels.numpy(), num_classes=10, rate=0.3, seed=0)
    hidden = {"clean", "flipped", "nominal", "realised", "realised_rate", "rate"}
    task = make_task(config, Blind(few, {"train_labels"}), Blind(labels, hidden), Report())
    state, events = run(task)
    assert state.step == 12
    assert len(events) >= 12


def test_the_oracle_does_read_them():
    config = resolve(SMALL, {"curriculum": {"name": "oracle"}})
    images = load_images(DataConfig(), Report())
    labels = corrupt(images.train_labels.numpy(), num_classes=10, rate=0.3, seed=0)
    with pytest.raises(AssertionError, match="flipped was read"):
        make_task(config, images, Blind(labels, {"flipped"}), Report())


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ({}, "the number of images .* processes, 3, got 2"),
        (
            {"curriculum": {"name": "random", "treatment": "select", "mk": 0.2, "k": 0.5}},
            r"that curriculum\.mk selects must .* processes, 3, got 2",
        ),
        ({"curriculum": {"rotate": 6}}, r"that curriculum\.rotate leaves .* processes, 3, got 2"),
    ],
)
def test_a_process_that_would_get_no_image_is_refused(layer, says):
    config, images = resolve(SMALL, layer), load_images(DataConfig(), Report())
    count = 2 if says.startswith("the number") else 12
    few = dataclasses.replace(images, train=images.train[:count])
    labels = corrupt(images.train_labels[:count].numpy(), num_classes=10, rate=0, seed=0)
    with pytest.raises(ValueError, match=says):
        make_task(config, few, labels, Report(), Workers(rank=1, size=3))


def test_a_batch_smaller_than_the_processes_is_refused_before_the_images_are_read(monkeypatch):
    monkeypatch.setattr("robustdiff.jobs.assemble.load_images", lambda *_: pytest.fail("read"))
    config = resolve(SMALL, {"train": {"steps": 1, "batch_size": 2}})
    with pytest.raises(ValueError, match=r"train\.batch_size .* processes, 3, got 2"):
        assemble(config, Report(), Workers(rank=1, size=3))
