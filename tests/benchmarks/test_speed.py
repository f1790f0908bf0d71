"""The arithmetic of the speed benchmark, and that its contenders train what they say."""

import functools
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks.speed import audit, costs, fid, rates
from benchmarks.speed.contenders import DIFFUSERS, OURS, PLAIN, contenders, cosine_times
from benchmarks.speed.parts import PARTS, flops, parts
from robustdiff.classifiers.networks import make_classifier
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.data.arrays import to_float
from robustdiff.diffusion.schedules import cosine
from robustdiff.labels.crossfit import make_plan

IMAGES = costs.made_up(40, 8, 10)


def small(**changes):
    model = {"channels": [8], "cen_hidden": 8, "time_size": 8, "patch_size": 2}
    return resolve({"model": model, "train": {"steps": 5, "batch_size": 8}}, changes)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law_is_found(power):
    sizes = [1, 10, 100, 1000]
    costs_of = [3 * size**power for size in sizes]
    assert rates.exponent(sizes, costs_of) == pytest.approx(power)


def test_ratios_are_formed_round_by_round():
    # The machine's speed halves; the ratio stays.
    assert rates.ratio([40, 20, 30], [10, 5, 10]) == {"median": 4, "min": 3, "max": 4}


def test_works_take_turns():
    calls = []
    works = {name: lambda name=name: calls.append(name) or 1 for name in "ab"}
    found = rates.rates(works, rounds=3, seconds=0, warm_up=1)
    assert [name for name, _ in itertools.groupby(calls[2:])] == list("ababab")
    assert {name: len(values) for name, values in found.items()} == {"a": 3, "b": 3}


@pytest.mark.slow
def test_peak_memory_is_the_works_own():
    np.ones(100 * 2**20)  # 800 MiB, here and gone
    idle = rates.peak_memory(functools.partial(np.ones, 1))
    busy = rates.peak_memory(functools.partial(np.ones, 32 * 2**20))
    assert idle < 700
    assert busy - idle == pytest.approx(256, abs=32)


def test_times_of_the_cosine_schedule_are_found_again():
    t = torch.linspace(0.01, 0.99, 9, dtype=torch.float64)
    torch.testing.assert_close(cosine_times(cosine(t)[0].square()), t)


@pytest.mark.parametrize("name", [OURS, PLAIN])
def test_a_contender_trains_and_samples(name):
    contender = contenders(small(), IMAGES, "none")[name]()
    assert contender.step() == 8
    made = contender.sample(4)
    assert (made.dtype, made.shape) == (torch.uint8, (4, 1, 8, 8))
    x_0, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
    # An untrained network predicts no v, which is alpha eps - sigma x_0: of eps, alpha^2 is left.
    eps, alpha_bar = torch.ones(4, 1, 8, 8), torch.full((4,), 0.25)
    fresh = contenders(small(), IMAGES, "none")[name]()
    assert fresh.error(x_0, labels, alpha_bar, eps) == pytest.approx((0.25) ** 2, rel=1e-3)


@pytest.mark.parametrize("name", DIFFUSERS)
def test_peers_have_our_number_of_parameters(name):
    diffusers = pytest.importorskip("diffusers")
    assert diffusers is not None
    config = resolve(preset(name))
    images = costs.made_up(40, 8 if name == "digits" else 28, 10)
    if name.startswith("cifar10"):
        images = replace(images, train=torch.zeros(40, 3, 32, 32, dtype=torch.uint8))
    built = {who: make() for who, make in contenders(config, images, name).items()}
    ours = built[OURS].parameters
    for who, contender in built.items():
        assert contender.parameters == pytest.approx(ours, rel=0.05), who


def test_parts_and_operations_of_a_matrix_product():
    a = torch.randn(64, 32)
    assert flops(lambda: a @ a.T) == 2 * 64 * 64 * 32
    found = parts(lambda: a @ a.T, 2)
    assert found.keys() == {*PARTS, "all else"}
    assert found["matrix products"] > 0
    assert found["convolutions"] == 0


def test_overhead_counts_every_round_of_the_run(monkeypatch):
    monkeypatch.setattr(costs, "_seconds_per_step", lambda *_: 1.0)
    ticks = itertools.count()
    monkeypatch.setattr(costs.time, "perf_counter", lambda: float(next(ticks)))
    # 5 steps a pass, rounds after passes 1 and 2 and at the end, each of one second.
    config = small(curriculum={"probes": 1}, train={"steps": 15})
    assert costs.overhead(config, IMAGES, "pmi", 0) == pytest.approx(1 + 3 / 15)


