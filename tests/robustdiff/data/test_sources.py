"""The same images in every form, and every mistake in one line before the work."""

import json
import os
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from forms import (
    ARROW,
    FORMS,
    NAMES,
    Handed,
    image_folder,
    make_folder,
    rows_of,
    write_csv,
    write_jsonl,
    write_tar,
)
from PIL import Image
from safetensors.torch import load_file

import robustdiff
from robustdiff.config.images import DataConfig, dataset_in_words
from robustdiff.data import image_cache, reading, shards, stored
from robustdiff.data.decode import short_digest
from robustdiff.data.handed import kept_dataset, save_dataset
from robustdiff.data.registry import load_images
from robustdiff.data.sources import SOURCES, kind_of
from robustdiff.errors import DamagedError
from robustdiff.labels import crossfit
from robustdiff.progress import Report

TINY = {
    "train.steps": 2,
    "train.batch_size": 8,
    "model.channels": [8],
    "model.time_size": 8,
    "sample.steps": 2,
    "data.image_size": 8,
    "data.class_names": ",".join(NAMES),
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("forms") / "photos")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "photos")


class Heard(Report):
    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


def load(path, report=None, **more):
    more = {"image_size": 8, **more}
    config = DataConfig(dataset=kind_of(path), data_dir=str(path), **more)
    return load_images(config, report or Report())


@pytest.fixture(params=FORMS)
def form(request, folder, tmp_path):
    """A folder of images, its name in another form, and where it lies in that."""
    if request.param in ARROW:
        pytest.importorskip("pyarrow")
    return folder, request.param, FORMS[request.param](folder, tmp_path / "out")


def test_every_form_holds_the_same_images(form):
    folder, name, path = form
    expected = load_images(
        DataConfig(dataset="folder", data_dir=str(folder), image_size=8), Report()
    )
    given = {} if name in ("parquet", "arrow") else {"class_names": ",".join(NAMES)}
    found = load(path, **given)
    assert found.class_names == expected.class_names == NAMES
    for part in ("train", "train_labels", "test", "test_labels"):
        assert torch.equal(getattr(found, part), getattr(expected, part)), part
    assert (found.digests, found.test_digests) == (expected.digests, expected.test_digests)
    for path, digest in zip(found.paths, found.digests, strict=True):
        with found.store.open(path) as file:
            content = file.read()
        assert digest == short_digest(content)
    if name not in ("imagefolder", "jsonl"):
        assert found.paths == expected.paths


@pytest.fixture(scope="module")
def weights(photos, tmp_path_factory):
    """Weights after two steps on the folder."""
    settings = {**TINY, "data.dataset": "folder", "data.data_dir": str(photos)}
    del settings["data.class_names"]
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        return weights_of(robustdiff.train("folder-small", settings, out=out))


def weights_of(run):
    return load_file(run.path / "model.safetensors")


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_training_is_bit_equal_whichever_way_the_images_come(form, weights, tmp_path):
    _, _, path = form
    settings = {"data.dataset": kind_of(path), "data.data_dir": str(path), **TINY}
    run = robustdiff.train("folder-small", settings, out=tmp_path / "run")
    assert same(weights_of(run), weights)


@pytest.mark.parametrize("form", ["webdataset", "parquet"], indirect=True)
def test_training_is_bit_equal_with_images_that_stay_in_their_file(
    form, weights, tmp_path, monkeypatch
):
    _, _, path = form
    monkeypatch.setattr(stored, "IN_MEMORY", 0)
    settings = {"data.dataset": kind_of(path), "data.data_dir": str(path), **TINY}
    images = load(path, class_names=settings["data.class_names"])
    assert isinstance(images.train, stored.Stored)
    run = robustdiff.train("folder-small", settings, out=tmp_path / "run")
    assert same(weights_of(run), weights)


