"""Faults in the place of generated images, and what the metrics make of them, on real digits."""

import pytest
import torch

from benchmarks import faults_seen
from benchmarks.faults_seen import FAULTS, Pool, experiment, marked, table, within_pairs
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.metrics import evaluator as training
from robustdiff.metrics.report import make_reference
from robustdiff.progress import Report

COUNT = 20


@pytest.fixture(scope="module")
def digits():
    return load_images(DataConfig(), Report())


@pytest.fixture(scope="module")
def evaluator(digits):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_SEEN", {False: 20_000})
        return training.train_evaluator(digits.train, digits.train_labels, 10, seed=0)


@pytest.fixture(scope="module")
def pool(digits):
    rows = torch.arange(len(digits.test))
    return Pool(digits.test, digits.test_labels, digits.test.flatten(1).double(), rows)


def made(pool, fault, seed=0):
    return FAULTS[fault][0](pool, COUNT, torch.Generator().manual_seed(seed))


def spread(found):
    """Variance within the classes."""
    return sum(found.features[found.labels == label].var(dim=0).sum() for label in range(10))


def test_every_fault_leaves_as_many_images_of_each_class(pool):
    for fault in FAULTS:
        found = made(pool, fault)
        assert torch.bincount(found.labels).tolist() == [COUNT] * 10
        assert (fault == "blur") or torch.equal(found.images, pool.images[found.rows])
        assert torch.equal(found.labels, made(pool, fault).labels)
        assert torch.equal(found.images, made(pool, fault).images)


def test_faults_do_what_they_are_called(pool):
    intact = made(pool, "none")
    for fault, share in (("wrong labels, 20 %", 0.2), ("labels of pairs exchanged, 20 %", 0.2)):
        found = made(pool, fault)
        assert torch.equal(found.images, intact.images)
        changed = found.labels != intact.labels
        assert float(changed.double().mean()) == pytest.approx(share)
        pairs = within_pairs(intact.labels)[changed]
        assert bool((found.labels[changed] == pairs).all()) == ("pairs" in fault)
    assert torch.equal(within_pairs(torch.arange(4)), torch.tensor([1, 0, 3, 2]))
    assert torch.equal(made(pool, "blur").labels, intact.labels)
    blurred = made(pool, "blur").images.double()
    assert (
        blurred.flatten(1).std(dim=1).mean() < intact.images.double().flatten(1).std(dim=1).mean()
    )
    assert len(made(pool, "every image ten times").images.unique(dim=0)) == COUNT
    for fault in ("typical images only", "modes dropped"):
        found = made(pool, fault)
        assert len(found.features.unique(dim=0)) > COUNT * 8
        assert spread(found) < spread(intact)


def test_wrong_labels_are_not_seen_by_what_looks_at_images_alone(digits, evaluator, monkeypatch):
    def no_training(images, labels, heldout, heldout_labels, num_classes, *, trainings):
        assert len(images) + len(heldout) == len(digits.test)  # none is learnt and tested
        return torch.ones(1, len(heldout), dtype=torch.bool)

    monkeypatch.setattr(faults_seen, "classification_accuracy", no_training)
    chosen = ("none", "labels of pairs exchanged, 20 %")
    monkeypatch.setattr(faults_seen, "FAULTS", {name: FAULTS[name] for name in chosen})
    reference = make_reference(
        real=digits.train,
        real_labels=digits.train_labels,
        heldout=digits.test,
        heldout_labels=digits.test_labels,
        counts=[COUNT] * 10,
        evaluator=evaluator,
        seed=0,
    )
    found = experiment(digits, reference, COUNT, 2)
    for right, wrong in zip(*found.values(), strict=True):
        for key in ("fid", "kid", "inception_score", "density", "coverage", "precision", "recall"):
            assert wrong[key] == right[key]
        for key in ("class_fid", "class_fid_infinity", "nll"):
            assert wrong[key] > right[key]
        for key in ("label_accuracy", "class_density", "class_coverage"):
            assert wrong[key] < right[key]
    lines = table(found).splitlines()
    assert lines[0] == "| metric | none | labels of pairs exchanged, 20 % |"
    assert len(lines) == 2 + len(found["none"][0])


def test_a_figure_is_marked_where_it_changes_beyond_its_interval():
    intact = [{"fid": value, "recall": value} for value in (1.0, 1.1, 0.9)]
    more = [{"fid": value, "recall": value} for value in (2.0, 2.11, 1.9)]
    unclear = [{"fid": value, "recall": value} for value in (0.0, 3.1, 0.9)]
    assert marked("fid", more, intact) == "**2.003**"
    assert marked("recall", more, intact) == "*2.003*"
    assert marked("fid", unclear, intact) == "1.333"
    assert marked("fid", intact, intact) == "1.000"