def test_the_time_of_looking_is_not_counted(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(rates.time, "perf_counter", lambda: clock[0])

    def spend(seconds):
        clock[0] += seconds
        return clock[0]

    found = rates.against_the_clock(lambda: spend(2), lambda: spend(100), [3, 6])
    # Two steps until 3 s are over, one more until 6 s are.
    assert found == [(4, 104), (6, 206)]


@pytest.mark.parametrize(
    ("level", "seconds"), [(9, 1), (8, 1), (5, 1.5), (2, 2), (1, 3), (0.5, None)]
)
def test_seconds_to_a_level_are_linear_between_the_looks(level, seconds):
    # What went up again counts as it was seen first.
    assert rates.seconds_to([(1, 8), (2, 2), (3, 1), (4, 7)], level) == seconds


def test_the_level_is_the_best_peers_at_the_end():
    curves = {
        OURS: [(1, 10), (2, 4), (8, 1)],
        PLAIN: [(1, 20), (8, 0.5)],
        "one": [(4, 9), (8, 7)],
        "another": [(4, 30), (8, 20)],
    }
    found = fid.to_the_peers_level(curves)
    assert (found["peer"], found["level"]) == ("one", 7)
    assert found["seconds"] == {
        OURS: 1.5,
        PLAIN: pytest.approx(5.667, abs=1e-3),
        "one": 8,
        "another": None,
    }
    assert found["ratio"] == pytest.approx(8 / 1.5)
    lines = fid.table({"curves": curves, "reached": found})
    assert "| another | 20.00 | not reached |" in lines


def test_the_class_wise_fid_of_held_out_images_themselves_is_zero(monkeypatch):
    images = costs.made_up(40, 8, 2)
    images = replace(images, test=images.train, test_labels=images.train_labels)
    monkeypatch.setattr(fid, "train_evaluator", functools.partial(_untrained, 2))
    assert fid.classwise_fid(images)(images.train) == pytest.approx(0, abs=1e-4)
    assert fid.classwise_fid(images)(images.train.flip(0)) > 1e-3


def _untrained(k, *_, **__):
    torch.manual_seed(0)
    return make_classifier((1, 8, 8), k).eval()


def a_case():
    generator = torch.Generator().manual_seed(0)
    clean = np.arange(60) % 2
    dark = torch.randint(0, 90, (60, 1, 16, 16), generator=generator)
    images = (dark + 160 * torch.from_numpy(clean)[:, None, None, None]).to(torch.uint8)
    given = clean.copy()
    given[[3, 10, 25, 44]] ^= 1
    return audit.Case("bright or dark", images, given, clean, 2)


def test_out_of_sample_probabilities_come_from_networks_that_did_not_learn_the_image(monkeypatch):
    case, learnt, asked = a_case(), [], []
    monkeypatch.setattr(audit, "BATCH", 12)

    class Spy(audit.Learner):
        def step(self, images, labels):
            learnt[-1].update(_numbers(case, images))

        def logits(self, images):
            asked.append(_numbers(case, audit_uint8(images)))
            return torch.zeros(len(images), 2)

    def make():
        learnt.append(set())
        return torch.nn.Linear(1, 1)

    monkeypatch.setattr(audit, "Learner", Spy)
    found, judged = audit.out_of_sample(case, make, 2, torch.float32)
    np.testing.assert_allclose(found, 0.5)
    np.testing.assert_array_equal(judged, np.arange(60))
    assert len(learnt) == audit.FOLDS
    assert sorted(number for part in asked for number in part) == [*range(60)]
    for seen, part in zip(learnt, asked, strict=True):
        assert not seen & {*part}
        assert seen | {*part} == {*range(60)}
    first = {*asked[0]}
    found, judged = audit.out_of_sample(case, make, 2, torch.float32, folds=1)
    assert (len(found), {*judged.tolist()}, len(learnt)) == (12, first, audit.FOLDS + 1)


def _numbers(case, images):
    return [int((case.images == image).flatten(1).all(1).nonzero()[0, 0]) for image in images]


def audit_uint8(images):
    return ((images + 1) * 127.5).round().to(torch.uint8)


@pytest.mark.parametrize("adapted", [False, True])
def test_a_resnet_learns_bright_and_dark(adapted):
    case = a_case()
    torch.manual_seed(0)
    learner = audit.Learner(
        audit.resnet18(1, 2, adapted=adapted),
        8,
        dtype=torch.float32,
        flip=False,
        device=torch.device("cpu"),
    )
    images = to_float(case.images[:16])
    assert learner.network.conv1(images).shape[2] == (16 if adapted else 8)
    before = torch.nn.functional.cross_entropy(
        learner.logits(images), torch.from_numpy(case.clean[:16])
    )
    for _ in range(4):
        learner.step(case.images[:16], torch.from_numpy(case.clean[:16]))
    after = torch.nn.functional.cross_entropy(
        learner.logits(images), torch.from_numpy(case.clean[:16])
    )
    assert after < before


def test_images_seen_by_a_plan_are_counted():
    plan = make_plan(JudgeConfig(effort="default"), (3, 32, 32), 50_000, seed=0)
    # docs/judge.md has 2.5 million.
    assert audit.seen_by(plan, 50_000) == 10 * 4 * 37_500 + 5 * 4 * 50_000


def test_cleanlab_flags_what_confident_probabilities_contradict():
    pytest.importorskip("cleanlab")
    case = a_case()
    probabilities = np.full((60, 2), 0.05)
    probabilities[np.arange(60), case.clean] = 0.95
    scores, flags = audit.by_cleanlab(case.given, probabilities)
    np.testing.assert_array_equal(flags, case.given != case.clean)
    assert scores[flags].max() < scores[~flags].min()


def test_a_score_takes_a_share_of_what_the_bare_network_allows():
    found = costs.scoring_rates(small(curriculum={"probes": 1}), IMAGES, 0.0)
    assert {"small-loss", "pmi", "margin, all classes"} <= found.keys()
    for figures in found.values():
        assert figures["images_per_second"] > 0
        assert figures["share_of_bare_network"] > 0


def test_the_bare_network_sees_as_many_labels_as_the_score():
    calls = []

    def network(x_t, t, labels):
        calls.append((len(x_t), len(labels)))
        return x_t

    model = SimpleNamespace(network=network, null_class=10)
    assert costs._bare(model, IMAGES.train, [2, 1], 12)() == 4
    assert calls == [(4, 8), (4, 4)]
