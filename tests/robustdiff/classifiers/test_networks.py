import pytest
import torch

from robustdiff.classifiers.networks import is_natural, make_classifier, whiten
from robustdiff.data.arrays import to_float


@pytest.mark.parametrize(
    ("shape", "natural"),
    [((1, 8, 8), False), ((1, 28, 28), False), ((3, 15, 40), False), ((3, 16, 40), True)],
)
def test_small_and_grey_images_get_the_small_network(shape, natural):
    assert is_natural(shape) == natural


@pytest.mark.parametrize("side", [32, 64, 100, 128])
def test_the_last_block_sees_few_cells_whatever_the_size(side):
    classifier = make_classifier((3, side, side), 10)
    images = torch.zeros(2, 3, side, side)
    cells = classifier.trunk.blocks(torch.relu(classifier.trunk.whiten(images)))
    assert 3 <= cells.shape[2] <= 4


def test_the_first_layer_whitens_patches():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (50, 3, 16, 16), generator=generator)
    images = coarse.repeat_interleave(2, 2).repeat_interleave(2, 3).byte()
    images[::2] //= 2
    classifier = make_classifier((3, 32, 32), 10)
    whiten(classifier, images, torch.arange(50))
    with torch.no_grad():
        found = classifier.trunk.whiten(to_float(images)).double()
    half = found.shape[1] // 2
    torch.testing.assert_close(found[:, :half], -found[:, half:])
    flat = found[:, :half].transpose(0, 1).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(half).double(), rtol=0, atol=1e-3)
    covariance = flat @ flat.T / flat.shape[1]
    torch.testing.assert_close(covariance, torch.eye(half).double(), rtol=0, atol=0.02)
