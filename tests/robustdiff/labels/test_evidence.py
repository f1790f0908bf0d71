"""Evidence from files: which rows are about which images, and what is refused."""

from io import BytesIO
from types import SimpleNamespace

import numpy as np
import pytest

from corruptions import Samples
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.layers import resolve
from robustdiff.labels import evidence as module
from robustdiff.labels.evidence import Dataset, probabilities_from, read_evidence
from robustdiff.progress import Report

GOOD = np.arange(1, 13).reshape(4, 3) / 12
NAMES, PATHS = ("cat", "dog", "owl"), ("cat/1.png", "cat/2.png", "dog/1.png", "owl/1.png")


class Notes(Report):
    def __init__(self):
        self.said = []

    def message(self, text):
        self.said.append(text)


def dataset(tmp_path, rows=(0, 1, 2, 3), paths=PATHS, held_out=("owl/9.png",)):
    samples = Samples(
        clean=np.array([0, 0, 1, 2]), num_classes=3, class_names=NAMES, paths=paths,
        held_out=held_out,
    )  # fmt: skip
    images = SimpleNamespace(num_classes=3)
    return Dataset(images, samples, np.array(rows), tmp_path / "photos")


def write(path, content):
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content)
    elif content is not None:
        with path.open("wb") as file:
            np.save(file, content, allow_pickle=True)


def table(header, *rows):
    return "\n".join([header, *rows]) + "\n"


def cells(*order, name=lambda number: PATHS[number]):
    """Rows of GOOD, with the classes in another order than the dataset's."""
    return [f"{GOOD[n, 2]:.6f},{name(n)},{GOOD[n, 0]:.6f},{GOOD[n, 1]:.6f}" for n in order]


