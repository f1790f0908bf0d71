"""The paper's argument for its metric (section 4.1), and what it leaves out, on real digits."""

import numpy as np
import pytest
import torch

from benchmarks.metrics_argument import METRICS, Embedded, experiment, figure
from robustdiff.classifiers.image import embed
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.metrics.evaluator import train_evaluator
from robustdiff.progress import Report

IMAGES_ONLY = ("FID", "IS", "density", "coverage")


@pytest.fixture(scope="module")
def found():
    """Damage -> share -> mean of each metric."""
    digits = load_images(DataConfig(), Report())
    judge = train_evaluator(digits.train, digits.train_labels, 10, seed=0)
    real = Embedded(*embed(judge, digits.train), digits.train_labels)
    pool = Embedded(*embed(judge, digits.test), digits.test_labels)
    return experiment(real, pool, count=20, repetitions=2)


def means(rows):
    return {metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS}


def test_shuffled_labels_are_seen_by_nll_and_class_wise_fid_alone(found):
    shares = found["labels shuffled"]
    for row, other in zip(shares[0], shares[1], strict=True):
        assert all(row[metric] == other[metric] for metric in IMAGES_ONLY)
    rising = [means(rows) for rows in shares.values()]
    for metric in ("NLL", "class-wise FID"):
        figures = [row[metric] for row in rising]
        assert figures == sorted(figures)
        assert figures[-1] > 5 * figures[0]


def test_dropped_classes_are_seen_by_fid_is_and_coverage_alone(found):
    intact, damaged = (means(found["classes dropped"][share]) for share in (0, 0.5))
    assert damaged["FID"] > 5 * intact["FID"]
    assert damaged["IS"] == pytest.approx(5, abs=0.3)
    assert damaged["coverage"] < 0.65 * intact["coverage"]
    assert damaged["NLL"] < intact["NLL"] + 0.1
    assert damaged["class-wise FID"] < 1.2 * intact["class-wise FID"]
    assert damaged["density"] == pytest.approx(intact["density"], abs=0.2)


def test_dropped_modes_make_nll_better_than_that_of_real_images(found):
    intact, damaged = (means(found["modes dropped"][share]) for share in (0, 0.5))
    assert damaged["NLL"] <= intact["NLL"]
    assert damaged["class-wise FID"] > 1.2 * intact["class-wise FID"]
    # The direction alone: five neighbours of 20 images a class reach far.
    assert damaged["coverage"] < intact["coverage"]


def test_every_metric_of_every_damage_is_drawn(found):
    drawn = figure(found)
    assert len(drawn.axes) == 3 * len(METRICS)
    assert torch.tensor([len(axes.containers) for axes in drawn.axes]).eq(1).all()