@pytest.mark.parametrize("form", ["webdataset", "arrow", "csv"], indirect=True)
def test_training_is_bit_equal_with_images_that_are_decoded_when_used(
    form, weights, tmp_path, monkeypatch
):
    _, _, path = form
    settings = {
        "data.dataset": kind_of(path),
        "data.data_dir": str(path),
        "data.copy": False,
        **TINY,
    }
    run = robustdiff.train("folder-small", settings, out=tmp_path / "run")
    assert same(weights_of(run), weights)
    assert not list((tmp_path / "cache" / "robustdiff").glob("*.npy"))
    # The second start decodes nothing before the steps.
    monkeypatch.setattr(reading, "read_image", None)
    load(path, class_names=settings["data.class_names"], copy=False)


def test_a_run_on_stored_images_grows_within_a_pass_into_one_that_was_long_in_memory(
    folder, tmp_path, monkeypatch
):
    def trained(out, **more):
        place = {"data.dataset": "folder", "data.data_dir": str(folder)}
        own = {key: value for key, value in TINY.items() if key != "data.class_names"}
        return robustdiff.train(
            "folder-small", {**own, **place, "train.batch_size": 4, **more}, out=out
        )

    expected = weights_of(trained(tmp_path / "memory", **{"train.steps": 9}))
    for copy in (True, False):
        with monkeypatch.context() as patch:
            if copy:
                patch.setattr(stored, "IN_MEMORY", 0)
            run = trained(tmp_path / f"copy-{copy}", **{"train.steps": 4, "data.copy": copy})
            robustdiff.resume(run, {"train.steps": 9})
        assert same(weights_of(run), expected)


def test_an_audit_of_images_that_are_decoded_when_used_finds_the_same(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(crossfit, "_SMALL_LEAST", 200)
    settings = {"data.dataset": "folder", "data.data_dir": str(folder), "data.image_size": 8}
    found = [
        robustdiff.audit_images({**settings, "data.copy": copy}, out=tmp_path / f"{copy}")
        for copy in (True, False)
    ]
    first, second = ((tmp_path / f"{copy}" / "label_issues.csv") for copy in (True, False))
    assert len(found) == 2
    assert first.read_bytes() == second.read_bytes()


def test_an_image_that_changes_while_it_is_decoded_again_and_again_is_named(folder):
    images = load(folder, copy=False)
    (folder / images.paths[0]).write_bytes((folder / images.paths[1]).read_bytes())
    with pytest.raises(DamagedError, match=f"image {images.paths[0]} of .* has changed"):
        images.train[0]
    (folder / images.paths[0]).unlink()
    with pytest.raises(DamagedError, match=f"cannot read the image {images.paths[0]} of"):
        images.train[0]
    assert images.train[1].shape == (3, 8, 8)


def test_a_dataset_of_python_trains_the_same_and_its_run_goes_on(folder, weights, tmp_path):
    settings = {key: value for key, value in TINY.items() if key != "data.class_names"}
    second = robustdiff.train(
        None,
        settings,
        dataset=Handed(folder, "train"),
        test_dataset=Handed(folder, "test"),
        out=tmp_path / "b",
    )
    assert same(weights_of(second), weights)
    assert second.labels().class_names == NAMES
    assert second.labels().paths[:2] == ("item-0", "item-1")
    samples = robustdiff.sample(second, classes=[1, "ant"], per_class=2)
    assert samples.class_names == NAMES
    assert samples.labels.tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"arrays has classes 0 to 2, 'ant', .*; got 'gnu'"):
        robustdiff.sample(second, classes=["gnu"])
    robustdiff.resume(second, {"train.steps": 3})
    assert second.config().train.steps == 3


@pytest.mark.parametrize("form", ["webdataset", "parquet"], indirect=True)
def test_the_second_start_decodes_nothing(form, monkeypatch):
    _, _, path = form
    first = load(path)
    monkeypatch.setattr(reading, "read_image", None)
    second = load(path)
    assert torch.equal(first.train, second.train)
    # A shard that has changed is read again.
    changed = next(path.rglob("test-*"))
    changed.touch()
    with pytest.raises(ValueError, match="cannot be read"):
        load(path)


