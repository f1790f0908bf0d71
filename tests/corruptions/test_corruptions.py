import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from corruptions import (
    CLASS_MAPS,
    MODES,
    NOISE_TYPES,
    NoisyLabels,
    corrupt,
    load_matrix,
    symmetric_inclusive,
)
from corruptions.class_maps import check_class_map, find_class_map
from corruptions.draws import draw_labels
from corruptions.readers import read_labels
from corruptions.transitions import check_matrix, from_class_map, pairflip, symmetric

PIXELS = np.random.default_rng(7).integers(0, 256, (500, 4, 4)).astype(np.uint8)


@pytest.mark.parametrize("count", [90, 1000, 1003, 50_000])
@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.45, 1.0])
def test_exact_mode_flips_the_rounded_number(count, rate):
    clean = np.random.default_rng(1).integers(0, 10, count)
    labels = corrupt(clean, num_classes=10, rate=rate, seed=3)
    assert labels.flipped.sum() == round(rate * count)
    assert (labels.given[labels.flipped] != clean[labels.flipped]).all()


@pytest.mark.parametrize("mode", ["exact", "exact-per-class"])
def test_exact_modes_give_every_class_its_share(mode):
    clean = np.random.default_rng(1).choice(5, 5003, p=[0.5, 0.3, 0.1, 0.09, 0.01])
    labels = corrupt(clean, num_classes=5, rate=0.37, seed=3, mode=mode)
    for label in range(5):
        share = 0.37 * (clean == label).sum()
        flipped = labels.flipped[clean == label].sum()
        assert abs(flipped - share) < (1 if mode == "exact" else 0.5 + 1e-9)


def test_exact_overall_leaves_the_classes_to_chance():
    clean = np.arange(10_000) % 10
    runs = [
        corrupt(clean, num_classes=10, rate=0.3, seed=seed, mode="exact-overall")
        for seed in range(40)
    ]
    assert {labels.flipped.sum() for labels in runs} == {3000}
    counts = [labels.flipped[clean == 0].sum() for labels in runs]
    # Hypergeometric: variance n p (1 - p) (1 - n / N), 189 here.
    assert 90 < np.var(counts) < 350


@pytest.mark.parametrize("mode", MODES)
def test_every_sample_flips_with_its_own_probability(mode):
    change = np.array([0.1, 0.25, 0.75, 0.9])  # a whole number in sum: exact modes round nothing
    probabilities = np.stack([1 - change, change], axis=1)
    clean, rows = np.zeros(4, dtype=np.int64), np.arange(4)
    rng = np.random.default_rng(0)
    flips = np.array([draw_labels(clean, probabilities, rows, mode, rng) for _ in range(8000)])
    np.testing.assert_allclose(flips.mean(axis=0), change, atol=0.03)
    if mode != "bernoulli":
        assert set(flips.sum(axis=1)) == {2}


@settings(deadline=None, derandomize=True)
@given(st.integers(2, 12), st.floats(0, 1), st.integers(0, 2**31 - 1))
def test_bernoulli_mode_changes_the_stated_share(num_classes, rate, seed):
    clean = np.arange(4000) % num_classes
    labels = corrupt(clean, num_classes=num_classes, rate=rate, seed=seed, mode="bernoulli")
    spread = 6 * math.sqrt(4000 * rate * (1 - rate))
    assert abs(labels.flipped.sum() - 4000 * rate) <= spread + 1e-9


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.sampled_from(["symmetric", "symmetric-inclusive", "pairflip", "asymmetric"]),
    st.floats(0, 1),
    st.integers(0, 999),
    st.sampled_from(sorted(MODES)),
)
def test_only_possible_flips_happen_and_the_input_stays(noise_type, rate, seed, mode):
    clean = np.random.default_rng(seed).integers(0, 10, 300)
    before = clean.copy()
    labels = corrupt(
        clean,
        num_classes=10,
        noise_type=noise_type,
        rate=rate,
        seed=seed,
        mode=mode,
        dataset="mnist",
    )
    assert (clean == before).all()
    assert (labels.nominal[labels.clean, labels.given] > 0).all()


def test_matrix_is_read_as_clean_by_given():
    matrix = np.eye(3)
    matrix[1] = [0.5, 0.5, 0.0]
    clean = np.repeat([0, 1, 2], 1000)
    labels = corrupt(clean, num_classes=3, noise_type="matrix", matrix=matrix, seed=0)
    assert set(clean[labels.flipped]) == {1}
    assert set(labels.given[labels.flipped]) == {0}
    assert labels.flipped.sum() == 500


