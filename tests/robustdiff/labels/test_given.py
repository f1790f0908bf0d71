"""Given labels from a configuration, and what is known about them."""

import dataclasses

import numpy as np
import pytest

from corruptions import corrupt
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve
from robustdiff.labels.given import add_noise, known_noise, prepare_labels, samples_of
from robustdiff.progress import Report


@pytest.mark.parametrize(
    "noise",
    [
        {"type": "asymmetric", "rate": 0.3, "class_map": "mnist"},
        {"type": "pairflip", "rate": 0.3, "mode": "bernoulli"},
        {"type": "instance-dependent-unit", "rate": 0.2},
        {"type": "symmetric", "rate": 0.3},
    ],
)
def test_the_noise_of_a_configuration_is_that_of_corrupt(digits, noise):
    config = resolve({"seed": 3, "noise": noise})
    clean, pixels = digits.train_labels.numpy(), digits.train.numpy()
    rest = {"mode": "exact", **{key: noise[key] for key in noise if key != "type"}}
    expected = corrupt(
        clean, num_classes=10, noise_type=noise["type"], seed=3, dataset="digits",
        class_names=digits.class_names, features=pixels, **rest,
    )  # fmt: skip
    named = dataclasses.replace(expected, class_names=digits.class_names)
    assert prepare_labels(config, digits, Report()).sha256 == named.sha256
    again = add_noise(config.noise, samples_of(digits), features=pixels, seed=3)
    assert (again.given == expected.given).all()


def test_labels_of_a_file_take_the_place_of_noise(digits, tmp_path):
    given = (digits.train_labels.numpy() + 1) % 10
    np.save(tmp_path / "given.npy", given)
    config = resolve({"noise": {"labels": str(tmp_path / "given.npy")}})
    labels = prepare_labels(config, digits, Report())
    np.testing.assert_array_equal(labels.given, given)
    np.testing.assert_array_equal(labels.clean, digits.train_labels)


def test_which_labels_of_a_folder_are_wrong_is_known_only_after_noise():
    clean = np.arange(20) % 2
    as_they_are, noisy = (corrupt(clean, num_classes=2, rate=rate) for rate in (0, 0.2))
    assert known_noise(DataConfig(dataset="folder"), as_they_are) is None
    assert known_noise(DataConfig(dataset="folder"), noisy) == 0.2
    assert known_noise(DataConfig(dataset="digits"), as_they_are) == 0
