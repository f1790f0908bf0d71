"""Datasets of Python: names of their classes, and what is refused before anything is written."""

import numpy as np
import pytest

from robustdiff.data.handed import class_names_of, save_dataset


class Items(list):
    """A map-style dataset, whose classes may have names."""

    def __init__(self, items, **more):
        super().__init__(items)
        self.__dict__.update(more)


class ClassLabel:
    def __init__(self, *names):
        self.names = names


def pictures(labels):
    return [(np.full((4, 4), n, np.uint8), label) for n, label in enumerate(labels)]


def test_a_test_dataset_whose_classes_have_another_order_is_refused(tmp_path):
    train = Items(pictures([0, 1] * 5), classes=["dark", "light"])
    test = Items(pictures([0, 1] * 5), classes=["light", "dark"])
    says = r"class 0 on the dataset has 'dark', 'light', and the test dataset has 'light', 'dark'"
    with pytest.raises(ValueError, match=says):
        save_dataset(tmp_path / "kept", train, test)
    assert not (tmp_path / "kept").exists()
    save_dataset(tmp_path / "kept", train, Items(pictures([0, 1] * 5)))


def test_names_are_those_of_the_label_column_alone():
    plain = object()
    domain, label = ClassLabel("p", "q"), ClassLabel("x", "y")
    for features, expected in (
        ({"image": plain, "label": plain, "domain": domain}, None),
        ({"image": plain, "label": label, "domain": domain}, ("x", "y")),
        ({"image": plain, "label": label}, ("x", "y")),
        ({"image": plain, "kind": label}, None),
    ):
        assert class_names_of(Items([], features=features)) == expected
    both = Items([], features={"image": plain, "label": label, "domain": domain})
    assert class_names_of(both, "domain") == ("p", "q")
