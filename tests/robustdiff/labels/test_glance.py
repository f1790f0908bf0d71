import numpy as np
import pytest
import torch

from corruptions import corrupt
from curricula.sparse import KEPT, MOST_DENSE, SparseClasses
from robustdiff.labels import glance as module
from robustdiff.labels import rows as rows_module
from robustdiff.labels.glance import glance
from robustdiff.parallel import Workers


def test_a_glance_ranks_the_true_class_among_the_first_three(digits):
    noisy = corrupt(digits.train_labels.numpy(), num_classes=10, rate=0.3)
    given, seen = torch.from_numpy(noisy.given), []
    found = glance(
        digits.train, given, 10, seed=0, progress=lambda done, total: seen.append(done / total)
    )
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    own = found[np.arange(len(found)), noisy.clean]
    assert ((found > own[:, None]).sum(axis=1) < 3).mean() > 0.98
    assert seen == sorted(seen)
    assert seen[-1] == 1


def test_no_classifier_of_a_glance_learns_the_labels_that_it_ranks(digits, monkeypatch):
    monkeypatch.setattr(module, "_SEEN", {False: 40})
    images, given = digits.train[:40], digits.train_labels[:40]
    lessons = []
    train, predict = module.train_image_classifier, rows_module.predict

    def learning(images, targets, k, **more):
        assert torch.equal(targets, given[more["rows"]])
        lessons.append({*more["rows"].tolist()})
        return train(images, targets, k, **more)

    def asking(classifier, images, rows, **more):
        lessons.append({*rows.tolist()})
        return predict(classifier, images, rows, **more)

    monkeypatch.setattr(module, "train_image_classifier", learning)
    monkeypatch.setattr(rows_module, "predict", asking)
    glance(images, given, 10, seed=0, progress=lambda *_: None)
    learnt, asked, learnt_next, asked_next = lessons
    assert learnt == asked_next
    assert learnt_next == asked
    assert learnt | asked == {*range(40)}
    assert not learnt & asked


@pytest.fixture
def seen(monkeypatch):
    """How many images each classifier of a glance has learnt from, repeats counted."""
    seen, train = [], module.train_image_classifier

    def learning(images, targets, k, **more):
        seen.append(len(more["rows"]) * more["lessons"].passes)
        return train(images, targets, k, **more)

    monkeypatch.setattr(module, "train_image_classifier", learning)
    return seen


def test_a_glance_learns_some_of_many_images(digits, monkeypatch, seen):
    monkeypatch.setattr(module, "_SEEN", {False: 150})
    for count in (60, 1000):
        images, given = digits.train[:count], digits.train_labels[:count]
        found = glance(images, given, 10, seed=0, progress=lambda *_: None)
        np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)
    # Halves of 30 images five times, and a fourth of halves of 500.
    assert seen == [150, 150, 125, 125]


def test_of_many_classes_a_glance_keeps_a_few_and_learns_more_images(digits, monkeypatch, seen):
    monkeypatch.setattr(module, "_SEEN", {False: 160})
    given = torch.arange(80) * 3
    for count in (MOST_DENSE, 2 * MOST_DENSE):
        labels = given % count
        found = glance(digits.train[:80], labels, count, seed=0, progress=lambda *_: None)
    assert seen == [160, 160, 320, 320]
    assert isinstance(found, SparseClasses)
    assert found.values.shape == (80, KEPT)
    assert (found.classes == labels.numpy()[:, None]).any(axis=1).all()
    np.testing.assert_allclose(found[:].sum(axis=1), 1, atol=1e-5)


def test_processes_share_the_halves_of_a_glance(digits, monkeypatch):
    monkeypatch.setattr(module, "_SEEN", {False: 40})
    images, given = digits.train[:40], digits.train_labels[:40]
    whole = glance(images, given, 10, seed=0, progress=lambda *_: None)
    monkeypatch.setattr(Workers, "total", lambda self, values: values)
    parts = [
        glance(images, given, 10, seed=0, progress=lambda *_: None, workers=Workers(rank, 2))
        for rank in range(2)
    ]
    np.testing.assert_array_equal(sum(parts), whole)