def test_realised_matrix_is_scikit_learns_confusion_matrix_and_near_the_nominal():
    clean = np.arange(100_000) % 10
    labels = corrupt(clean, num_classes=10, rate=0.4, seed=0)
    reference = confusion_matrix(labels.clean, labels.given, normalize="true")
    np.testing.assert_allclose(labels.realised, reference)
    np.testing.assert_allclose(labels.realised, labels.nominal, atol=0.01)


def test_a_missing_class_is_no_obstacle():
    clean = np.repeat([0, 2], 50)
    labels = corrupt(clean, num_classes=4, rate=0.5, seed=0)
    assert labels.flipped.sum() == 50
    np.testing.assert_array_equal(labels.realised[[1, 3]], np.eye(4)[[1, 3]])


def test_equal_seeds_agree_and_others_differ():
    clean = np.arange(1000) % 10
    first, again, other = (corrupt(clean, num_classes=10, rate=0.3, seed=s) for s in (5, 5, 6))
    assert (first.given == again.given).all()
    assert first.sha256 == again.sha256
    assert (first.given != other.given).any()


def test_labels_are_the_same_on_every_machine():
    labels = corrupt(np.arange(20) % 5, num_classes=5, rate=0.4, seed=0)
    assert labels.given.tolist() == [0, 2, 2, 3, 4, 0, 3, 2, 2, 3, 0, 1, 1, 3, 2, 2, 1, 3, 3, 4]
    assert labels.sha256 == "832d2bb952d0d6c88f4e08b739d4e829669c8a40eef2d39cce6882014b577d49"


def test_a_generator_takes_the_place_of_a_seed():
    clean = np.arange(1000) % 10
    rng = np.random.default_rng(4)
    first, second = (corrupt(clean, num_classes=10, rate=0.3, seed=rng) for _ in range(2))
    again = corrupt(clean, num_classes=10, rate=0.3, seed=np.random.default_rng(4))
    assert (first.given == again.given).all()
    assert (first.given != second.given).any()
    assert first.seed is None


def test_class_maps_may_use_names(tmp_path):
    clean = np.repeat([0, 1, 2], 10)
    names = ("cat", "dog", "eel")
    (tmp_path / "map.json").write_text('{"cat": "dog", "2": 0}')
    for class_map in ({"cat": "dog", 2: 0}, str(tmp_path / "map.json")):
        labels = corrupt(
            clean,
            num_classes=3,
            noise_type="asymmetric",
            rate=1.0,
            class_map=class_map,
            class_names=names,
        )
        assert labels.given.tolist() == [1] * 20 + [0] * 10
    (tmp_path / "bom.json").write_text('{"cat": "dog", "2": 0}', encoding="utf-8-sig")
    found = find_class_map(str(tmp_path / "bom.json"), None)
    assert check_class_map(found, 3, names) == {0: 1, 2: 0}
    for text in ("[1]", "{", ""):
        (tmp_path / "map.json").write_text(text)
        with pytest.raises(ValueError, match=r"map\.json"):
            corrupt(
                clean, num_classes=3, noise_type="asymmetric", class_map=str(tmp_path / "map.json")
            )


def test_closed_forms_of_the_matrices():
    np.testing.assert_allclose(symmetric(4, 0.3), np.full((4, 4), 0.1) + 0.6 * np.eye(4))
    np.testing.assert_allclose(
        symmetric_inclusive(4, 0.3), np.full((4, 4), 0.075) + 0.7 * np.eye(4)
    )
    np.testing.assert_allclose(pairflip(3, 0.2), [[0.8, 0.2, 0], [0, 0.8, 0.2], [0.2, 0, 0.8]])
    np.testing.assert_allclose(from_class_map(3, 0.4, {2: 0})[2], [0.4, 0, 0.6])


