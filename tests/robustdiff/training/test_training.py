import dataclasses
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from corruptions import corrupt
from curricula import CURRICULA, Labels
from robustdiff.classifiers.noisy_image import TimeClassifier
from robustdiff.config.sections import (
    CurriculumConfig,
    DataConfig,
    ModelConfig,
    TrainConfig,
    resolve,
)
from robustdiff.data.arrays import LabelledImages
from robustdiff.data.registry import load_images
from robustdiff.device import set_precision
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.nets.unet import UNet
from robustdiff.diffusion.process import PREDICTIONS
from robustdiff.diffusion.schedules import cosine
from robustdiff.errors import DivergedError
from robustdiff.jobs.assemble import make_task
from robustdiff.labels import scoring
from robustdiff.labels.crossfit import Judgement
from robustdiff.labels.scoring import Probing, class_evidence, make_probe, prediction_scores
from robustdiff.progress import Silent
from robustdiff.training.loop import StepDone, Told, batch_losses, learning_rate, train, train_step
from robustdiff.training.rounds import RoundDone, rounds_due
from robustdiff.training.state import new_state
from robustdiff.training.task import Task, total_steps

ROWS = torch.arange(20)
SMALL = {
    "model": {"channels": [8], "cen_hidden": 8, "time_size": 8},
    "train": {"steps": 12, "batch_size": 16, "precision": "fp32", "warmup_steps": 2},
    "curriculum": {"warmup": 1, "score_every": 1, "probes": 2, "dk": 0.3},
}


@pytest.fixture(autouse=True)
def _quick_classifiers(monkeypatch):
    """Judging by classifiers takes seconds; here the posterior is a function of the labels."""

    def posterior(images, given, num_classes, *, seed, progress, workers):
        rng = np.random.default_rng(seed)
        classes = rng.dirichlet(np.ones(num_classes), len(given))
        return Judgement(classes, np.full((num_classes, num_classes), 1 / num_classes))

    def transition(images, given, num_classes, *, seed, progress):
        return np.full((num_classes, num_classes), 0.05) + 0.5 * np.eye(num_classes)

    def classifier(data, num_classes, *, transition, schedule, seed, progress):
        torch.manual_seed(seed)
        return TimeClassifier(1, num_classes).eval()

    monkeypatch.setattr("robustdiff.training.rounds.crossfit", posterior)
    monkeypatch.setattr("robustdiff.training.objective.estimate_transition", transition)
    monkeypatch.setattr("robustdiff.training.objective.train_time_classifier", classifier)


def small_task(**layer):
    config = resolve(SMALL, *[{k: v} for k, v in layer.items()])
    images = load_images(DataConfig(), Silent())
    clean = images.train_labels[:64].numpy()
    labels = corrupt(clean, num_classes=10, rate=0.3, seed=config.seed)
    few = dataclasses.replace(images, train=images.train[:64], train_labels=images.train_labels)
    return make_task(config, few, labels, Silent())


def run(task, state=None):
    state = new_state(task) if state is None else state
    return state, list(train(state, task))


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


COMBINATIONS = [
    *((name, None) for name in CURRICULA),
    ("crossfit", "soft"),
    ("margin", "relabel"),
    ("margin", "select"),
    ("small-loss", "reweight"),
    ("dynamics-uncond", "null"),
]
ROTATED = [
    {"curriculum": {"name": name, "rotate": 2}}
    for name in ("pmi", "margin", "aum", "forgetting", "dynamics-cond")
]


LAYERS = [
    *({"curriculum": {"name": name, "treatment": how}} for name, how in COMBINATIONS),
    *ROTATED,
    {"objective": {"name": "tdsm"}},
    {"objective": {"name": "tdsm-class", "gradient": "given", "matrix": "nominal"}},
]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_stopped_and_resumed_equals_uninterrupted(layer):
    task = small_task(**layer)
    straight, events = run(task)
    for stop in range(1, len(events), 3):
        first = new_state(task)
        done = list(islice(train(first, task), stop))
        second = new_state(task)
        second.load_state_dict(first.state_dict())
        rest = run(task, second)[1]
        assert same(second.ema, straight.ema)
        assert same(second.model, straight.model)
        for a, b in zip(done + rest, events, strict=True):
            assert type(a) is type(b)
            if isinstance(a, StepDone):
                assert a == b
            elif isinstance(a, RoundDone):
                np.testing.assert_array_equal(a.scores, b.scores)
                np.testing.assert_array_equal(a.trust.right, b.trust.right)
                np.testing.assert_array_equal(a.label_used, b.label_used)


