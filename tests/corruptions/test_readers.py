"""Label files of any origin, hostile ones included."""

import contextlib
import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from corruptions import Samples, corrupt, labels_from, read_labels, samples_from

LABELS = np.array([0, 1, 2, 1])


def joined(file, clean, num_classes):
    """The labels of samples that are known by their order."""
    return labels_from(file, Samples(clean=clean, num_classes=num_classes)).labels


class Hostile:
    """Unpickled as it stands, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def write_pt(path, content, protocol=2):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=protocol))
        archive.writestr("archive/version", "3")


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_human_labels(tmp_path, protocol):
    content = {"clean_label": LABELS, "worse_label": LABELS[::-1].copy(), "coarse": [1, 2]}
    write_pt(tmp_path / "h.pt", content, protocol)
    np.save(tmp_path / "h.npy", np.array(content, dtype=object))
    for name in ("h.pt", "h.npy"):
        file = read_labels(tmp_path / name)  # the only one besides the clean labels
        assert file.given.tolist() == [1, 2, 1, 0]
        assert (file.clean == LABELS).all()
        assert read_labels(tmp_path / name, "clean_label").given.tolist() == LABELS.tolist()
        labels = joined(file, LABELS, 3)
        assert labels.realised_rate == 1.0
        assert labels.convention.startswith("worse_label of")
        with pytest.raises(ValueError, match="clean_label, worse_label; give one"):
            read_labels(tmp_path / name, "worst")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("name", ["evil.pt", "evil.npy"])
def test_hostile_pickles_are_refused_without_being_executed(tmp_path, name, protocol):
    made, path = tmp_path / "made", tmp_path / name
    content = {"clean_label": LABELS, "worse_label": Hostile(made)}
    if name.endswith(".pt"):
        write_pt(path, content, protocol)
    else:
        buffer = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            buffer, {"descr": "|O", "fortran_order": False, "shape": ()}
        )
        path.write_bytes(buffer.getvalue() + pickle.dumps(content, protocol))
    with pytest.raises(ValueError, match="refused"):
        read_labels(path)
    assert not made.exists()
    pickle.loads(pickle.dumps(Hostile(made)))  # noqa: S301 the test's own: it would have worked
    assert made.exists()


@pytest.mark.parametrize("call", ["builtins eval", "numpy load", "numpy fromfile", "os system"])
def test_no_function_can_be_called(tmp_path, call):
    module, name = call.split()
    pickled = f"c{module}\n{name}\n(S'1'\ntR.".encode()
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    with pytest.raises(ValueError, match=f"asks for {module}.{name}"):
        read_labels(tmp_path / "x.pt")


def test_files_of_other_data_are_refused(tmp_path):
    write_pt(tmp_path / "h.pt", {"clean_label": LABELS, "worse_label": LABELS})
    file = read_labels(tmp_path / "h.pt")
    with pytest.raises(ValueError, match="differ from the dataset's in 2 of 4"):
        joined(file, np.array([1, 0, 2, 1]), 3)
    with pytest.raises(ValueError, match="4 labels, but there are 5"):
        joined(file, np.zeros(5, dtype=int), 3)
    np.save(tmp_path / "y.npy", LABELS)
    with pytest.raises(ValueError, match=r"\[0, 2\), got 2"):
        joined(read_labels(tmp_path / "y.npy"), LABELS % 2, 2)


def test_records_come_back_whole(tmp_path):
    labels = corrupt(np.arange(100) % 10, num_classes=10, rate=0.3, seed=5)
    labels.save(tmp_path / "labels.npz")
    file = read_labels(tmp_path / "labels.npz")
    again = joined(file, np.arange(100) % 10, 10)
    assert again.sha256 == labels.sha256
    assert again.seed == 5
    with pytest.raises(ValueError, match="10 classes, the dataset 11"):
        joined(file, np.arange(100) % 10, 11)


def test_plain_files(tmp_path):
    np.save(tmp_path / "y.npy", LABELS.astype(np.uint8))
    (tmp_path / "bare.csv").write_text("0\n1\n2\n1\n")
    (tmp_path / "head.csv").write_text("label\n0\n1\n2\n1\n")
    (tmp_path / "wide.csv").write_text("index,given_label\n0,0\n1,1\n2,2\n3,1\n")
    for name in ("y.npy", "bare.csv", "head.csv", "wide.csv"):
        file = read_labels(tmp_path / name)
        assert joined(file, LABELS, 3).given.tolist() == LABELS.tolist(), name
        assert samples_from(file)[0].clean.tolist() == LABELS.tolist(), name
        assert file.clean is None
    (tmp_path / "words.csv").write_text("name,kind\na,eel\nb,cat\nc,eel\n")
    samples, notes = samples_from(read_labels(tmp_path / "words.csv", "kind"))
    assert samples.clean.tolist() == [1, 0, 1]
    assert samples.class_names == ("cat", "eel")
    assert "its rows are numbered in their order" in notes[0]
    labels = joined(read_labels(tmp_path / "y.npy"), np.array([0, 1, 2, 2]), 3)
    assert labels.noise_type == "file"
    assert labels.rate == labels.realised_rate == labels.expected_rate == 0.25


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("none.npy", None, "no label file"),
        ("y.txt", b"0", "got .*y.txt"),
        ("y.npy", b"", "not an array file"),
        ("y.npy", b"\x93NUMPY\x01\x00junk", "not an array file"),
        ("y.npy", b"\x93NUMPY\x09\x00junk", "not an array file"),
        ("y.csv", b"", "empty"),
        ("y.csv", b"a,b\n1,2\n", "needs a column 'given_label'; it has a, b"),
        ("y.csv", b"index,given_label\n1\n", "too few columns in data row 1"),
        ("y.csv", b"\xff\xfe\x00", "not a text file"),
        ("y.pt", b"junk", "damaged or not"),
        ("y.npz", b"junk", "damaged or not"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_labels(tmp_path / name)


def test_a_key_picks_among_several_labels_only(tmp_path):
    np.save(tmp_path / "y.npy", LABELS)
    corrupt(LABELS, num_classes=3).save(tmp_path / "y.npz")
    for name in ("y.npy", "y.npz"):
        with pytest.raises(ValueError, match=r"holds labels of no name.* got the key 'worse'"):
            read_labels(tmp_path / name, "worse")


@pytest.mark.parametrize("shape", [(2, 2), (4,)])
def test_arrays_must_be_labels(tmp_path, shape):
    np.save(tmp_path / "y.npy", np.zeros(shape))
    with pytest.raises(ValueError, match="one-dimensional array of integers"):
        read_labels(tmp_path / "y.npy")


def test_damaged_bytes_never_escape_as_other_errors(tmp_path):
    content = {"clean_label": LABELS, "worse_label": LABELS}
    write_pt(tmp_path / "h.pt", content)
    np.save(tmp_path / "h.npy", np.array(content, dtype=object))
    rng = np.random.default_rng(0)
    for name in ("h.pt", "h.npy"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(300):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 3):
                damaged[place] = rng.integers(256)
            (tmp_path / name).write_bytes(damaged)
            with contextlib.suppress(ValueError):
                read_labels(tmp_path / name, "worse_label")