@pytest.mark.parametrize("dataset", CLASS_MAPS)
def test_class_maps_never_map_a_class_to_itself(dataset):
    k = 100 if dataset == "cifar100" else 10
    assert all(a != b and 0 <= a < k and 0 <= b < k for a, b in CLASS_MAPS[dataset].items())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"rate": 1.5}, r"\[0, 1\], got 1.5"),
        ({"noise_type": "sym"}, "unknown noise type 'sym'"),
        ({"mode": "roughly"}, "bernoulli, got 'roughly'"),
        ({"seed": -1}, "at least 0, got -1"),
        ({"seed": 1.7}, "whole number, at least 0, got 1.7"),
        ({"class_map": {1: 2}}, "class_map goes with noise type 'asymmetric', got 'symmetric'"),
        ({"matrix": np.eye(10)}, "matrix goes with noise type 'matrix', got 'symmetric'"),
        ({"noise_type": "asymmetric", "class_map": {"3": 4, 3: 5}}, "got two for 3"),
        ({"noise_type": "asymmetric", "class_map": {3: 3}}, "different classes"),
        ({"noise_type": "asymmetric", "class_map": {3: 10}}, "different classes"),
        ({"noise_type": "asymmetric", "class_map": "mnits"}, "got 'mnits'"),
        (
            {"noise_type": "instance-dependent-unit"},
            "of 10 samples, an array .*, got none",
        ),
        (
            {"noise_type": "instance-dependent-unit", "features": np.array(5.0)},
            r"an array \(10, ...\), got shape \(\)",
        ),
        (
            {"noise_type": "instance-dependent-unit", "features": np.ones((10, 2), complex)},
            "features that are numbers, got complex128",
        ),
        (
            {"noise_type": "instance-dependent-01", "features": np.full((10, 2), np.nan)},
            "finite features",
        ),
        (
            {"noise_type": "instance-dependent-unit", "features": np.full((10, 2), -1)},
            r"in \[0, 255\], got values from -1 to -1",
        ),
        (
            {"noise_type": "instance-dependent-01", "features": np.full((10, 2), 256.0)},
            r"in \[0, 255\], got values from 256 to 256",
        ),
        (
            {"noise_type": "instance-dependent-raw", "features": np.full((10, 2), 0.5)},
            r"from 0.5 to 0.5; multiply pixels in \[0, 1\] by 255",
        ),
        ({"noise_type": "sce-asymmetric-100"}, "CIFAR-100's 100 classes, got 10"),
        ({"num_classes": 1}, "at least 2, got 1"),
        ({"clean": np.array([0, 12])}, r"\[0, 10\), got 12"),
        ({"clean": np.array([0.5])}, "integers"),
        ({"noise_type": "asymmetric", "dataset": "faces"}, "got 'faces'"),
        ({"noise_type": "matrix"}, "got none"),
        ({"noise_type": "matrix", "matrix": np.eye(3)}, r"\(10, 10\), got \(3, 3\)"),
        ({"noise_type": "matrix", "matrix": np.eye(10) * 0.9}, "sum to 1, got 0.9 in row 0"),
    ],
)
def test_bad_input_is_named(changes, says):
    arguments = {"clean": np.arange(10), "num_classes": 10, **changes}
    with pytest.raises(ValueError, match=says):
        corrupt(arguments.pop("clean"), **arguments)


def test_matrices_are_checked():
    with pytest.raises(ValueError, match="probabilities"):
        check_matrix([[1.5, -0.5], [0, 1]], 2)


def test_matrix_files(tmp_path):
    np.save(tmp_path / "m.npy", np.eye(2))
    np.testing.assert_array_equal(load_matrix(tmp_path / "m.npy"), np.eye(2))
    (tmp_path / "m.csv").write_text("0.9,0.1\n0,1\n")
    np.testing.assert_array_equal(load_matrix(str(tmp_path / "m.csv")), [[0.9, 0.1], [0, 1]])
    (tmp_path / "m.csv").write_text("0.9,0.1\n0,1\n", encoding="utf-8-sig")
    np.testing.assert_array_equal(load_matrix(tmp_path / "m.csv"), [[0.9, 0.1], [0, 1]])
    with pytest.raises(ValueError, match=r"none\.csv"):
        load_matrix(tmp_path / "none.csv")


@pytest.mark.parametrize("noise_type", ["symmetric", "symmetric-inclusive", "pairflip"])
def test_a_record_with_a_rate_of_single_precision_is_read_again(tmp_path, noise_type):
    labels = corrupt(
        np.arange(50) % 10,
        num_classes=10,
        noise_type=noise_type,
        rate=np.float32(0.3),
        seed=np.int64(2),
    )
    assert labels.nominal.dtype == np.float64
    labels.save(str(tmp_path / "labels.npz"))
    assert NoisyLabels.load(str(tmp_path / "labels.npz")).sha256 == labels.sha256
    assert read_labels(str(tmp_path / "labels.npz")).record is not None


@pytest.mark.parametrize("noise_type", sorted(set(NOISE_TYPES) - {"matrix"}))
def test_records_survive_saving_and_damage_is_noticed(tmp_path, noise_type):
    clean = np.arange(500) % 10
    labels = corrupt(
        clean, num_classes=10, noise_type=noise_type, rate=0.2, dataset="mnist", features=PIXELS
    )
    path = tmp_path / "labels.npz"
    labels.save(path)
    again = NoisyLabels.load(path)
    assert again.sha256 == labels.sha256
    assert (again.given == labels.given).all()
    assert list(tmp_path.iterdir()) == [path]
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        NoisyLabels.load(path)
    path.write_bytes(content[:200])
    with pytest.raises(ValueError, match="damaged"):
        NoisyLabels.load(path)


def test_pickled_labels_are_refused(tmp_path):
    path = tmp_path / "labels.npz"
    np.savez(path, description=np.array([object()], dtype=object))
    with pytest.raises(ValueError, match="damaged or not"):
        NoisyLabels.load(path)
