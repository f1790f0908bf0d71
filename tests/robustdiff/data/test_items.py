"""Images and labels handed over in Python: what is taken, and one clear line for the rest."""

import numpy as np
import pytest
import torch
from PIL import Image

from robustdiff.data.items import images_of, labels_of, read_items

KEYS = ("image", "label")
GREY = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
COLOUR = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_of_all_layouts_become_the_same_images(kind):
    assert torch.equal(images_of(kind(GREY)), torch.from_numpy(GREY)[:, None])
    last = images_of(kind(COLOUR))
    assert tuple(last.shape) == (2, 3, 4, 5)
    assert torch.equal(last, images_of(kind(COLOUR.transpose(0, 3, 1, 2).copy())))
    assert torch.equal(last, images_of(kind((COLOUR / 255).astype(np.float32))))


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 8), np.uint8), r"images must have shape .* got \(2, 8\)"),
        (np.zeros((2, 2, 8, 8), np.uint8), r"images must have shape .* got \(2, 2, 8, 8\)"),
        (np.zeros((0, 1, 8, 8), np.uint8), r"at least one image is needed"),
        (np.full((1, 8, 8), -1.0), r"must be in \[0, 1\], got values from -1 to -1"),
        (np.full((1, 8, 8), np.nan), r"must be in \[0, 1\], got values from nan to nan"),
        (np.full((1, 8, 8), 255.0), r"must be in \[0, 1\], got values from 255 to 255"),
        ([np.zeros((8, 8)), np.zeros((9, 8))], "one array or tensor, got list"),
        (np.zeros((1, 8, 8), np.int64), r"images must be uint8 or floating point, got torch.int64"),
    ],
)
def test_other_images_are_refused_in_one_line(images, says):
    with pytest.raises(ValueError, match=says) as refused:
        images_of(images)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("labels", "k", "says"),
    [
        ([0, 1], None, r"labels must be 3 whole numbers, .* got shape \(2,\)"),
        ([[1, 0], [0, 1], [1, 1]], None, r"got shape \(3, 2\)"),
        (["a", "b", "c"], None, r"got shape \(3,\) of <U1"),
        ([0.0, 1.0, 1.0], None, "of float64"),
        ([0, 1, -1], None, "must be in .* got -1"),
        ([0, 1, 3], 3, r"must be in \[0, 3\), got 3"),
        ([0, 2, 2], None, "1 of 3 are given to no image, the first is class 1"),
        ([0, 1, 1], 3, "the first is class 2"),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, k, says):
    with pytest.raises(ValueError, match=says):
        labels_of(labels, 3, k)


def test_a_dataset_is_read_whatever_its_items_are():
    pictures = [Image.fromarray(pixels) for pixels in COLOUR]
    expected = images_of(COLOUR)
    tensors = [(expected[0].float() / 255, torch.tensor(1)), (expected[1].float() / 255, 0)]
    for dataset in (
        list(zip(pictures, [1, 0], strict=True)),
        [{"image": picture, "label": np.int64(1 - i)} for i, picture in enumerate(pictures)],
        tensors,
    ):
        images, labels = read_items(dataset, KEYS)
        assert torch.equal(images, expected)
        assert labels == [1, 0]


@pytest.mark.parametrize(
    ("dataset", "says"),
    [
        (iter([]), "a dataset must be map-style, .* got list_iterator"),
        ([], "the dataset has no items"),
        ([(GREY[0], 0, 0)], r"items of a dataset must be \(image, label\), got 3 parts of 0"),
        ([7], "got int of 0"),
        ([{"pixels": GREY[0], "label": 0}], "item 0 of the dataset has no 'image' .* 'pixels'"),
        ([(GREY[0], 0), (GREY[0, 1:], 0)], r"one shape and type, .* \(3, 5\) .* of item 1"),
        ([(GREY[0], [0, 1])], r"single whole numbers, item 0 has \[0, 1\]"),
        ([(GREY[0], "cat")], "single whole numbers, item 0 has 'cat'"),
        ([(Image.new("P", (4, 4)), 0)], "mode L or RGB, item 0 is of mode P"),
        ([("cat.png", 0)], "images must be of PIL, or arrays .* got str as image 0"),
    ],
)
def test_other_datasets_are_refused_in_one_line(dataset, says):
    with pytest.raises(ValueError, match=says) as refused:
        read_items(dataset, KEYS)
    assert "\n" not in str(refused.value)


def test_a_view_with_its_channels_turned_round_is_taken():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    turned = images_of(images[..., ::-1])
    assert torch.equal(turned, images_of(images).flip(1))
