"""What only a GPU can show: no step waits for it; runs and judges agree with those of a CPU."""

import numpy as np
import pytest
import torch
from commands import TINY, call, outcome
from tasks import SMALL, run, same, small_task

from robustdiff.config.judging import JudgeConfig
from robustdiff.data import stored
from robustdiff.diffusion.process import per_image
from robustdiff.labels.crossfit import crossfit, make_plan
from robustdiff.progress import silent
from robustdiff.training.loop import StepDone, train
from robustdiff.training.objective import mixed_output
from robustdiff.training.state import new_state

pytestmark = pytest.mark.gpu

RUN = ["train", "--dataset", "digits", "--noise", 0.3, "--seed", 1, *TINY]


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_no_step_waits_for_the_gpu():
    # All within one pass: the order of the next one waits.
    training = SMALL["train"] | {"device": "cuda", "log_every": 100, "batch_size": 4}
    task = small_task(train=training)
    events = (event for event in train(new_state(task), task) if isinstance(event, StepDone))
    next(events)
    try:
        torch.cuda.set_sync_debug_mode("error")
        for _ in range(8):
            next(events)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_captured_steps_equal_those_step_by_step():
    task = small_task(train=SMALL["train"] | {"device": "cuda", "steps": 12})
    captured, single = new_state(task), new_state(task)
    assert captured.graph is not None
    single.graph = None
    for state in (captured, single):
        list(train(state, task))
    for one, other in ((captured.model, single.model), (captured.ema, single.ema)):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_captured_steps_of_a_compiled_network_train_as_others_do():
    settings = SMALL["train"] | {"device": "cuda", "steps": 12}
    states = []
    for compiled in (True, False):
        task = small_task(train=settings | {"compile": compiled})
        state = new_state(task)
        list(train(state, task))
        assert state.graph is not None
        states.append(state)
    one, other = states
    for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)


def test_images_that_stay_with_the_host_train_alike(monkeypatch):
    settings = SMALL["train"] | {"device": "cuda", "steps": 12, "precision": "bf16"}
    task = small_task(train=settings)
    monkeypatch.setattr(stored, "_SHARE", 0.0)
    left = small_task(train=settings)
    assert isinstance(left.data.images, stored.Stored)
    assert not isinstance(task.data.images, stored.Stored)
    assert same(run(left)[0].model, run(task)[0].model)


@pytest.mark.parametrize("gradient", ["all", "given"])
def test_a_mixture_of_classes_is_that_of_a_cpu(gradient):
    generator = torch.Generator().manual_seed(0)
    x_t, t = torch.randn(6, 1, 4, 4, generator=generator), torch.rand(6, generator=generator)
    given = torch.arange(6) % 3
    weights = torch.tensor([[0.5, 0.3, 0.195, 0.005], [0.0, 1.0, 0.0, 0.0]]).repeat(3, 1)
    found = {}
    for device in ("cpu", "cuda"):
        table = torch.arange(1.0, 5.0, device=device, requires_grad=True)
        counts = []

        def network(x, t, y, table=table, counts=counts):
            counts.append(len(x))
            return x * per_image(table[y], x)

        moved = (part.to(device) for part in (x_t, t, given, weights))
        output = mixed_output(network, *moved, gradient=gradient)
        output.square().sum().backward()
        found[device] = (output.detach().cpu(), table.grad.cpu())
    assert counts[0] % len(x_t) == 0
    torch.testing.assert_close(found["cuda"], found["cpu"])


def test_a_mixture_of_classes_trains(tmp_path):
    words = [*RUN, "--steps", 20, "--objective", "tdsm", "--device", "cuda"]
    assert call(*words, "--out", tmp_path / "run") == 0
    assert call("eval", tmp_path / "run", "--num-samples", 64) == 0


@pytest.mark.parametrize("curriculum", ["uniform", "pmi", "dynamics-label", "crossfit"])
def test_a_run_is_trained_scored_and_evaluated(tmp_path, curriculum):
    made = tmp_path / "run"
    words = [*RUN, "--steps", 40, "--curriculum", curriculum, "--device", "cuda", "--out", made]
    assert call(*words) == 0
    assert call("eval", made, "--num-samples", 64) == 0


def test_equal_runs_give_equal_bits(tmp_path):
    for name in ("one", "other"):
        words = [*RUN, "--steps", 30, "--curriculum", "pmi", "--device", "cuda"]
        assert call(*words, "--out", tmp_path / name) == 0
    (one, history), (other, same) = outcome(tmp_path / "one"), outcome(tmp_path / "other")
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert history == same


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_equal_networks_trained_alike_have_equal_weights(precision):
    settings = SMALL["train"] | {"device": "cuda", "steps": 30, "precision": precision}
    one, other = (run(small_task(train=settings))[0].model for _ in range(2))
    assert same(one, other)


@pytest.mark.parametrize("devices", [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_goes_on_on_another_device(tmp_path, devices):
    words = [*RUN, "--precision", "fp32", "--curriculum", "pmi"]
    first, second = devices
    moved, stayed = tmp_path / "moved", tmp_path / "stayed"
    assert call(*words, "--steps", 10, "--device", first, "--out", moved) == 0
    assert call("train", "--resume", moved, "--steps", 20, "--device", second) == 0
    assert call(*words, "--steps", 20, "--device", first, "--out", stayed) == 0
    weights, same = outcome(moved)[0], outcome(stayed)[0]
    for key in weights:
        torch.testing.assert_close(weights[key], same[key], rtol=1e-2, atol=2e-3)


def test_the_judge_agrees_with_a_cpu():
    generator = torch.Generator().manual_seed(0)
    classes = torch.arange(400) % 2
    images = torch.randint(0, 100, (400, 3, 24, 24), generator=generator, dtype=torch.uint8)
    images[classes == 1, :, :12] += 100
    given = classes.clone()
    given[:60] = 1 - given[:60]
    plan = make_plan(JudgeConfig(folds=2, rounds=1), (3, 24, 24), 400, seed=0)
    found = {
        device: crossfit(images.to(device), given, 2, plan, progress=silent).decision.corrected
        for device in ("cpu", "cuda")
    }
    assert (found["cuda"] == classes.numpy()).mean() > 0.98
    assert np.mean(found["cuda"] == found["cpu"]) > 0.98
