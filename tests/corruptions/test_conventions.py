"""The published conventions and quirks, with the rates that the public codes realise."""

import numpy as np
import pytest

from corruptions import CIFAR100_SUPERCLASSES, CLASS_MAPS, COMPAT, NOISE_TYPES, corrupt

TEN = np.arange(50_000) % 10
HUNDRED = np.arange(50_000) % 100

# The coarse label of each fine id, as in the files of CIFAR-100.
COARSE = [
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15,
    3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4,
    2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
]  # fmt: skip


def noisy(noise_type, rate, clean=TEN, seed=0, **more):
    k = 100 if clean is HUNDRED else 10
    return corrupt(clean, num_classes=k, noise_type=noise_type, rate=rate, seed=seed, **more)


def spread(rate):
    """Six binomial standard deviations of 50,000 labels."""
    return 6 * np.sqrt(rate * (1 - rate) / 50_000)


def test_superclasses_are_those_of_the_dataset():
    fine = sorted(name for names in CIFAR100_SUPERCLASSES.values() for name in names.split())
    coarse = {
        name: i for i, names in enumerate(CIFAR100_SUPERCLASSES.values()) for name in names.split()
    }
    assert [coarse[name] for name in fine] == COARSE


def test_cifar100_stays_inside_superclasses_and_reaches_every_class():
    class_map = CLASS_MAPS["cifar100"]
    assert sorted(class_map) == sorted(class_map.values()) == list(range(100))
    assert all(COARSE[clean] == COARSE[given] for clean, given in class_map.items())


def test_alphabetical_blocks_stay_inside_a_superclass_for_6_classes_of_100():
    labels = noisy("apl-asymmetric-100", 0.4, HUNDRED)
    pairs = set(zip(labels.clean[labels.flipped], labels.given[labels.flipped], strict=True))
    assert len(pairs) == 100
    assert sum(COARSE[clean] == COARSE[given] for clean, given in pairs) == 6


@pytest.mark.parametrize(
    ("noise_type", "clean", "rate", "realised"),
    [
        ("symmetric", TEN, 0.5, 0.5),
        ("symmetric-inclusive", TEN, 0.5, 0.45),
        ("dividemix-symmetric", TEN, 0.5, 0.45),
        ("dividemix-symmetric", HUNDRED, 0.5, 0.495),
        ("asymmetric", TEN, 0.4, 0.2),
        ("dividemix-asymmetric", TEN, 0.4, 0.2),
        ("elr-asymmetric", TEN, 0.4, 0.184),
        ("elr-asymmetric", TEN, 0.5, 0.225),
        ("apl-asymmetric", TEN, 0.4, 0.184),
        ("apl-symmetric", TEN, 0.4, 0.4),
        ("asymmetric", HUNDRED, 0.4, 0.4),
        ("apl-asymmetric-100", HUNDRED, 0.4, 0.4),
        ("sce-asymmetric-100", HUNDRED, 0.4, 0.16),
    ],
)
def test_overall_rates(noise_type, clean, rate, realised):
    dataset = "cifar100" if clean is HUNDRED else "cifar10"
    labels = noisy(noise_type, rate, clean, dataset=dataset)
    assert labels.expected_rate == pytest.approx(realised, abs=1e-6)
    assert labels.realised_rate == pytest.approx(realised, abs=spread(realised))


@pytest.mark.parametrize("noise_type", ["elr-asymmetric", "apl-asymmetric"])
@pytest.mark.parametrize(("rate", "cats"), [(0.4, 0.24), (0.5, 0.25)])
def test_cascades_turn_cats_back_into_cats(noise_type, rate, cats):
    wrong = [noisy(noise_type, rate, seed=seed).flipped[TEN == 3].mean() for seed in range(5)]
    assert np.mean(wrong) == pytest.approx(cats, abs=0.01)


def test_apl_truncates_the_count_of_every_class():
    clean = np.arange(1003) % 10
    labels = corrupt(clean, num_classes=10, noise_type="apl-symmetric", rate=0.3)
    assert labels.flipped.sum() == 300  # int(int(300.9) / 10) in each
    skewed = np.repeat([0, 1], [995, 5])
    with pytest.raises(ValueError, match="class 1 has 5"):
        corrupt(skewed, num_classes=2, noise_type="apl-symmetric", rate=0.3)


@pytest.mark.parametrize("noise_type", COMPAT)
def test_published_codes_are_seeded_here(noise_type):
    clean = HUNDRED if noise_type.endswith("100") else TEN
    first, again, other = (noisy(noise_type, 0.4, clean, seed=seed) for seed in (1, 1, 2))
    assert (first.given == again.given).all()
    assert (first.given != other.given).any()
    assert (noisy(noise_type, 0.0, clean).given == clean).all()
    np.testing.assert_allclose(first.nominal.sum(axis=1), 1)


INSTANCE = [name for name in NOISE_TYPES if name.startswith("instance-dependent")]


@pytest.mark.parametrize("noise_type", INSTANCE)
@pytest.mark.parametrize(("rate", "mean"), [(0.0, 0.0), (0.1, 0.1288), (0.2, 0.2055), (0.4, 0.4)])
def test_instance_dependent_rates_are_means_of_truncated_normals(noise_type, rate, mean):
    pixels = np.random.default_rng(0).integers(0, 256, (50_000, 6))
    labels = noisy(noise_type, rate, features=pixels)
    # mean + sd (phi(a) - phi(b)) / (Phi(b) - Phi(a)) in closed form
    assert labels.realised_rate == pytest.approx(mean, abs=0.003)
    assert labels.realised_rate == pytest.approx(labels.expected_rate, abs=1e-4)


def test_instance_dependent_noise_depends_on_the_image():
    rng = np.random.default_rng(0)
    pixels = np.repeat(rng.integers(0, 256, (2, 16)), 25_000, axis=0)
    labels = corrupt(
        np.zeros(50_000, dtype=int),
        num_classes=10,
        noise_type="instance-dependent-01",
        rate=0.4,
        features=pixels,
    )
    halves = labels.given.reshape(2, -1)
    first, second = (np.bincount(half, minlength=10) / 25_000 for half in halves)
    assert np.abs(first - second).max() > 0.05


def test_the_scale_of_the_pixels_is_the_sharpness_of_the_noise():
    pixels = np.random.default_rng(0).integers(0, 256, (50_000, 64)).astype(np.uint8)
    shares = []
    for noise_type in ("instance-dependent-unit", "instance-dependent-01"):
        away = noisy(noise_type, 0.4, features=pixels).realised
        np.fill_diagonal(away, 0)
        shares.append((away.max(axis=1) / away.sum(axis=1)).mean())
    assert shares[0] < 0.25 < shares[1]
