"""Objects whose arrays lie in memory that has no name."""

import os

import numpy as np
import pytest

from corruptions import corrupt
from curricula import Trust
from curricula.permutation import Permutation
from curricula.sparse import keep_few
from robustdiff.shared_memory import can_share, get, put

pytestmark = pytest.mark.skipif(not can_share(), reason="this system has no such memory")


def there_and_back(value):
    descriptor, handle = put(value)
    found = get(handle)
    os.close(descriptor)
    return found


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4),
        np.arange(12, dtype=np.int16).reshape(3, 4)[:, ::2],
        np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
        np.array([True, False]),
        np.zeros((0, 5), np.float32),
        np.array(7, dtype=np.int64),
    ],
)
def test_an_array_is_what_it_was_and_ones_own(array):
    found = there_and_back((array, "word", None, 3))
    np.testing.assert_array_equal(found[0], array)
    assert (found[0].dtype, found[0].shape) == (array.dtype, array.shape)
    assert found[1:] == ("word", None, 3)
    assert found[0].flags.writeable


def test_what_training_shares_is_what_it_was():
    labels = corrupt(np.arange(6) % 3, num_classes=3, rate=0.5, seed=0)
    names = ("a.png", "", "b\udcff.png", "ä", "c", "d")
    named = type(labels)(**{**vars(labels), "paths": names, "class_names": ("x\0", "y", "z")})
    found = there_and_back({"labels": [named]})["labels"][0]
    assert (found.paths, found.class_names) == (names, ("x\0", "y", "z"))
    np.testing.assert_array_equal(found.given, labels.given)
    few = keep_few(np.arange(40.0).reshape(10, 4), np.zeros(10, dtype=int), 2)
    trust = there_and_back(Trust(np.arange(10.0), 0.5, few, few))
    assert trust.classes is trust.image_classes
    np.testing.assert_array_equal(trust.classes[:], few[:])
    order = Permutation.of(100, 1, 2)
    np.testing.assert_array_equal(there_and_back(order)[0:100], order[0:100])