@pytest.mark.parametrize("form", ["webdataset"], indirect=True)
def test_headers_of_shards_are_read_once_and_again_where_a_shard_has_changed(
    form, tmp_path, monkeypatch
):
    _, _, path = form
    scan, scanned = shards._scan, []
    monkeypatch.setattr(shards, "_scan", lambda *a: (scanned.append(a[2]), scan(*a))[1])
    first, every = load(path), sorted(p.relative_to(path).as_posix() for p in path.rglob("*.tar"))
    assert sorted(scanned) == every
    scanned.clear()
    second = load(path)
    assert scanned == []
    assert (first.paths, first.digests) == (second.paths, second.digests)
    assert torch.equal(first.train_labels, second.train_labels)
    changed = path / every[0]
    with tarfile.open(changed, "a") as tar:
        tar.addfile(tarfile.TarInfo("note"))
    load(path)
    assert scanned == every[:1]
    scanned.clear()
    (index,) = (tmp_path / "cache" / "robustdiff").glob("shards-*.json")
    content = index.read_text()
    for damaged in (content[:50], content.replace("512", "513"), "", "\udcff"):
        index.write_text(damaged, errors="surrogateescape")
        assert load(path).digests == first.digests
        assert sorted(scanned) == every
        scanned.clear()
    load(path)
    assert scanned == []
    # Of many bytes together no shard is read for its digest, however small each is.
    sizes = [(path / shard).stat().st_size for shard in every]
    monkeypatch.setattr(image_cache, "_SMALL", sum(sizes) - 1)
    monkeypatch.setattr(image_cache, "_digest", lambda file: pytest.fail(f"{file} was read"))
    load(path)


def test_what_is_read_in_groups_is_not_decoded_image_by_image():
    with pytest.raises(ValueError, match=r"data.copy false \(--no-copy\) .* got dataset 'parquet'"):
        DataConfig(dataset="parquet", copy=False)


def test_a_split_is_drawn_by_name_and_rows_keep_their_order(folder):
    rows = [(file, name) for file, name, _ in rows_of(folder)]
    order = np.random.default_rng(0).permutation(len(rows)).tolist()
    path = write_csv(folder / "labels.csv", [rows[i] for i in order], ("file", "label"))
    images = load(path, split="none")
    assert 0 < len(images.test) < 15
    shuffled = [rows[i][0] for i in order]
    assert list(images.paths) == [file for file in shuffled if file in images.paths]
    again = load(write_csv(folder / "labels.csv", rows, ("file", "label")), split="none")
    assert set(again.paths) == set(images.paths)
    assert len(load(path, whole=True).train) == len(rows)
    # Without a column of splits, folders called train and test are parts as in any folder.
    assert all(file.startswith("train/") for file in load(path).paths)


def test_numbers_are_classes_in_their_order_and_columns_have_any_name(folder):
    rows = [(file, 10 * NAMES.index(name), part) for file, name, part in rows_of(folder)]
    path = write_csv(folder / "l.tsv", rows, ("where", "kind", "use"), "\t")
    columns = {"image_column": "where", "label_column": "kind", "split_column": "use"}
    assert load(path, **columns).class_names == ("0", "10", "20")
    rows = [(file, 2 - NAMES.index(name), part) for file, name, part in rows_of(folder)]
    path = write_csv(folder / "l.tsv", rows, ("where", "kind", "use"), "\t")
    images = load(path, **columns, class_names="cat,bee,ant")
    assert images.class_names == ("cat", "bee", "ant")
    assert images.train_labels[:8].tolist() == [2] * 8
    (folder / "names.txt").write_text("cat\nbee\nant\n")
    assert load(path, **columns, class_names=str(folder / "names.txt")).class_names[0] == "cat"