def test_a_grown_run_equals_a_long_one():
    short = small_task(curriculum={"name": "pmi"}, train={"steps": 5})
    state, _ = run(short)
    long = small_task(curriculum={"name": "pmi"})
    run(long, state)
    assert same(state.ema, run(long)[0].ema)


def test_two_runs_are_equal_and_seeds_matter():
    assert same(run(small_task())[0].ema, run(small_task())[0].ema)
    assert not same(run(small_task())[0].ema, run(small_task(seed=1))[0].ema)


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
    config, images = resolve(SMALL, layer), load_images(DataConfig(), Silent())
    few = dataclasses.replace(
        images, train=images.train[:64], train_labels=images.train_labels[:64]
    )
    labels = corrupt(few.train_labels.numpy(), num_classes=10, rate=0.3, seed=0)
    hidden = {"clean", "flipped", "nominal", "realised", "realised_rate", "rate"}
    task = make_task(config, Blind(few, {"train_labels"}), Blind(labels, hidden), Silent())
    state, events = run(task)
    assert state.step == 12
    assert len(events) >= 12


def test_the_oracle_does_read_them():
    config = resolve(SMALL, {"curriculum": {"name": "oracle"}})
    images = load_images(DataConfig(), Silent())
    labels = corrupt(images.train_labels.numpy(), num_classes=10, rate=0.3, seed=0)
    with pytest.raises(AssertionError, match="flipped was read"):
        make_task(config, images, Blind(labels, {"flipped"}), Silent())


def test_the_oracle_drops_exactly_the_wrong_labels():
    task = small_task(curriculum={"name": "oracle"})
    rounds = [event for event in run(task)[1] if isinstance(event, RoundDone)]
    np.testing.assert_array_equal(rounds[-1].label_used, task.oracle)
    assert (~task.oracle).sum() == round(0.3 * 64)


def test_a_label_that_is_not_used_does_not_matter():
    """Under treatment "null" training is the same whatever the suspects' labels are."""
    task = small_task(curriculum={"name": "oracle", "warmup": 0})
    other = torch.where(torch.from_numpy(task.oracle), task.data.given, 9 - task.data.given)
    changed = dataclasses.replace(task, data=LabelledImages(task.data.images, other))
    assert same(run(task)[0].ema, run(changed)[0].ema)
    ignored = dataclasses.replace(task, oracle=np.ones_like(task.oracle))
    assert not same(run(task)[0].ema, run(ignored)[0].ema)


def test_the_oracle_needs_the_truth():
    task = dataclasses.replace(small_task(curriculum={"name": "oracle"}), oracle=None)
    with pytest.raises(ValueError, match="clean labels"):
        run(task)


def test_four_images_are_learnt_by_heart():
    images = load_images(DataConfig(), Silent())
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
    losses = [event.loss for event in run(task)[1]]
    told = [loss for loss in losses if loss is not None]
    assert len(told) == 80
    assert np.mean(told[-4:]) < 0.25 * told[0]


