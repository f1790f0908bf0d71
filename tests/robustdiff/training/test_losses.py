import numpy as np
import pytest
import torch
from tasks import run, small_task

from robustdiff.errors import DivergedError
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state


def test_a_loss_that_is_not_finite_stops_the_run_by_name():
    task = small_task(train={"steps": 12, "lr": 1e12})
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ \(samples"):
        run(task)


def test_losses_are_read_together_and_none_that_is_not_finite_is_kept():
    task = small_task(train={"steps": 12, "log_every": 5})
    state = new_state(task)
    logged = {event.step: event.loss for event in train(state, task) if isinstance(event, StepDone)}
    assert [step for step, loss in logged.items() if loss is not None] == [5, 10, 12]
    every = small_task(train={"steps": 12, "log_every": 1})
    singles = [event.loss for event in run(every)[1] if isinstance(event, StepDone)]
    assert logged[5] == pytest.approx(np.mean(singles[:5]))
    assert logged[12] == pytest.approx(np.mean(singles[10:]))
    state.losses.add(13, torch.tensor(torch.inf), torch.tensor([3, 4]))
    with pytest.raises(DivergedError, match=r"inf at step 13 \(samples 3, 4, "):
        state.state_dict()
