"""Files of any content: labels, or a refusal that names the file; never another error."""

import contextlib
import functools
import io
import json
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corruptions import Samples, corrupt, labels_from, load_matrix, read_labels, samples_from
from corruptions.class_maps import check_class_map, find_class_map

LABELS = np.array([0, 1, 2, 1])
SAMPLES = Samples(
    clean=np.array([0, 1, 2]),
    num_classes=3,
    class_names=("eel", "1", "x"),
    paths=("eel/0.png", "1/1.png", "x/2.png"),
)


def written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def archive(buffer):
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", pickle.dumps({"clean_label": LABELS, "worse_label": LABELS}, 2))


@functools.cache
def valid(folder):
    """One whole file of every kind, name -> bytes."""
    corrupt(np.arange(20) % 3, num_classes=3, rate=0.3).save(folder / "whole.npz")
    objects = np.array({"worse_label": LABELS}, dtype=object)
    return {
        "y.npz": (folder / "whole.npz").read_bytes(),
        "y.npy": written(lambda file: np.save(file, LABELS)),
        "objects.npy": written(lambda file: np.save(file, objects)),
        "y.csv": b"index,given_label\n0,1\n1,1\n2,eel\n",
        "y.tsv": b"path\ttrue_label\tlabel\neel/0.png\teel\tx\n1/1.png\t1\tx\nx/2.png\tx\tx\n",
        "y.pt": written(archive),
        "map.json": json.dumps({"7": 1, "2": 0}).encode(),
        "matrix.npy": written(lambda file: np.save(file, np.eye(3))),
        "matrix.csv": b"0.5,0.5\n0,1\n",
    }


def read(path):
    if path.name.startswith("map"):
        return check_class_map(find_class_map(str(path), None), 10)
    if path.name.startswith("matrix"):
        return load_matrix(path)
    file = read_labels(path)
    with contextlib.suppress(ValueError):
        labels_from(file, SAMPLES)
    with contextlib.suppress(ValueError):
        samples_from(file)
    return file


def refusal(path):
    """What is said about a file; its name if the file is read."""
    try:
        read(path)
    except ValueError as error:
        return str(error)
    return path.name


def reads_or_refuses(folder, name, content):
    path = folder / f"{name.split('.')[0]}-fuzz.{name.split('.')[1]}"
    path.write_bytes(content)
    said = refusal(path)
    assert path.name in said or (name == "map.json" and said.startswith("a class map"))


NAMES = [
    "y.npz", "y.npy", "objects.npy", "y.csv", "y.tsv", "y.pt", "map.json", "matrix.npy",
    "matrix.csv",
]  # fmt: skip
HEADER = b"\x93NUMPY\x01\x00"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(content=st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
@example(content=b"")
@example(content=b"[" * 100_000)
@example(content=HEADER + b"\x3e\x00{'descr':'<i8','fortran_order':False,'shape':(1<<60,)}")
@example(
    content=HEADER + b"\x46\x00{'descr':'<i8','fortran_order':False,'shape':(9999999999999,)}  "
)
@example(content=b"given_label\n99999999999999999999\n")
@example(content=b"given_label\n\xc2\xb2\n")
@example(content=b"1\n\xd9\xa3\n--2\n")
def test_any_bytes(folder, name, content):
    reads_or_refuses(folder, name, content)


@pytest.mark.parametrize("name", NAMES)
def test_every_truncation(folder, name):
    whole = valid(folder)[name]
    for length in range(0, len(whole), max(1, len(whole) // 150)):
        reads_or_refuses(folder, name, whole[:length])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_bytes(folder, name, data):
    content = bytearray(valid(folder)[name])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    reads_or_refuses(folder, name, bytes(content))
