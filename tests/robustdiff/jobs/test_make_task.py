import dataclasses

import pytest
from tasks import SMALL, run

from corruptions import corrupt
from curricula import CURRICULA
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.data.registry import load_images
from robustdiff.jobs.assemble import make_task
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
