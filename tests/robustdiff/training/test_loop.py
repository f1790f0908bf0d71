import copy
import dataclasses

import numpy as np
import pytest
import torch
from tasks import SMALL, run, same, small_task
from torch.utils._python_dispatch import TorchDispatchMode

from curricula import Labels
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.data.arrays import LabelledImages
from robustdiff.data.registry import load_images
from robustdiff.data.stored import Reader, Stored
from robustdiff.progress import Report
from robustdiff.training.graph import Numbers
from robustdiff.training.loop import StepDone, train
from robustdiff.training.state import new_state
from robustdiff.training.step import batch_losses, learning_rate, train_step, update
from robustdiff.training.task import Task
from robustdiff.training.used_labels import TrainingLabels

pytestmark = pytest.mark.usefixtures("quick_classifiers")


def test_two_runs_are_equal_and_seeds_matter():
    assert same(run(small_task())[0].ema, run(small_task())[0].ema)
    assert not same(run(small_task())[0].ema, run(small_task(seed=1))[0].ema)


def test_stored_images_train_the_same_and_a_run_killed_within_a_pass_goes_on():
    """It is killed when batches have been read ahead that it has not used."""
    task = small_task(curriculum={"name": "pmi", "warmup": 0, "probes": 1}, train={"steps": 6})
    pixels = task.data.images.numpy()
    kept = Stored(Reader(pixels.shape, lambda rows: pixels[rows]))
    on_disk = dataclasses.replace(task, data=LabelledImages(kept, task.data.given))
    expected = run(task)[0]
    assert same(run(on_disk)[0].ema, expected.ema)
    state = new_state(on_disk)
    events = train(state, on_disk)
    while state.step < 3:
        next(events)
    saved = copy.deepcopy(state.state_dict())
    events.close()
    state = new_state(on_disk)
    state.load_state_dict(saved)
    assert same(run(on_disk, state)[0].ema, expected.ema)


def test_a_label_that_is_not_used_does_not_matter():
    """Under treatment "null" training is the same whatever the suspects' labels are."""
    task = small_task(curriculum={"name": "oracle", "warmup": 0})
    other = torch.where(torch.from_numpy(task.oracle), task.data.given, 9 - task.data.given)
    changed = dataclasses.replace(task, data=LabelledImages(task.data.images, other))
    assert same(run(task)[0].ema, run(changed)[0].ema)
    ignored = dataclasses.replace(task, oracle=np.ones_like(task.oracle))
    assert not same(run(task)[0].ema, run(ignored)[0].ema)


def test_four_images_are_learnt_by_heart():
    images = load_images(DataConfig(), Report())
    config = resolve(
        {
            "model": {"channels": [16, 16]},
            "train": {
                "steps": 400,
                "batch_size": 4,
                "lr": 3e-3,
                "precision": "fp32",
                "log_every": 5,
            },
        }
    )
    task = Task(
        config=config,
        data=LabelledImages(images.train[:4], images.train_labels[:4]),
        num_classes=10,
        dtype=torch.float32,
    )
    losses = [event.loss for event in run(task)[1] if event.loss is not None]
    assert len(losses) == 80
    assert np.mean(losses[-4:]) < 0.25 * losses[0]


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    rates = [learning_rate(step, 10, peak=0.5, warmup=4, decay=5) / 0.5 for step in range(10)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    assert {learning_rate(step, 10, peak=0.5) for step in range(10)} == {0.5}
    task = small_task(train={"steps": 12, "decay_steps": 12, "warmup_steps": 0, "lr": 0.1})
    state, _ = run(task)
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 12)


def test_a_step_is_the_same_whether_its_numbers_are_plain_or_tensors():
    """A captured step reads its numbers from tensors."""
    task = small_task()
    plain, captured = new_state(task), new_state(task)
    for step in range(3):
        batch = task.data[torch.arange(16) + step]
        numbers = Numbers(step, 0.125 / (step + 1), 0.25)
        tensors = Numbers(*map(torch.tensor, numbers))
        loss = update(plain, task, batch, None, numbers, scale=1 / 16)
        assert torch.equal(loss, update(captured, task, batch, None, tensors, scale=1 / 16))
    for one, other in ((plain.model, captured.model), (plain.ema, captured.ema)):
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(p, q)


def test_soft_labels_are_drawn_anew_with_their_probabilities():
    classes = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    labels = TrainingLabels.of(Labels(np.array([0, 0]), soft=classes), torch.device("cpu"))
    drawn = torch.stack([labels.draw(torch.tensor([0, 1]), 0, step) for step in range(4000)])
    shares = [(drawn[:, 0] == k).float().mean().item() for k in range(3)]
    np.testing.assert_allclose(shares, classes[0], atol=0.03)
    assert (drawn[:, 1] == 2).all()


def test_weights_multiply_the_losses():
    task = small_task()
    batch = task.data[torch.arange(16)]

    def loss(weights=None):
        state = new_state(task)
        train_step(state, task, batch, weights)
        return state.losses.take_mean()

    assert loss(torch.full((16,), 2.0)) == pytest.approx(2 * loss())
    first = loss(16.0 * (torch.arange(16) == 0))
    expected = batch_losses(task.bind(new_state(task).model), batch, 0, task)[0]
    assert first == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "x0", "v"])
@pytest.mark.parametrize(
    ("time_sampling", "loss_weight"),
    [("uniform", "min-snr"), ("log-snr-normal", "none"), ("log-snr-uniform", "sigmoid")],
)
def test_continuous_noise_levels_train(prediction, time_sampling, loss_weight):
    diffusion = {
        "prediction": prediction, "time_sampling": time_sampling, "loss_weight": loss_weight,
    }  # fmt: skip
    events = run(small_task(train={"steps": 3}, diffusion=diffusion))[1]
    losses = [event.loss for event in events if isinstance(event, StepDone)]
    assert losses[:2] == [None, None]
    assert np.isfinite(losses[2])
    assert losses[2] > 0


class Waits(TorchDispatchMode):
    """Collect what makes the host wait for a device: values read, sizes that depend on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put_") else []
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal") or any(
            mask is not None and mask.dtype == torch.bool for mask in masks
        ):
            self.found.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "layer",
    [
        {},
        {"diffusion": {"time_sampling": "log-snr-normal", "loss_weight": "min-snr"}},
        {"diffusion": {"time_sampling": "cosine", "loss_weight": "sigmoid"}},
        {"curriculum": {"name": "random", "treatment": "reweight"}},
        {"curriculum": {"name": "crossfit", "treatment": "soft"}},
    ],
    ids=str,
)
def test_no_step_waits_for_the_device(layer):
    task = small_task(train=SMALL["train"] | {"steps": 12, "log_every": 12}, **layer)
    state = new_state(task)
    events = train(state, task)
    while state.step < 9:  # in the middle of an epoch
        next(events)
    with Waits() as waits:
        assert next(events) == StepDone(10, None)
        assert waits.found == []
        assert len(state.losses.read()) == 10
    assert waits.found == []


@pytest.mark.slow
def test_compiled_training_is_that_of_the_plain_network(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    training = SMALL["train"] | {"steps": 4}
    states = []
    for compiled in (False, True):
        task = small_task(train=training | {"compile": compiled})
        state = new_state(task)
        list(train(state, task))
        states.append(state)
    plain, fast = (state.ema.state_dict() for state in states)
    assert fast.keys() == plain.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(fast[name], weight, rtol=1e-3, atol=1e-4)
