"""Strange images among the digits, and what a judge of their labels says about them."""

import numpy as np
import pytest
import torch

from robustdiff.labels.outliers import looks, off_topic, strangeness


def noise(count, shape=(1, 8, 8), seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8))


def test_noise_among_digits_is_strange_and_digits_are_not(digits):
    some = torch.cat([digits.train[:400], noise(15)])
    found = strangeness(some)
    assert found[:400].max() < found[400:].min()
    assert np.median(found) == pytest.approx(0, abs=1e-9)
    assert np.quantile(found, 0.75) == pytest.approx(1)


def test_strange_images_do_not_hide_behind_each_other(digits):
    """Fifteen times the same strange image are near to each other, and far from a twentieth."""
    some = torch.cat([digits.train[:400], noise(1).expand(15, -1, -1, -1)])
    found = strangeness(some)
    assert found[:400].max() < found[400:].min()


def test_the_order_of_images_changes_little(digits):
    some = torch.cat([digits.train[:400], noise(15)])
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(0))
    np.testing.assert_allclose(strangeness(some[order]), strangeness(some)[order], atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 5), (3, 8, 8), (3, 40, 24)])
def test_images_of_any_shape_have_a_look(shape):
    for images in (noise(50, shape), torch.zeros(50, *shape, dtype=torch.uint8)):
        assert np.isfinite(looks(images)).all()
        assert np.isfinite(strangeness(images)).all()


def test_among_few_or_equal_images_none_is_strange():
    assert (strangeness(noise(39)) == 0).all()
    assert (strangeness(torch.full((60, 3, 16, 16), 7, dtype=torch.uint8)) <= 0).all()


def test_a_label_that_the_image_speaks_for_keeps_a_strange_image():
    strange = np.array([0.0, 6.0, 6.0, 9.0])
    classes = np.array([[0.2, 0.4, 0.4], [0.9, 0.1, 0.0], [0.2, 0.4, 0.4], [1.0, 0.0, 0.0]])
    found = off_topic(strange, np.zeros(4, dtype=np.int64), classes)
    assert ((found >= 0) & (found <= 1)).all()
    assert (found > 0.5).tolist() == [False, False, True, False]


def test_a_strange_image_that_is_taken_for_another_class_has_a_wrong_label():
    strange = np.array([6.0, 6.0, 12.0])
    classes = np.array([[0.1, 0.3, 0.3, 0.3], [0.01, 0.97, 0.01, 0.01], [0.01, 0.97, 0.01, 0.01]])
    found = off_topic(strange, np.zeros(3, dtype=np.int64), classes)
    assert (found > 0.5).tolist() == [True, False, True]


def test_of_two_classes_neither_need_be_likely():
    strange, given = np.array([6.0, 6.0]), np.zeros(2, dtype=np.int64)
    found = off_topic(strange, given, np.array([[0.5, 0.5], [0.95, 0.05]]))
    assert (found > 0.5).tolist() == [True, False]


def test_without_a_judge_only_the_strangest_images_are_off_topic():
    found = off_topic(np.array([0.0, 7.0, 9.0]), np.zeros(3, dtype=np.int64), None)
    assert (found > 0.5).tolist() == [False, False, True]
