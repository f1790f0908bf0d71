"""The arithmetic of the speed benchmark, and that its contenders train what they say."""

import functools
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.speed import costs, rates
from benchmarks.speed.contenders import OURS, PLAIN, WIDTHS, contenders, cosine_times
from benchmarks.speed.parts import PARTS, flops, parts
from robustdiff.config.layers import resolve
from robustdiff.config.presets import preset
from robustdiff.diffusion.schedules import cosine

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
    assert len(contender.sample(4)) == 4
    x_0, labels = torch.zeros(4, 1, 8, 8), torch.arange(4)
    # An untrained network predicts no v, which is alpha eps - sigma x_0: of eps, alpha^2 is left.
    eps, alpha_bar = torch.ones(4, 1, 8, 8), torch.full((4,), 0.25)
    fresh = contenders(small(), IMAGES, "none")[name]()
    assert fresh.error(x_0, labels, alpha_bar, eps) == pytest.approx((0.25) ** 2, rel=1e-3)


@pytest.mark.parametrize("name", WIDTHS)
def test_peers_have_our_number_of_parameters(name):
    diffusers = pytest.importorskip("diffusers")
    assert diffusers is not None
    config = resolve(preset(name))
    images = costs.made_up(40, 28, 10)
    if name == "cifar10-small":
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
