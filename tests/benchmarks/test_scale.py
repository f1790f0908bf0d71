"""Bytes that a curriculum holds for every sample; counted, not timed."""

import json
import resource
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from curricula import CURRICULA, CurriculumSampler, Selection, Trust
from curricula.draw import draw_order, indices
from curricula.sparse import KEPT, certain, of_class, unknown
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, for_labels
from robustdiff.labels.judge import judge
from robustdiff.labels.scoring import Probing, class_evidence

N, K = 1_000_000, 10
ONE_SCORE = [name for name, entry in CURRICULA.items() if not entry.knows_classes]
SCALE = Path(__file__).parents[2] / "benchmarks" / "scale.py"


def arrays(state):
    """Arrays in nested dicts."""
    if isinstance(state, dict):
        return [array for part in state.values() for array in arrays(part)]
    return [state] if isinstance(state, np.ndarray) else []


def nbytes(sampler):
    """Bytes of distinct arrays in a sampler's state."""
    return sum({v.ctypes.data: v.nbytes for v in arrays(sampler.state_dict())}.values())


def peak(work):
    """Bytes that work needs at once, above what was there before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [name for name in ONE_SCORE if name != "uniform"])
def test_one_score_a_sample_costs_at_most_24_bytes(name):
    sampler = CurriculumSampler(name, N, seed=0, selection=Selection())

    def by_sign(scores):
        return scores, Trust((scores > 0).astype(np.float64), 0.5)

    for _ in range(2):
        sampler.update(np.random.default_rng(0).standard_normal(N), by_sign)
    assert nbytes(sampler) <= 24 * N


def test_class_evidence_costs_12_bytes_a_class():
    sampler = CurriculumSampler("margin", 20_000, seed=0, selection=Selection())
    given = np.arange(20_000) % K
    evidence = np.random.default_rng(0).standard_normal((20_000, K))
    sampler.update(evidence, lambda found: judge(sampler.curriculum, found, given))
    # Evidence and both distributions over classes; score and trust besides.
    assert nbytes(sampler) <= 20_000 * (3 * 4 * K + 8) + 8 * K * K


@pytest.mark.parametrize("name", ["margin", "crossfit"])
def test_a_thousand_classes_cost_at_most_100_bytes_a_sample(name):
    count, k = 20_000, 1000
    rng, given = np.random.default_rng(0), np.arange(count) % k
    evidence = unknown(count, k)
    evidence.classes[:] = given[:, None] // KEPT * KEPT + np.arange(KEPT)
    evidence.values[:], evidence.rest[:] = rng.random((count, KEPT)) / KEPT, 0
    bayes = Trust(np.ones(count), 0.1, certain(given, evidence), certain(given, evidence))
    sampler = CurriculumSampler(name, count, seed=0, selection=Selection())
    sampler.update(evidence, lambda found: (of_class(found, given), bayes))
    assert nbytes(sampler) <= 100 * count


def test_an_update_and_an_epoch_need_at_most_64_bytes_a_sample_at_once():
    sampler = CurriculumSampler("pmi", N, seed=0, selection=Selection(treatment="select", k=0.7))
    given = np.zeros(N, dtype=np.int64)
    new = np.random.default_rng(0).standard_normal(N, dtype=np.float32)

    def update():
        sampler.update(new, lambda found: judge(sampler.curriculum, found, given))

    assert peak(update) <= 64 * N
    assert peak(update) <= 64 * N
    assert peak(lambda: sampler.order(0, given)) <= 64 * N
    # A class that the draw has to make up for.
    lost = (sampler.scores > 0).astype(np.int64)
    sampler.scores[lost == 1] -= 50
    assert peak(lambda: sampler.order(0, lost)) <= 64 * N
    sampler.treatment = "null"
    assert peak(lambda: sampler.order(0)) <= 10 * N
    assert peak(lambda: sampler.labels(given, 1)) <= 64 * N


def test_partial_selection_and_small_indices_change_no_draw():
    """The order of an epoch is what sorting all keys and permuting 8-byte indices gives."""
    scores = np.round(np.random.default_rng(1).normal(size=5000), 1)
    for share in (0.01, 0.3, 1.0):
        rng = np.random.default_rng(np.random.SeedSequence([3, 101, 2]))
        keys = (scores - np.median(scores)) / (
            1.4826 * np.median(np.abs(scores - np.median(scores)))
        )
        keys = keys + rng.gumbel(size=5000)
        expected = rng.permutation(np.argsort(-keys, kind="stable")[: round(share * 5000)])
        drawn = draw_order(3, 2, 5000, scores=scores, share=share, temperature=1.0)
        assert drawn.dtype == np.int32
        np.testing.assert_array_equal(drawn, expected)
    rng = np.random.default_rng(np.random.SeedSequence([3, 101, 2]))
    plain = draw_order(3, 2, 5000, scores=None, share=1, temperature=1)
    np.testing.assert_array_equal(plain, rng.permutation(5000))
    assert indices(3).dtype == np.int32


def test_a_rotated_round_of_classes_needs_no_more_than_its_result():
    """The classes to try are chosen batch by batch, not for all samples at once."""

    fake = Model(
        lambda x_t, t, labels: for_labels(x_t, len(labels)) * 0.1,
        lambda t: (torch.cos(t), torch.sin(t)),
        PREDICTIONS["eps"],
        null_class=K,
    )

    count = 50_000
    data = LabelledImages(
        torch.zeros(count, 1, 1, 1, dtype=torch.uint8), torch.zeros(count, dtype=torch.int64)
    )
    probing = Probing(seed=0, p_uncond=0.2, probes=1)
    rows = torch.arange(0, count, 50)
    evidence = class_evidence(probing, data, fake, np.zeros((count, K)), rows, 0)
    assert evidence.dtype == np.float32
    tried = ~np.isnan(evidence[::50])
    assert (tried.sum(axis=1) == 3).all()  # the given class and two rivals
    assert np.isnan(np.delete(evidence, np.arange(0, count, 50), axis=0)).all()


@pytest.mark.slow
def test_the_simulation_runs_and_a_row_over_its_limit_fails_alone(tmp_path):
    names = ["pmi", "plan", "checkpoint"]
    words = ["--samples", "2e5", "--curricula", *names, "--out", tmp_path / "scale.json"]
    subprocess.run([sys.executable, SCALE, *words], check=True, capture_output=True, cwd=tmp_path)
    rows = json.loads((tmp_path / "scale.json").read_text())
    assert rows[0]["state_bytes"] == 8 * 200_000
    assert set(rows[0]["operations"]) == {
        "first update", "update", "epoch", "first batch", "labels",
    }  # fmt: skip
    assert set(rows[1]["operations"]) == {"scoring round"}
    written = {name: cost["bytes_written"] for name, cost in rows[2]["operations"].items()}
    assert written["second, within"] > 8 * 200_000 > 4_000 > written["second, beside"] > 0
    done = subprocess.run(
        [sys.executable, SCALE, "--samples", "1e8", "--curricula", "pmi",
         "--limit-gib", "1", "--out", tmp_path / "over.json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert "MemoryError" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