def test_a_loss_that_is_not_finite_stops_the_run_by_name():
    task = small_task(train={"steps": 12, "lr": 1e12})
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step \d+ \(samples"):
        run(task)


def test_the_learning_rate_rises_stays_and_falls_to_nothing():
    setting = TrainConfig(steps=10, lr=0.5, warmup_steps=4, decay_steps=5)
    rates = [learning_rate(setting, step, 10) / 0.5 for step in range(10)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
    level = TrainConfig(steps=10, lr=0.5, warmup_steps=0)
    assert {learning_rate(level, step, 10) for step in range(10)} == {0.5}
    task = small_task(train={"steps": 12, "decay_steps": 12, "warmup_steps": 0, "lr": 0.1})
    state, _ = run(task)
    assert state.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 / 12)


def test_lengths():
    config = resolve(SMALL, {"train": {"epochs": 3}})
    assert total_steps(config, 64) == 12
    assert total_steps(config, 70) == 12
    task = small_task(curriculum={"warmup": 2, "score_every": 3})
    assert [rounds_due(task, step) for step in (0, 7, 8, 19, 20, 32)] == [0, 0, 1, 1, 2, 3]


def shifting(shift, used):
    """A model whose error depends on the label: wrong by `shift[label]`."""

    def network(x_t, t, labels):
        used.append(labels.unflatten(0, (len(x_t), -1)))
        return x_t.repeat_interleave(used[-1].shape[1], dim=0) + shift[labels].reshape(-1, 1, 1, 1)

    return Model(network, cosine, PREDICTIONS["eps"], null_class=10)


def probing(**changes):
    return Probing(seed=0, p_uncond=0.5, settings=CurriculumConfig(**changes))


def small_data(labels=None):
    images = load_images(DataConfig(), Silent())
    given = images.train_labels[:20] if labels is None else labels
    return LabelledImages(images.train[:20], given)


def test_probes_are_the_same_for_every_label_and_stratified_in_time():
    data, where = small_data(), torch.arange(20)
    model = shifting(torch.zeros(11), [])
    x, labels, index = data[where]
    setting = probing(probes=4, probe_times=(0.2, 0.6))
    for k in range(4):
        a = make_probe(model, setting, (x, labels, index), 3, k)
        b = make_probe(model, setting, (x, labels.flip(0), index), 3, k)
        assert torch.equal(a.x_t, b.x_t)
        assert (a.t >= 0.2 + 0.1 * k).all()
        assert (a.t <= 0.3 + 0.1 * k).all()
        again = make_probe(model, setting, (x, labels, index), 4, k)
        assert not torch.isclose(a.eps, again.eps).any()


def test_a_snapshot_equal_to_the_model_gives_dynamics_of_0():
    model = shifting(torch.rand(11), [])
    for name in ("dynamics-cond", "dynamics-uncond", "dynamics-dropout"):
        scores = prediction_scores(CURRICULA[name], probing(), small_data(), model, model, ROWS, 1)
        if name == "dynamics-dropout":  # old and new share the dropped labels too
            assert (scores == 0).all()
        assert abs(scores).max() == 0


def test_redrawn_probes_make_dynamics_of_an_unmoved_model_noise():
    model = shifting(torch.rand(11), [])
    setting = probing(pairing="redrawn")
    scores = prediction_scores(
        CURRICULA["dynamics-cond"], setting, small_data(), model, model, ROWS, 1
    )
    assert (scores != 0).all()


def test_dynamics_uncond_motion_does_not_depend_on_the_label():
    """With the residual's label part gone, the score of the fix is blind to labels."""
    shift = torch.zeros(11)
    moved = torch.zeros(11)
    moved[10] = 0.3
    old, new = shifting(shift, []), shifting(moved, [])
    entry = CURRICULA["dynamics-uncond"]
    one = prediction_scores(entry, probing(), small_data(), new, old, ROWS, 1)
    labels = small_data().given.flip(0)
    other = prediction_scores(entry, probing(), small_data(labels), new, old, ROWS, 1)
    np.testing.assert_array_equal(one, other)


def test_scores_call_each_forward_with_the_right_labels():
    used = []
    model = shifting(torch.rand(11), used)
    data = small_data()
    prediction_scores(CURRICULA["pmi"], probing(probes=1), data, model, None, ROWS, 0)
    (labels,) = used  # one forward for both
    assert torch.equal(labels[:, 0], data.given)
    assert (labels[:, 1] == 10).all()


def test_dynamics_have_no_score_before_a_second_round():
    model = shifting(torch.rand(11), [])
    for name in ("dynamics-cond", "dynamics-uncond"):
        assert (
            prediction_scores(CURRICULA[name], probing(), small_data(), model, None, ROWS, 0)
            is None
        )


def test_class_evidence_is_the_error_of_the_given_label_less_that_of_each_class():
    shift = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    # The model predicts eps = x_t + shift; at t near 1, x_t is nearly eps.
    data = small_data(torch.full((20,), 3))
    setting = probing(probes=2, probe_times=(0.97, 0.99), rivals=2)
    whole = class_evidence(setting, data, shifting(shift, []), None, ROWS, 0)
    expected = 0.3**2 - shift[:10].double().numpy() ** 2
    np.testing.assert_allclose(whole, np.broadcast_to(expected, (20, 10)), atol=0.12)
    assert (whole[:, 3] == 0).all()
    used = []
    again = class_evidence(setting, data, shifting(shift, used), whole, ROWS, 0)
    assert len(used) == 2  # one forward a probe
    assert all((labels == torch.tensor([3, 0, 1])).all() for labels in used)
    tried = ~np.isnan(again)
    assert (tried == np.isin(np.arange(10), [0, 1, 3])).all()
    np.testing.assert_allclose(again[tried], whole[tried])


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_scores_do_not_depend_on_how_many_run_at_once(prediction, monkeypatch):
    torch.manual_seed(0)
    config = ModelConfig(channels=(8, 16), cen="complete-bottleneck")
    network = UNet(config, image_channels=1, num_classes=10).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = Model(network, cosine, PREDICTIONS[prediction], null_class=10)
    data, one, many = small_data(), [], []
    for found, batch in ((many, 512), (one, 1)):
        monkeypatch.setattr(scoring, "_BATCH", batch)
        found.append(class_evidence(probing(probes=2), data, model, None, ROWS, 0))
        for name in ("pmi", "dynamics-uncond"):
            args = (CURRICULA[name], probing(probes=2), data, model, model, ROWS, 0)
            found.append(prediction_scores(*args))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # Class by class, as the definition says.
    labels, index = data.given, torch.arange(20)
    error = torch.zeros(20, 10)
    with torch.no_grad():
        for k in range(2):
            probe = make_probe(model, probing(probes=2), (data[index][0], labels, index), 0, k)
            for c in range(10):
                eps = model.eps(probe.x_t, probe.t, torch.full((20,), c))
                error[:, c] += (probe.eps - eps).square().flatten(1).mean(1) / 2
    expected = error.gather(1, labels[:, None]) - error
    np.testing.assert_allclose(many[0], expected, rtol=1e-4, atol=1e-5)


def test_samples_take_turns():
    """After the first round, which scores everybody, each round scores one sample in `rotate`."""
    task = small_task(curriculum={"name": "pmi", "warmup": 0, "rotate": 4, "smoothing": 0.0})
    rounds = [event.scores for event in run(task)[1] if isinstance(event, RoundDone)]
    for number, (before, after) in enumerate(pairwise(rounds), start=1):
        changed = np.flatnonzero(before != after)
        np.testing.assert_array_equal(changed, np.arange(number % 4, 64, 4))


def test_only_the_rows_that_are_asked_for_are_scored():
    rows, model = torch.tensor([3, 7]), shifting(torch.rand(11), [])
    scores = prediction_scores(CURRICULA["pmi"], probing(), small_data(), model, None, rows, 0)
    gains = class_evidence(probing(), small_data(), model, None, rows, 0)
    assert np.flatnonzero(~np.isnan(scores)).tolist() == [3, 7]
    assert np.flatnonzero(~np.isnan(gains).any(axis=1)).tolist() == [3, 7]


def test_soft_labels_are_drawn_anew_with_their_probabilities():
    classes = np.array([[0.5, 0.3, 0.2], [0.0, 0.0, 1.0]])
    told = Told.of(Labels(np.array([0, 0]), soft=classes), torch.device("cpu"))
    drawn = torch.stack([told.draw(torch.tensor([0, 1]), 0, step) for step in range(4000)])
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


def test_losses_are_read_together_and_none_that_is_not_finite_is_kept():
    task = small_task(train={"steps": 12, "log_every": 5})
    state = new_state(task)
    told = {event.step: event.loss for event in train(state, task) if isinstance(event, StepDone)}
    assert [step for step, loss in told.items() if loss is not None] == [5, 10, 12]
    every = small_task(train={"steps": 12, "log_every": 1})
    singles = [event.loss for event in run(every)[1] if isinstance(event, StepDone)]
    assert told[5] == pytest.approx(np.mean(singles[:5]))
    assert told[12] == pytest.approx(np.mean(singles[10:]))
    state.losses.add(13, torch.tensor(torch.inf), torch.tensor([3, 4]))
    with pytest.raises(DivergedError, match=r"inf at step 13 \(samples 3, 4, "):
        state.state_dict()


def test_products_on_a_gpu_keep_float32_only_if_asked_to():
    cpu, backends = torch.device("cpu"), torch.backends
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        assert set_precision(precision, cpu) == dtype
        tf32 = precision != "fp32"
        assert backends.cuda.matmul.allow_tf32 == backends.cudnn.allow_tf32 == tf32


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


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("robustdiff.device.shutil.which", lambda name: None)
    with pytest.raises(ValueError, match="and there is none"):
        new_state(small_task(train=SMALL["train"] | {"compile": True}))
