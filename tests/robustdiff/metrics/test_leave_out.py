import pytest
import torch

from robustdiff.metrics.distribution import classwise_frechet, frechet_distance
from robustdiff.metrics.leave_out import (
    classwise_without,
    density_coverage_without,
    frechet_without,
)
from robustdiff.metrics.neighbours import density_coverage
from robustdiff.metrics.resampling import BLOCKS, deal, without_bias


def normal(count, width, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


@pytest.fixture
def sets():
    real, made = normal(180, 6, 0) + 5, normal(70, 6, 1) * 1.2 + 5.2
    labels = torch.arange(180) % 3, torch.arange(70) % 3
    return real, labels[0], deal(labels[0], 0), made, labels[1], deal(labels[1], 1)


def one_class(samples):
    return torch.zeros(len(samples), dtype=torch.int64)


def kept(blocks, block):
    return blocks != block  # of block -1, all


def test_frechet_distances_without_a_block_are_those_of_the_rest(sets):
    real, _, first, made, _, second = sets
    expected = [
        frechet_distance(real[kept(first, b)], made[kept(second, b)]) for b in range(-1, BLOCKS)
    ]
    found = frechet_without(real, first, made, one_class(made), second)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


def test_classes_keep_their_shares_whatever_block_is_left_out():
    """Samples of a class are alike here, so that only the shares of the classes could matter."""
    real, places = normal(400, 4, 0), 10 * normal(3, 4, 1)
    labels = torch.arange(70) % 3
    blocks, all_stay = deal(labels, 0), torch.full((400,), BLOCKS)
    found = frechet_without(real, all_stay, places[labels], labels, blocks)
    alone = frechet_without(real, all_stay, places[labels], one_class(labels), blocks)
    # What is left varies with 1 / (M - 1).
    assert found[1:].std() < 0.05 * alone[1:].std()


def test_more_features_than_samples_are_allowed():
    real, made = normal(100, 60, 0), normal(40, 60, 1) + 0.5
    first, second = (deal(one_class(x), 0) for x in (real, made))
    found = frechet_without(real, first, made, one_class(made), second)
    assert float(found[0]) == pytest.approx(frechet_distance(real, made), rel=1e-6)
    rest = frechet_distance(real[first != 4], made[second != 4])
    assert float(found[5]) == pytest.approx(rest, rel=1e-6)


def test_equal_mixtures_of_classes_are_at_distance_nothing_without_bias():
    """23 images of each of 5 classes that lie far apart do not fit into 20 equal blocks."""
    places, plain, unbiased = 5 * normal(5, 6, 99), [], []
    for seed in range(40):
        labels = torch.arange(600) % 5, torch.arange(115) % 5
        real, made = (normal(len(y), 6, 2 * seed + i) + places[y] for i, y in enumerate(labels))
        blocks = [deal(y, seed) for y in labels]
        found = frechet_without(real, blocks[0], made, labels[1], blocks[1])
        plain.append(float(found[0]))
        unbiased.append(without_bias(plain[-1], found[1:]))
    assert abs(sum(unbiased)) < 0.15 * sum(plain)


def test_a_class_of_one_image_may_be_left_out_with_it():
    """Nothing is left to count for the class, so the others count alike."""
    real, made = normal(60, 3, 0), normal(40, 3, 1) + 7
    first, second = deal(one_class(real), 0), deal(one_class(made), 0)
    found = frechet_without(real, first, made, torch.arange(40), second)
    torch.testing.assert_close(found, frechet_without(real, first, made, one_class(made), second))


def test_a_copy_is_at_distance_nothing():
    real = normal(60, 5, 0)
    blocks = deal(torch.zeros(60, dtype=torch.int64), 0)
    found = frechet_without(real, blocks, real.clone(), one_class(real), blocks)
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-9, rtol=0)


def test_class_wise_distances_are_the_means_over_the_classes(sets):
    real, labels, first, made, asked, second = sets
    expected = [
        classwise_frechet(
            real[kept(first, b)],
            labels[kept(first, b)],
            made[kept(second, b)],
            asked[kept(second, b)],
            3,
        )[0]
        for b in range(-1, BLOCKS)
    ]
    found = classwise_without(real, labels, first, made, asked, second)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("count", [70, 620])
def test_density_and_coverage_without_a_block_are_those_of_the_rest(count):
    """620 real samples are read in two pieces."""
    real, made = normal(count, 3, 0), normal(count, 3, 1) * 1.1
    first, second = (deal(torch.zeros(count, dtype=torch.int64), s) for s in (0, 1))
    density, coverage = density_coverage_without(real, first, made, second, 5)
    for block in range(-1, BLOCKS, 1 if count < 100 else 7):
        expected = density_coverage(real[kept(first, block)], made[kept(second, block)], 5)
        assert (float(density[block + 1]), float(coverage[block + 1])) == pytest.approx(expected)
