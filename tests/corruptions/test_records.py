"""Records of label noise: whose labels they hold, and datasets that have changed since."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corruptions import NoisyLabels, Samples, corrupt, labels_from, read_labels
from corruptions.records import join_record

NAMES = ("ant", "bee", "cat")
CLEAN = np.arange(12) % 3
PATHS = tuple(f"{NAMES[c]}/{i}.png" for i, c in enumerate(CLEAN))
DIGESTS = tuple(f"{i:016x}" for i in range(12))
BARE = corrupt(CLEAN, num_classes=3, rate=0.5, seed=1)
RECORD = replace(BARE, class_names=NAMES, paths=PATHS, digests=DIGESTS)


def dataset(order=range(12), names=NAMES, **changes):
    """The samples of the record in some order, under other numbers of the classes."""
    order = list(order)
    clean = np.array([names.index(NAMES[CLEAN[i]]) for i in order])
    whose = {
        "clean": clean,
        "num_classes": len(names),
        "class_names": names,
        "paths": tuple(PATHS[i] for i in order),
        "digests": tuple(DIGESTS[i] for i in order),
    }
    return Samples(**(whose | changes))


def given_of(labels):
    """Path -> name of the given class."""
    return {
        path: labels.class_names[number]
        for path, number in zip(labels.paths, labels.given.tolist(), strict=True)
    }


SAID = given_of(RECORD)


@pytest.mark.parametrize("known", [(), ("class_names",), ("paths", "digests"), ("paths",)])
def test_records_are_saved_with_what_they_know(tmp_path, known):
    labels = replace(BARE, **{name: getattr(RECORD, name) for name in known})
    labels.save(tmp_path / "y.npz")
    again = NoisyLabels.load(tmp_path / "y.npz")
    assert again.sha256 == labels.sha256
    for name in ("class_names", "paths", "digests"):
        assert getattr(again, name) == getattr(labels, name)
    with np.load(tmp_path / "y.npz", allow_pickle=False) as content:
        written = json.loads(str(content["description"]))["format"]
    assert written == ("robustdiff-labels-2" if known else "robustdiff-labels-1")


@pytest.mark.parametrize("seed", [0, 2**63, 2**64, 10**30])
def test_every_array_of_a_record_is_read_without_pickles(tmp_path, seed):
    labels = corrupt(np.arange(20) % 2, num_classes=2, rate=0.2, seed=seed)
    labels.save(tmp_path / "labels.npz")
    with np.load(tmp_path / "labels.npz", allow_pickle=False) as content:
        assert int({name: content[name] for name in content}["seed"]) == seed
    assert NoisyLabels.load(tmp_path / "labels.npz").seed == seed


def test_the_digest_covers_names_paths_and_contents():
    digests = {BARE.sha256, RECORD.sha256}
    for name in ("class_names", "paths", "digests"):
        for entries in (None, getattr(RECORD, name)[::-1]):
            digests.add(replace(RECORD, **{name: entries}).sha256)
    assert len(digests) == 8


def test_records_of_the_first_format_are_read(tmp_path):
    labels = corrupt(np.arange(20) % 5, num_classes=5, rate=0.4, seed=0)
    labels.save(tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz", allow_pickle=False) as content:
        arrays = dict(content)
    described = json.loads(str(arrays["description"]))
    assert described["format"] == "robustdiff-labels-1"
    assert described["sha256"].startswith("832d2bb952d0d6c8")
    assert set(arrays) == {
        "clean", "given", "flipped", "matrix", "realised_matrix", "seed", "realised_rate",
        "description",
    }  # fmt: skip


@pytest.mark.parametrize(
    "identity",
    [
        {"class_names": ["a", "b"]},
        {"paths": ["a"]},
        {"paths": [1] * 12},
        {"colour": "abc"},
        [1],
        "x",
    ],
)
def test_a_damaged_identity_is_refused(tmp_path, identity):
    RECORD.save(tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz", allow_pickle=False) as content:
        arrays = dict(content)
    arrays["identity"] = np.frombuffer(json.dumps(identity).encode(), np.uint8)
    np.savez(tmp_path / "y.npz", **arrays)
    with pytest.raises(ValueError, match=r"damaged"):
        NoisyLabels.load(tmp_path / "y.npz")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_labels_follow_their_images_and_classes(data):
    order = data.draw(st.permutations(range(12)))
    kept = order[: data.draw(st.integers(3, 12))]
    names = tuple(data.draw(st.permutations(NAMES)))
    folder = data.draw(st.sampled_from(["", "train/", "a/b/"]))
    samples = dataset(kept, names)
    moved = data.draw(st.sets(st.sampled_from(kept), max_size=3))
    new = {PATHS[i]: f"moved/{i}x.png" if i in moved else folder + PATHS[i] for i in kept}
    samples = replace(samples, paths=tuple(new[path] for path in samples.paths))
    labels, notes = join_record(RECORD, samples, "y.npz")
    assert given_of(labels) == {new[PATHS[i]]: SAID[PATHS[i]] for i in kept}
    assert labels.clean.tolist() == samples.clean.tolist()
    assert any("by their content" in note for note in notes) == bool(moved)
    places = [names.index(name) for name in NAMES]
    assert np.array_equal(labels.nominal[np.ix_(places, places)], RECORD.nominal)


def test_a_record_of_the_same_samples_is_taken_as_it_is():
    for samples in (dataset(), dataset(digests=None), dataset(paths=None, digests=None)):
        labels, notes = join_record(RECORD, samples, "y.npz")
        assert labels is RECORD
        assert notes == ()
    assert join_record(BARE, dataset(), "y.npz") == (BARE, ())


def test_exchanged_files_are_told_by_their_content():
    digests = list(DIGESTS)
    digests[0], digests[3] = digests[3], digests[0]
    labels, notes = join_record(RECORD, dataset(digests=tuple(digests)), "y.npz")
    assert labels.given[[0, 3]].tolist() == RECORD.given[[3, 0]].tolist()
    assert notes == (
        "since the labels were recorded 2 images moved, and were found by their content: "
        "'ant/0.png', 'ant/3.png'",
    )


def test_changed_and_doubled_files():
    digests = ("f" * 16, *DIGESTS[1:])
    labels, notes = join_record(RECORD, dataset(digests=digests), "y.npz")
    assert labels is RECORD
    assert notes == ("since the labels were recorded 1 images changed: 'ant/0.png'",)
    # Where image 0 was there is a new one now.
    paths = ("ant/0.png", "ant/moved.png", *PATHS[1:])
    samples = Samples(
        clean=np.array([0, *CLEAN]),
        num_classes=3,
        class_names=NAMES,
        paths=paths,
        digests=("e" * 16, *DIGESTS),
    )
    with pytest.raises(ValueError, match=r"no row for 1 of 13 images: 'ant/0.png'"):
        join_record(RECORD, samples, "y.npz")
    same = replace(RECORD, digests=("0" * 16,) * 12)
    renamed = dataset(paths=tuple(f"ant/x{i}.png" for i in range(12)), digests=("0" * 16,) * 12)
    with pytest.raises(ValueError, match=r"no row for 12 of 12 images"):
        join_record(same, renamed, "y.npz")


@pytest.mark.parametrize(
    ("samples", "says"),
    [
        (dataset(class_names=("ant", "bee", "zcat")), "'cat' only in the file, 'zcat' only"),
        (dataset(class_names=("Ant", "bee", "cat")), "'ant' only in the file, 'Ant' only"),
        (dataset(class_names=("ant", "bee", "cat", "dog"), num_classes=4), "none only in .* 'dog'"),
        (dataset(clean=CLEAN[::-1]), r"differ from the dataset's in 8 of 12 .*'ant/0.png'"),
        (dataset([*range(12), 0], paths=(*PATHS, "new.png"), digests=None), "1 of 13 .*new.png"),
        (dataset(paths=None, order=range(6)), "has 12 labels, but there are 6"),
        (dataset(paths=None, order=range(11, -1, -1)), "differ from the dataset's in 8 of 12"),
        (dataset(class_names=None, num_classes=4), "has 3 classes, the dataset 4"),
    ],
)  # fmt: skip
def test_records_of_other_data_are_refused(samples, says):
    with pytest.raises(ValueError, match=says) as refused:
        join_record(RECORD, samples, "y.npz")
    assert "\n" not in str(refused.value)


def test_rows_of_one_image_in_a_record():
    paths = ("./ant/3.png", *PATHS[1:])
    torn = replace(RECORD, paths=paths, given=np.arange(12) % 3)
    torn.given[0] = 1
    with pytest.raises(ValueError, match=r"1 rows of y.npz give an image another label"):
        join_record(torn, dataset(range(1, 12)), "y.npz")


TEXT_ORDER = tuple(sorted(map(str, range(12))))


def test_twelve_classes_called_by_numbers(tmp_path):
    """Names sorted as text are other numbers than names sorted by value."""
    folder = Samples(
        clean=np.arange(24) % 12,
        num_classes=12,
        class_names=TEXT_ORDER,
        paths=tuple(f"{TEXT_ORDER[i % 12]}/{i}.png" for i in range(24)),
    )
    meant = np.array([int(TEXT_ORDER[c]) for c in folder.clean])
    of_folder = corrupt(folder.clean, num_classes=12, rate=0.5)
    of_values = corrupt(meant, num_classes=12, rate=0.5)
    for record in (
        of_folder,
        replace(of_folder, class_names=TEXT_ORDER),
        of_values,
        replace(of_values, class_names=tuple(map(str, range(12)))),
    ):
        record.save(tmp_path / "y.npz")
        labels = labels_from(read_labels(tmp_path / "y.npz"), folder).labels
        assert labels.clean.tolist() == folder.clean.tolist()
        by_value = record.clean.tolist() == meant.tolist()
        wanted = [
            TEXT_ORDER.index(str(number)) if by_value else number
            for number in record.given.tolist()
        ]
        assert labels.given.tolist() == wanted
        np.testing.assert_allclose(labels.expected_rate, 0.5)
