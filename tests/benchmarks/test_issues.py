"""Planting is repeatable, and what is counted is what was planted."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "issues.py"


@pytest.fixture(scope="module")
def issues():
    spec = importlib.util.spec_from_file_location("issues", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (400, 3, 12, 12), np.uint8)
    return images, np.arange(400) % 4, rng.integers(0, 256, (9, 1, 7, 7), np.uint8)


def test_a_tenth_is_planted_the_same_each_time(issues, data):
    images, labels, others = data
    planted, again = (issues.plant(images, labels, 4, others, 3) for _ in range(2))
    for one, other in zip(planted, again, strict=True):
        np.testing.assert_array_equal(one, other)
    added = planted.kinds != ""
    assert added.sum() == 40
    assert planted.images.shape == (440, 3, 12, 12)
    assert set(planted.kinds[added]) == {*issues.STRANGE, *issues.EXACT, *issues.NEARLY}
    for kind, equal in zip(issues.EXACT, (True, False), strict=True):
        rows = np.flatnonzero(planted.kinds == kind)
        partners = planted.partners[rows]
        np.testing.assert_array_equal(planted.images[rows], planted.images[partners])
        assert ((planted.given[rows] == planted.given[partners]) == equal).all()
    assert (planted.partners[np.isin(planted.kinds, ["", *issues.STRANGE])] == -1).all()


def test_what_is_found_is_counted(issues, data):
    planted = issues.plant(*data[:2], 4, data[2], 0)
    none = np.zeros(len(planted.kinds), dtype=bool)
    kinds = {"off-topic": planted.kinds == "noise", "near-duplicate": none.copy()}
    source = planted.partners[planted.kinds == "moved"][0]
    kinds["near-duplicate"][source] = True
    found = issues.measure(planted, {**kinds, "duplicate-other-label": planted.kinds != "scribble"})
    assert (found["noise"], found["scribble"], found["precision of off-topic"]) == (1, 0, 1)
    assert found["moved"] == pytest.approx(1 / (planted.kinds == "moved").sum())
    assert found["precision of near-duplicate"] == 1
    assert found["copy, other label"] == 1
    assert found["duplicate-other-label besides"] > 0.5
