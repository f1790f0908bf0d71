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


@pytest.mark.parametrize(
    ("items", "more", "how", "says"),
    [
        (pictures([0] * 9), {}, {}, "at least 2 classes, got '0'$"),
        (pictures(["ant"] * 9), {}, {}, "at least 2 classes, got 'ant'$"),
        (pictures([0] * 9), {"classes": ["ant"]}, {}, "at least 2 classes, got 'ant'$"),
        (
            pictures([0, 1, 2]),
            {"classes": ["a", "b"]},
            {},
            "number the 2 classes of the dataset, 'a', 'b', from 0 to 1, got '2'$",
        ),
        (pictures([0, -1]), {"classes": ["a", "b"]}, {}, "from 0 to 1, got '-1'$"),
        (pictures(["a", "b"]), {"classes": ["a", "b"]}, {}, "from 0 to 1, got 'a', 'b'$"),
        (pictures([0, 1]), {}, {"image_size": 0}, "image_size must be at least 1, got 0$"),
        (pictures([0, 1]), {}, {"image_size": -4}, "image_size must be at least 1, got -4$"),
        (
            [{"image": None, "fine": 0, "coarse": 0}],
            {},
            {},
            r"item 0 has 'image', 'fine', 'coarse', .*; hand over \(image, label\) items$",
        ),
        ([{"image": None, "label": 0, "target": 0}], {}, {}, r"hand over \(image, label\) items$"),
    ],
)
def test_what_is_no_dataset_of_classes_is_refused_and_what_was_there_stays(
    tmp_path, items, more, how, says
):
    save_dataset(tmp_path / "kept", Items(pictures([0, 1])))
    before = {path: path.read_bytes() for path in (tmp_path / "kept").iterdir()}
    with pytest.raises(ValueError, match=says) as caught:
        save_dataset(tmp_path / "kept", Items(items, **more), **how)
    assert "--" not in str(caught.value)
    assert {path: path.read_bytes() for path in (tmp_path / "kept").iterdir()} == before


def test_labels_of_the_test_dataset_number_the_classes_too(tmp_path):
    train, test = Items(pictures([0, 1]), classes=["a", "b"]), Items(pictures([0, 2]))
    with pytest.raises(ValueError, match="from 0 to 1, got '2'"):
        save_dataset(tmp_path / "kept", train, test)