def test_what_was_chosen_is_said(folder):
    heard = Heard()
    rows = [*rows_of(folder), ("test/ant/000.png", "", "hidden")][:-1]
    extra = [(f"train/{name}/000.png", name, "train") for name in NAMES]
    more = [row for row in rows if row not in extra] + [(f, n, "val") for f, n, _ in extra]
    path = write_csv(folder / "l.csv", more, ("filename", "class", "split"))
    load(path, heard)
    assert heard.lines == [
        "l.csv: 3 classes (ant, bee, cat), 21 images to train on, 9 held out (split 'test')",
        f"{path}: images or their files from column 'filename', labels from column 'class'",
        "left out: 3 images of split 'val' (first: train/ant/000.png)",
    ]


def test_images_that_no_metadata_names_are_left_out(folder, tmp_path):
    out, heard = image_folder(folder, tmp_path / "out"), Heard()
    Image.new("L", (4, 4)).save(out / "train" / "more.png")
    assert len(load(out, heard).train) == 24
    assert heard.lines[1] == "left out: 1 image that no metadata names (train/more.png)"


def test_a_split_without_labels_is_left_out(folder):
    rows = [(f, None if part == "test" else n, part) for f, n, part in rows_of(folder)]
    heard = Heard()
    images = load(write_jsonl(folder / "l.jsonl", rows), heard)
    assert (len(images.train), len(images.test)) == (18, 6)
    assert "9 images of split 'test', which has no labels" in heard.lines[1]


