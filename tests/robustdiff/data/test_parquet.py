"""Images within tables: which column, which files beside them, whose names of classes."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.data.sources import kind_of
from robustdiff.progress import Report

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def png(value):
    content = io.BytesIO()
    Image.new("L", (4, 4), value).save(content, "png")
    return content.getvalue()


def load(path, **more):
    config = DataConfig(dataset=kind_of(path), data_dir=str(path), image_size=4, **more)
    return load_images(config, Report())


def brightness(images):
    return [int(image.max()) for image in torch.cat([images.train, images.test])]


IMAGE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def table(columns, names=None, kind=IMAGE):
    """A table as the hub has it; `names` are those of the classes of each column."""
    features = {
        column: {"_type": "ClassLabel", "names": [*its]} for column, its in (names or {}).items()
    }
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    fields = [(name, kind if name in ("image", "mask") else pyarrow.int64()) for name in columns]
    return pyarrow.table(columns, schema=pyarrow.schema(fields, metadata=about))


@pytest.mark.parametrize("kind", ["bytes", "paths"])
def test_the_images_are_those_of_the_column_that_is_asked_for(tmp_path, kind):
    def column(first):
        pictures = [png(first + number) for number in range(20)]
        if kind == "bytes":
            return pictures
        return [{"bytes": one, "path": f"{n}.png"} for n, one in enumerate(pictures)]

    columns = {"image": column(10), "mask": column(110), "label": [0, 1] * 10}
    path = tmp_path / "two.parquet"
    parquet.write_table(table(columns, kind=pyarrow.binary() if kind == "bytes" else IMAGE), path)
    for name, first in (("image", 10), ("mask", 110), ("image", 10)):
        found = brightness(load(path, image_column=name, whole=True))
        assert found == [first + number for number in range(20)]


def _save(folder, part, columns, **names):
    """Write a part of a table as an arrow file of `save_to_disk`."""
    place, content = folder / part, table(columns, names)
    place.mkdir(parents=True)
    with pyarrow.ipc.new_stream(place / "a.arrow", content.schema) as file:
        file.write_table(content)
    (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "a.arrow"}]}))


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_an_image_that_a_row_only_names_is_read_again_once_its_file_has_changed(tmp_path, form):
    home = tmp_path / "data"
    rows = [{"bytes": None, "path": f"{n}.png"} for n in range(10)]
    rows += [{"bytes": png(100 + n), "path": f"{10 + n}.png"} for n in range(10)]
    columns = {"image": rows, "label": [0, 1] * 10}
    if form == "arrow":
        _save(tmp_path, "data", columns)
    else:
        home.mkdir()
        parquet.write_table(table(columns), home / "a.parquet", row_group_size=5)
    for number in range(10):
        (home / f"{number}.png").write_bytes(png(number))
    assert brightness(load(home, whole=True)) == [*range(10), *range(100, 110)]
    (home / "3.png").write_bytes(png(33))
    assert brightness(load(home, whole=True))[3] == 33
    (home / "4.png").unlink()
    with pytest.raises(ValueError, match=r"1 of the images in .*first is 4.png \(No such file"):
        load(home, whole=True)


def test_splits_may_have_other_columns_and_names_where_no_label_is(tmp_path):
    home, rows = tmp_path / "data", [{"bytes": png(n), "path": f"{n}.png"} for n in range(20)]
    own = {"image": rows, "label": [0, 1] * 10}
    _save(home, "train", own | {"annotator": [5] * 20}, label="ab")
    _save(home, "test", dict(reversed(own.items())), label="ab")
    _save(home, "unlabelled", own | {"label": [-1] * 20}, label="x")
    splits = {"splits": ["train", "test", "unlabelled"]}
    (home / "dataset_dict.json").write_text(json.dumps(splits))
    images = load(home)
    assert images.class_names == ("a", "b")
    assert (len(images.train), len(images.test)) == (20, 20)


def test_fractions_of_few_bits_keep_their_short_names(tmp_path):
    rows = [{"bytes": png(n), "path": f"{n}.png"} for n in range(20)]
    content = table({"image": rows, "label": [0, 1] * 10})
    short = pyarrow.array([0.1, 0.2] * 10, pyarrow.float32())
    parquet.write_table(content.set_column(1, "label", short), tmp_path / "few.parquet")
    assert load(tmp_path / "few.parquet", whole=True).class_names == ("0.1", "0.2")


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_parts_whose_classes_have_other_names_or_another_order_are_refused(tmp_path, form):
    home, rows = tmp_path / "data", [{"bytes": png(n), "path": f"{n}.png"} for n in range(20)]
    columns = {"image": rows, "label": [0, 1, 2, 3] * 5}
    if form == "arrow":
        _save(home, "train", columns, label="wxyz")
        _save(home, "test", columns, label="wzyx")
        (home / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    else:
        home.mkdir()
        parquet.write_table(table(columns, {"label": "wxyz"}), home / "train.parquet")
        parquet.write_table(table(columns, {"label": "wzyx"}), home / "test.parquet")
    with pytest.raises(ValueError, match="the same in the same order, but from class 1 on"):
        load(home)


def test_the_names_of_the_classes_are_those_of_the_label_column(tmp_path):
    path, rows = tmp_path / "a.parquet", [{"bytes": png(n), "path": None} for n in range(20)]
    columns = {"image": rows, "domain": [0] * 20, "label": [0, 1] * 10}
    parquet.write_table(table(columns, {"domain": "pq", "label": "xy"}), path)
    assert load(path, label_column="label").class_names == ("x", "y")


def test_labels_that_are_fractions_stay_apart(tmp_path):
    for values in ([1234567.0, 1234568.0], [0.1234567, 0.1234568]):
        labels = pyarrow.array(values * 10, pyarrow.float64())
        images = pyarrow.array([png(n) for n in range(20)])
        parquet.write_table(
            pyarrow.table({"image": images, "label": labels}), tmp_path / "a.parquet"
        )
        found = load(tmp_path / "a.parquet")
        assert found.class_names == tuple(str(v).removesuffix(".0") for v in values)
        assert np.bincount(found.train_labels).tolist() == [8, 8]


def test_damaged_files_are_named(tmp_path):
    rows = [{"bytes": png(n), "path": f"{n}.png"} for n in range(20)]
    path, damaged = tmp_path / "a.parquet", tmp_path / "damaged.parquet"
    parquet.write_table(table({"image": rows, "label": [0, 1] * 10}), path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for content in (
        whole[:footer] + b"\xff" * 40 + whole[footer + 40 :],  # what pyarrow raises OSError for
        whole[:100],
        whole[:4] + b"\xff" * (footer - 4) + whole[footer:],  # the pages
    ):
        damaged.write_bytes(content)
        config = DataConfig(dataset="parquet", data_dir=str(damaged), image_size=4)
        with pytest.raises(ValueError, match=f"{damaged} is not a parquet file, or is damaged"):
            load_images(config, Report())
    damaged.write_bytes(whole[:footer] + b"\xff" * 40 + whole[footer + 40 :])
    with pytest.raises(ValueError, match=f"{damaged} is not a parquet file, or is damaged"):
        kind_of(damaged)
    manifest = DataConfig(dataset="manifest", data_dir=str(damaged), image_size=4)
    with pytest.raises(ValueError, match=f"{damaged} is not a parquet file, or is damaged"):
        load_images(manifest, Report())


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("train/state.json", '{"_data_files": ["a.arrow"]}', "do not all have a filename"),
        ("train/state.json", '{"_data_files": [{}]}', "do not all have a filename"),
        ("train/state.json", "[]", "has no list '_data_files'"),
        ("train/state.json", "{", "cannot read it"),
        ("train/state.json", None, "cannot read it"),
        ("dataset_dict.json", '{"splits": [1]}', "are not names"),
        ("dataset_dict.json", '{"splits": "train"}', "has no list 'splits'"),
        ("dataset_dict.json", '{"splits', "cannot read it"),
    ],
)
def test_what_save_to_disk_has_written_and_somebody_has_damaged_is_named(
    tmp_path, name, content, says
):
    home = tmp_path / "data"
    _save(home, "train", {"image": [{"bytes": png(0), "path": "0.png"}], "label": [0]})
    (home / "dataset_dict.json").write_text(json.dumps({"splits": ["train"]}))
    (home / name).unlink() if content is None else (home / name).write_text(content)
    assert kind_of(home) == "arrow"
    file = (home / name).name
    with pytest.raises(ValueError, match=f"or is damaged: {file}: .*{says}") as caught:
        load(home)
    assert "\n" not in str(caught.value)