def read(tmp_path, name, content, kind="probabilities", report=None, **about):
    write(tmp_path / name, content)
    judge = JudgeConfig(**{kind: str(tmp_path / name)})
    return read_evidence(judge, dataset(tmp_path, **about), report or Report())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.txt", "1", r"read from \.npy, \.npz and \.csv files, got"),
        ("none.npy", None, "there is no file"),
        ("p.npy", GOOD[:3], r"one array of shape \(4, 3\).*got \(3, 3\)"),
        ("p.npy", GOOD[:, :2], r"one array of shape \(4, 3\).*got \(4, 2\)"),
        ("p.npy", GOOD > 0.5, r"got \(4, 3\) of bool; its numbers must be whole or real"),
        ("p.npy", GOOD.astype(complex), r"got \(4, 3\) of complex128; its numbers"),
        ("p.npy", GOOD - 1, "at least 0.*got -0.916667 for class 'cat' of image cat/1.png, and 3"),
        ("p.npy", GOOD * 0, "not all of a row 0, got 0 for class 'cat' of image cat/1.png, and 3"),
        ("p.npy", GOOD * [[1], [1], [0], [1]], "got 0 for class 'cat' of image dog/1.png, and 0"),
        ("p.npy", GOOD * np.nan, "finite numbers, got nan for class 'cat' of image cat/1.png"),
        ("p.npz", {"a": GOOD, "b": GOOD}, r"got \(4, 3\) of float64, \(4, 3\)"),
        ("p.npy", np.array([{}], dtype=object), "not an array file of numbers"),
        ("p.npz", b"junk", "not an archive of plain arrays"),
        ("p.csv", table("owl,file,cat", "1,cat/1.png,0"), "has none, or several, for 'dog'"),
        ("p.csv", table("owl,cat,dog,cat", "1,0,0,0"), "has none, or several, for 'cat'"),
        ("p.csv", table("owl,cat,dog", "1,0,0"), "needs a column file or index.*no other column"),
        ("p.csv", table("owl,who,cat,dog", "1,a,0,0"), "needs a column file or index.*'?who"),
        ("p.csv", table("owl,file,cat,dog", *cells(0, 1, 3)), "no row for 1 of 4 images: 'dog/1"),
        ("p.csv", table("owl,file,cat,dog", *cells(0, 1, 2, 3, 2)), "several rows.*'dog/1.png'"),
        ("p.csv", table("owl,index,cat,dog", *cells(0, 1, 2, 3, 2, name=int)), "several rows"),
        ("p.csv", table("owl,index,cat,dog", *cells(0, 1, 2, name=int)), "no row for 1 of 4"),
        (
            "p.csv",
            table("owl,index,cat,dog", *cells(0, 1, 2, 3, name=lambda n: n + 1)),
            "count from 1",
        ),
        (
            "p.csv",
            table("owl,file,cat,dog", *cells(0, 1, 2, 3), "1,cat/77.png,0,0"),
            "1 rows of .* name no file in .*photos: 'cat/77.png'",
        ),
        ("p.csv", table("owl,file,cat,dog", *cells(0, 1, 2), "x,owl/1.png,0,1"), "'owl'.*: 'x'"),
        ("p.csv", table("owl,file,cat,dog", *cells(0, 1, 2), ",owl/1.png,0,1"), "no numbers: ''"),
        ("p.csv", table("owl,file,cat,dog", *cells(0, 1, 2), "nan,owl/1.png,0,1"), "finite"),
        ("p.csv", "cat\n1\n", "has one column"),
    ],
)  # fmt: skip
def test_other_files_are_refused_by_one_line(name, content, says, tmp_path):
    with pytest.raises(ValueError, match=says) as refused:
        read(tmp_path, name, content)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (GOOD[0], r"shape \(4, D\), a row for each image, got \(3,\)"),
        (np.zeros((4, 0)), r"shape \(4, D\).*got \(4, 0\)"),
        (GOOD[:3], r"shape \(4, D\).*got \(3, 3\)"),
        (np.full((4, 2), np.inf), "finite numbers, got inf for feature 0 of image cat/1.png"),
    ],
)
def test_features_of_another_shape_are_refused(content, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        read(tmp_path, "f.npy", content, "features")


def test_a_damaged_compressed_archive_is_refused_by_one_line(tmp_path):
    file = BytesIO()
    np.savez_compressed(file, p=np.random.default_rng(0).random((4, 3)))
    content = bytearray(file.getvalue())
    content[60:150] = bytes(range(90))
    with pytest.raises(ValueError, match=r"p\.npz is not an archive of .* or is damaged"):
        read(tmp_path, "p.npz", bytes(content))


@pytest.mark.parametrize("header", ["index,f0,f2", "index,f1", "index,a,b", "index,f0,f1,f1"])
def test_columns_of_features_have_no_gap(header, tmp_path):
    row = ",".join("1" * len(header.split(",")))
    with pytest.raises(ValueError, match="needs columns f0, f1, f2"):
        read(tmp_path, "f.csv", table(header, row), "features")


def test_arrays_beside_others_are_found_by_their_shape(tmp_path):
    found = read(tmp_path, "p.npz", {"pred_probs": GOOD, "labels": np.arange(4)})
    assert (found == GOOD).all()
    assert found.dtype == np.float64
    features = read(tmp_path, "f.npz", {"x": GOOD, "labels": np.arange(4)}, "features")
    assert features.dtype == np.float32


@pytest.mark.parametrize(
    ("column", "name"),
    [
        ("file", lambda n: PATHS[n]),
        ("Image Path", lambda n: f"/home/me/photos/{PATHS[n]}"),
        ("index", int),
        ("id", int),
    ],
)
def test_rows_of_a_table_are_joined_in_any_order(column, name, tmp_path):
    content = table(f"owl,{column},cat,dog", *cells(2, 0, 3, 1, name=name))
    paths = PATHS if callable(name) and name is not int else None
    np.testing.assert_allclose(read(tmp_path, "p.csv", content, paths=paths), GOOD, atol=1e-6)


def test_features_of_a_table_are_in_the_order_of_their_numbers(tmp_path):
    rows = [f"{n},{10 + n},{n}" for n in (3, 1, 0, 2)]
    found = read(tmp_path, "f.csv", table("f1,f0,index", *rows), "features")
    np.testing.assert_allclose(found, [[10 + n, n] for n in range(4)])


def test_files_that_are_not_used_are_known_by_the_column_that_names_the_others(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "8.png").touch()
    rows = [f"{GOOD[n, 2]:.6f},x{n},{PATHS[n]},{GOOD[n, 0]:.6f},{GOOD[n, 1]:.6f}" for n in range(4)]
    content = table("owl,path,file,cat,dog", *rows, "1,x8,cat/8.png,0,0")
    np.testing.assert_allclose(read(tmp_path, "p.csv", content), GOOD, atol=1e-6)


def test_a_table_may_list_held_out_images_and_files_that_are_not_used(tmp_path):
    (tmp_path / "photos" / "cat").mkdir(parents=True)
    (tmp_path / "photos" / "cat" / "8.png").touch()
    more = ("1,owl/9.png,0,0", "1,cat/8.png,0,0")
    notes = Notes()
    content = table("owl,file,cat,dog", *cells(0, 1, 2, 3), *more)
    np.testing.assert_allclose(
        read(tmp_path, "p.csv", content, report=notes), GOOD, atol=1e-6
    )  # fmt: skip
    assert "1 rows of" in notes.said[0]
    assert "held-out" in notes.said[0]
    assert "'cat/8.png'; left out" in notes.said[1]


def test_images_that_are_gone_need_no_row_by_name_and_keep_their_place_in_an_array(tmp_path):
    rows = (0, 2, 3)
    some = table("owl,file,cat,dog", *cells(3, 2, 0))
    everything = table("owl,file,cat,dog", *cells(3, 2, 1, 0))
    for name, content in (("p.npy", GOOD), ("some.csv", some), ("all.csv", everything)):
        np.testing.assert_allclose(
            read(tmp_path, name, content, rows=rows), GOOD[list(rows)], atol=1e-6
        )


def test_features_and_probabilities_lead_to_probabilities(tmp_path, monkeypatch):
    write(tmp_path / "p.npy", GOOD)
    given, data = np.array([0, 0, 1, 2]), dataset(tmp_path)
    config = resolve({"judge": {"probabilities": str(tmp_path / "p.npy")}})
    assert (probabilities_from(config, data, given, Report()) == GOOD).all()
    monkeypatch.setattr(module, "probe", lambda values, *_, **__: values * 2)
    config = resolve({"judge": {"features": str(tmp_path / "p.npy")}})
    np.testing.assert_allclose(probabilities_from(config, data, given, Report()), 2 * GOOD)