MISTAKES = {
    "no label column": (
        lambda rows: ([row[:1] for row in rows], ("file",)),
        "has one column",
    ),
    "another label column": (
        lambda rows: ([row[:2] for row in rows], ("file", "kind_")),
        r"needs a column of labels, and has 'file', 'kind_'; name it with --label-column",
    ),
    "two label columns": (
        lambda rows: ([(f, n, n) for f, n, _ in rows], ("file", "label", "class")),
        "several columns that may hold labels, 'label', 'class'",
    ),
    "a missing file": (
        lambda rows: ([*rows, ("gone.png", "ant", "train")], None),
        r"1 of the 34 files that .* names cannot be read in .*: 'gone.png'; .*skip",
    ),
    "a row twice": (
        lambda rows: ([*rows, rows[0]], None),
        "every image has one row, but 1 of .* have several: 'train/ant/000.png'",
    ),
    "a path that leaves the folder": (
        lambda rows: ([*rows, ("../x.png", "ant", "train")], None),
        r"1 files in column 'file' of .* lie outside of .*: '../x.png'; --image-root",
    ),
    "an absolute path": (
        lambda rows: ([*rows, ("/etc/x.png", "ant", "train")], None),
        "lie outside of",
    ),
    "no file in a row": (lambda rows: ([*rows, ("", "ant", "train")], None), "data row 34"),
    "no label in a row": (
        lambda rows: ([*rows[:-1], (rows[-1][0], "", "test")], None),
        "1 labels are missing in .*: 'test/cat/002.png'",
    ),
    "labels in a list": (
        lambda rows: ([*rows[:-1], (rows[-1][0], "[0, 1]", "test")], None),
        r"one label, but test/cat/002.png in .* has '\[0, 1\]'; sets of labels",
    ),
    "joined labels": (
        lambda rows: ([*rows[:-1], (rows[-1][0], "ant|bee", "test")], None),
        r"every image must have one label, but .* has 'ant\|bee'",
    ),
    "no rows": (lambda rows: ([], ("file", "label")), "l.csv holds no images"),
    "one class": (
        lambda rows: ([(f, "ant", p) for f, _, p in rows], None),
        "must have labels of at least 2 classes, got 'ant'",
    ),
    "an unknown split": (
        lambda rows: ([(f, n, "all") for f, n, _ in rows], None),
        "needs one split to train on, called train, .* got 'all'; --split none",
    ),
    "no split in a row": (
        lambda rows: ([*rows[:-1], (*rows[-1][:2], "")], None),
        "1 rows of .* have no split",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_manifest_are_one_line_before_the_work(
    photos, tmp_path, mistake, monkeypatch
):
    change, message = MISTAKES[mistake]
    rows, header = change(rows_of(photos))
    path = write_csv(tmp_path / "l.csv", rows, header or ("file", "label", "split"))
    monkeypatch.setattr(reading, "read_image", None)
    with pytest.raises(ValueError, match=message) as caught:
        load(path, image_root=str(photos))
    assert "\n" not in str(caught.value)


def test_json_that_is_no_table_and_names_that_are_no_classes(photos, tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"file": "a.png", "label": 1}\n[1]\n')
    with pytest.raises(ValueError, match=r"line 2 of .* must be an object, got '\[1\]'"):
        load(path)
    path.write_text('{"file": "a.png", "label": 1\n')
    with pytest.raises(ValueError, match=r"line 1 of .* is not JSON"):
        load(path)
    path.write_text('{"file": ["a.png", "b.png"], "label": 1}\n')
    with pytest.raises(ValueError, match="must name one file a row, got several images a row"):
        load(path)
    write_csv(path.with_suffix(".csv"), rows_of(photos))
    with pytest.raises(ValueError, match=r"names of classes, 'ant', 'bee', or all .* got 'cat'"):
        load(path.with_suffix(".csv"), image_root=str(photos), class_names="ant,bee")
    with pytest.raises(ValueError, match="has no column 'no' for --label-column; it has 'file'"):
        load(path.with_suffix(".csv"), image_root=str(photos), label_column="no")


def test_mistakes_of_shards_are_one_line(tmp_path):
    png = b"\x89PNG"
    path = tmp_path / "a.tar"
    for members, message in (
        (
            [("a.png", png), ("a.jpg", png), ("a.cls", b"0")],
            "one image, but sample a of .*'png', 'jpg'",
        ),
        ([("a.png", png)], "a has no label: it has 'png'; a sample needs .cls or .json"),
        ([("a.png", png), ("a.json", b"{")], "a.json is not JSON"),
        ([("a.png", png), ("a.json", b"{}")], "a.json must have one label"),
        ([("a.png", png), ("a.json", b'{"label": [1, 2]}')], "every image must have one label"),
        ([("a.cls", b"0")], "must have one image"),
        (
            [("a.png", png), ("a.cls", b"0"), ("b.png", png), ("b.cls", b"0"), ("a.x", b"")],
            "several places",
        ),
        ([], "holds no images"),
    ):
        write_tar(path, members)
        with pytest.raises(ValueError, match=message):
            load(path)
    write_tar(path, [("a.png", bytes(5000)), ("a.cls", b"0")])
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match="cut off"):
        load(path)
    path.write_bytes(b"no tar")
    with pytest.raises(ValueError, match=r"is no .tar file"):
        load(path)


def test_mistakes_of_parquet_are_one_line(photos, tmp_path):
    pyarrow, parquet = map(pytest.importorskip, ("pyarrow", "pyarrow.parquet"))

    path = tmp_path / "a.parquet"

    def write(**columns):
        parquet.write_table(pyarrow.table(columns), path)

    path.write_bytes(b"no parquet")
    with pytest.raises(ValueError, match="is not a parquet file, or is damaged"):
        load(path)
    write(image=[b"1", b"2"], other=[b"1", b"2"], label=[0, 1])
    with pytest.raises(ValueError, match="several columns of images, 'image', 'other'"):
        load(path)
    write(image=[b"1", b"2"], label=[[0], [0, 1]])
    with pytest.raises(ValueError, match=r"must have one label, but row/0 in .* has '\[0\]'"):
        load(path)
    write(image=[b"1", b"2"], text=["a", "b"])
    with pytest.raises(ValueError, match="needs a column of labels, and has 'image', 'text'"):
        load(path)
    write(image=[b"1"] * 20, label=[0, 1] * 10)
    with pytest.raises(
        ValueError, match=r"20 of the images in .* cannot be read, the first is row/0"
    ):
        load(path)


def test_pyarrow_is_asked_for_by_name(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"pip install 'robustdiff\[parquet\]'"):
        load(tmp_path / "a.parquet")


def test_what_lies_at_a_path_is_found_or_asked(folder, tmp_path):
    assert kind_of(folder) == "folder"
    (folder / "metadata.csv").write_text("file_name,label\n")
    with pytest.raises(ValueError, match="may be imagefolder or folder; say which by --dataset"):
        kind_of(folder)
    with pytest.raises(ValueError, match="there is no file or folder"):
        kind_of(tmp_path / "none")
    (tmp_path / "a.zip").touch()
    with pytest.raises(ValueError, match=r"files of images are .tar or .parquet, .* got .*a.zip"):
        kind_of(tmp_path / "a.zip")
    with pytest.raises(ValueError, match=r"data.label_column goes with dataset manifest"):
        DataConfig(dataset="mnist", label_column="x")


class Items(list):
    """A map-style dataset."""


def test_items_of_python_may_be_arrays_tensors_and_mappings(tmp_path):
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    forms = [
        Image.fromarray(grey),
        grey,
        grey[:, :, None],
        torch.from_numpy(grey)[None],
        torch.from_numpy(grey).float()[None] / 255,
    ]
    items = Items([(image, label) for label in (0, 1) for image in forms * 2])
    items += [{"image": grey, "label": 1}]
    save_dataset(tmp_path / "kept", items)
    assert kind_of(tmp_path / "kept") == "arrays"
    images = load(tmp_path / "kept", image_size=None)
    together = torch.cat([images.train, images.test])
    assert together.shape == (21, 1, 4, 4)
    assert (together == torch.from_numpy(grey)).all()
    assert images.class_names == ("0", "1")
    assert load(tmp_path / "kept", class_names="cat,dog").class_names == ("cat", "dog")
    (tmp_path / "kept" / "images.npy").write_bytes(b"")
    with pytest.raises(ValueError, match="is damaged"):
        load(tmp_path / "kept")


def test_items_are_kept_as_they_come_and_only_the_pixels_of_one_are_held(tmp_path, monkeypatch):
    """Grey images before and after one in colour, and grey ones alone, in pieces of three."""
    monkeypatch.setattr("robustdiff.data.handed._AT_ONCE", 3 * 3 * 4 * 4)
    rng = np.random.default_rng(0)
    grey = [rng.integers(0, 256, (4, 4), dtype=np.uint8) for _ in range(10)]
    colour = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    for name, images, expected in (
        ("grey", grey, np.stack(grey)[:, None]),
        (
            "both",
            [*grey[:5], colour, *grey[5:]],
            np.stack([*[np.stack([i] * 3) for i in grey[:5]], colour.transpose(2, 0, 1),
                      *[np.stack([i] * 3) for i in grey[5:]]]),
        ),
    ):  # fmt: skip
        for _ in range(2):  # what is there is replaced
            save_dataset(tmp_path / name, Items([(image, i % 2) for i, image in enumerate(images)]))
        np.testing.assert_array_equal(np.load(tmp_path / name / "images.npy"), expected)
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            "images.npy", "robustdiff-arrays.json",
        }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"grey", "both"}


