from tasks import SMALL

from robustdiff.config.layers import resolve
from robustdiff.training.task import total_steps


def test_epochs_are_passes_that_leave_out_a_short_last_batch():
    config = resolve(SMALL, {"train": {"epochs": 3}})
    assert total_steps(config, 64) == 12
    assert total_steps(config, 70) == 12