def test_a_dataset_is_saved_through_a_link_and_what_it_cannot_read_is_named(tmp_path, monkeypatch):
    class Broken(Items):
        def __getitem__(self, index):
            if index == 3:
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().__getitem__(index)

    items = [(np.full((4, 4), i, np.uint8), i % 2) for i in range(12)]
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    save_dataset(tmp_path / "link", Items(items))
    renamed = []
    monkeypatch.setattr(
        Path, "replace", lambda path, to: renamed.append((path, to)) or os.replace(path, to)
    )
    save_dataset(tmp_path / "link", Items(items))  # within the folder, which may be a disk
    assert all(path.is_relative_to(tmp_path / "link") for pair in renamed for path in pair)
    for name in ("link", "new"):
        with pytest.raises(
            OSError, match=r"^the dataset's item 3 cannot be read: .*reset by peer$"
        ):
            save_dataset(tmp_path / name, Broken(items))
    assert {path.name for path in tmp_path.iterdir()} == {"elsewhere", "link"}
    assert len(load(tmp_path / "link").train) > 0


def test_a_dataset_of_python_is_kept_once_and_what_killed_processes_left_is_removed(
    tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    pictures = [(np.full((4, 4), i, np.uint8), i % 2) for i in range(6)]
    folder = kept_dataset(Items(pictures), None, None)
    written = (folder / "images.npy").stat()
    for name, age in ((".arrays-old", 4000), (".arrays-new", 10)):
        left = folder.parent / name
        left.mkdir()
        (left / "part").touch()
        for path in (left / "part", left):
            os.utime(path, (time.time() - age,) * 2)
    assert kept_dataset(Items(pictures), None, None) == folder
    now = (folder / "images.npy").stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert kept_dataset(Items(pictures[::-1]), None, None) != folder
    assert [path.name for path in folder.parent.glob(".arrays-*")] == [".arrays-new"]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            (np.zeros((4, 4), np.uint8), torch.tensor([0, 1])),
            "one label, .*item 0 is Tensor of shape",
        ),
        ((np.zeros((4, 4), np.uint8), [0, 1]), "one label, .* is list of length 2"),
        ((np.zeros((4, 4), np.uint8), 0, 1), r"must be \(image, label\), but .* tuple of length 3"),
        ((torch.full((1, 4, 4), -1.0), 0), r"floats outside of \[0, 1\]; hand it over without"),
        ((np.zeros((4, 4, 2), np.uint8), 0), "an image must be a PIL image"),
        ((np.zeros((4, 5), np.uint8), 0), "item 0 has 5 x 4 pixels, and images must be squares"),
    ],
)
def test_items_that_are_something_else_are_named(tmp_path, item, message):
    with pytest.raises(ValueError, match=message):
        save_dataset(tmp_path / "kept", Items([item]))
    assert not (tmp_path / "kept").exists()


def test_arrays_that_are_gone_are_asked_for(folder, tmp_path):
    config = DataConfig(dataset="arrays", data_dir=str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"hand it over again with robustdiff.save_dataset"):
        load_images(config, Report())


def test_what_datasets_writes_is_read(folder, tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=[*reversed(NAMES)])}
    )

    def part(name):
        rows = rows_of(folder, (name,))
        columns = {"image": [str(folder / f) for f, _, _ in rows], "label": [n for _, n, _ in rows]}
        return datasets.Dataset.from_dict(columns, features=features)

    both = datasets.DatasetDict({"train": part("train"), "test": part("test")})
    both.save_to_disk(tmp_path / "saved")
    both["train"].to_parquet(tmp_path / "train.parquet")
    expected = load(folder)
    for path in (tmp_path / "saved", tmp_path / "saved" / "train", tmp_path / "train.parquet"):
        found = load(path)
        assert found.class_names == tuple(reversed(NAMES))
        both_parts = torch.cat([found.train, found.test])
        assert len(both_parts) == (33 if path.name == "saved" else 24)
    found = load(tmp_path / "saved")
    assert torch.equal(found.train, expected.train)
    assert torch.equal(2 - found.train_labels, expected.train_labels)
    save_dataset(tmp_path / "handed", both["train"], both["test"], image_size=8)
    handed = load(tmp_path / "handed")
    assert torch.equal(handed.train, expected.train)
    assert handed.class_names == tuple(reversed(NAMES))


def test_what_webdataset_writes_is_read(folder, tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(str(tmp_path / "train-%06d.tar"), maxcount=10, verbose=0) as out:
        for number, (file, name, _) in enumerate(rows_of(folder, ("train",))):
            content = (folder / file).read_bytes()
            out.write({"__key__": f"{number:06}", "png": content, "cls": NAMES.index(name)})
    images = load(tmp_path, class_names=",".join(NAMES), whole=True)
    assert images.class_names == NAMES
    assert torch.equal(images.train, load(folder).train)
    assert images.paths[:2] == ("000000.png", "000001.png")


def test_every_kind_of_source_has_a_name_in_words():
    for kind in (*SOURCES, "arrays"):
        assert "images" in dataset_in_words(kind)
    assert dataset_in_words("cifar10") == "cifar10"


def test_the_card_of_a_run_says_what_its_images_are(photos, tmp_path):
    path = write_csv(tmp_path / "l.csv", rows_of(photos))
    settings = {"data.dataset": "manifest", "data.data_dir": str(path), **TINY}
    run = robustdiff.train(
        "folder-small", {**settings, "data.image_root": str(photos)}, out=tmp_path / "run"
    )
    assert "model of images listed in a table, trained" in (run.path / "README.md").read_text()


@pytest.mark.parametrize("form", [write_csv, write_jsonl])
def test_images_that_a_person_has_removed_are_left_out_of_a_table(folder, form):
    rows = [(*row, "given", False) for row in rows_of(folder)]
    for number in (2, 30):  # one that would be trained on, and one that would be held out
        rows[number] = (*rows[number][:3], "removed", True)
    header, heard = ("file", "label", "split", "decided_by", "removed"), Heard()
    path = form(folder / f"fixed.{form.__name__.removeprefix('write_')}", rows, header)
    (folder / rows[2][0]).unlink()  # such a file need not be there
    images = load(path, heard)
    assert (len(images.train), len(images.test)) == (23, 8)
    assert not {rows[2][0], rows[30][0]} & {*images.paths, *images.test_paths}
    assert "2 images were removed by a person, and are left out" in heard.lines


def test_images_that_a_person_has_removed_are_known_to_the_metadata(folder, tmp_path):
    out, heard = image_folder(folder, tmp_path / "out"), Heard()
    for part in ("train", "test"):
        header, *lines = (out / part / "metadata.csv").read_text().splitlines()
        by = ["removed" if number == 1 else "judge" for number in range(len(lines))]
        lines = [f"{line},{word}" for line, word in zip(lines, by, strict=True)]
        (out / part / "metadata.csv").write_text("\n".join([f"{header},decided_by", *lines]))
    assert len(load(out, heard).train) == 23
    assert heard.lines[1:] == ["2 images were removed by a person, and are left out"]


def test_a_table_must_say_who_decided_in_known_words(folder):
    rows = [(*row, "Removed") for row in rows_of(folder)]
    path = write_csv(folder / "fixed.csv", rows, ("file", "label", "split", "decided_by"))
    with pytest.raises(ValueError, match=r"column decided_by of .* got 'Removed'"):
        load(path)


def test_lines_of_json_end_at_line_feeds_alone(folder):
    text = "one\u2028two\x85three\u2029"
    rows = [
        json.dumps({"file": file, "label": name, "split": part, "text": text}, ensure_ascii=False)
        for file, name, part in rows_of(folder)
    ]
    path = folder / "l.jsonl"
    path.write_text("\r\n".join(rows), encoding="utf-8")
    assert len(load(path).train) == 24


@pytest.mark.parametrize("content", ["{}", "[]", "", "null", '{"_data_files": 1, "splits": {}}'])
@pytest.mark.parametrize("name", ["state.json", "dataset_dict.json"])
def test_files_of_other_programs_beside_class_folders_mean_nothing(folder, name, content):
    (folder / name).write_text(content)
    assert kind_of(folder) == "folder"
    assert len(load(folder).train) == 24
