"""Folders of images made here: formats, sizes, damage, splits, the cache."""

import hashlib
import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from robustdiff.config.images import DataConfig
from robustdiff.data import reading
from robustdiff.data.layout import list_folder
from robustdiff.data.registry import load_images
from robustdiff.data.store import files_under
from robustdiff.progress import Report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Told(Report):
    """Remembers messages."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def load(root, report=None, **more):
    config = DataConfig(dataset="folder", data_dir=str(root), **more)
    return load_images(config, report or Report())


def read_folder(root, size, report):
    return reading.read_source(list_folder(root), files_under(root), size, report)


def write(path, value=100, size=(12, 10), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.full(size[::-1], value, dtype=np.uint8)).convert(mode)
    picture.save(path)


def classes(root, count=10, names=("ant", "bee"), **more):
    for label, name in enumerate(names):
        for i in range(count):
            write(root / name / f"{i:03}.png", value=20 * label + i, **more)


def test_every_image_lands_in_one_part_with_its_label(tmp_path):
    classes(tmp_path / "d")
    images = load(tmp_path / "d", image_size=8)
    assert images.train.shape == (16, 1, 8, 8)
    assert images.test.shape == (4, 1, 8, 8)
    assert images.train.dtype == torch.uint8
    assert images.class_names == ("ant", "bee")
    assert images.train_labels.tolist() == [0] * 8 + [1] * 8
    assert images.test_labels.tolist() == [0] * 2 + [1] * 2
    values = torch.cat([images.train, images.test])[:, 0, 0, 0].tolist()
    assert sorted(values) == [*range(10), *range(20, 30)]
    expected = [20 * int(path.startswith("bee")) + int(path[4:7]) for path in images.paths]
    assert images.train[:, 0, 0, 0].tolist() == expected


def test_adding_a_file_moves_at_most_one_other(tmp_path):
    classes(tmp_path / "d", count=50)
    before = set(load(tmp_path / "d").paths)
    write(tmp_path / "d" / "ant" / "new.png")
    after = set(load(tmp_path / "d").paths)
    assert len(before - after) <= 1


def test_a_given_split_is_kept(tmp_path):
    classes(tmp_path / "d" / "train", count=3)
    classes(tmp_path / "d" / "val", count=2)
    images = load(tmp_path / "d")
    assert (len(images.train), len(images.test)) == (6, 4)
    assert all(path.startswith("train/") for path in images.paths)
    classes(tmp_path / "d" / "val", count=1, names=("cat",))
    with pytest.raises(ValueError, match="has a class 'cat' that"):
        load(tmp_path / "d")


FORMATS = ("png", "jpg", "bmp", "gif", "webp", "tiff", "ppm")


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_formats_and_modes(tmp_path, mode):
    for i, extension in enumerate(FORMATS):
        for name in ("ant", "bee"):
            write(tmp_path / "d" / name / f"{i}.{extension.upper()}", size=(9 + i, 14), mode=mode)
    images = load(tmp_path / "d", image_size=8)
    # A GIF of grey values is stored with a palette, and so counts as colour.
    assert images.train.shape[1:] == (3, 8, 8)
    assert images.train.float().sub(100).abs().max() <= 3


def test_bad_images_are_refused_or_left_out_by_name(tmp_path):
    classes(tmp_path / "d")
    (tmp_path / "d" / "ant" / "zz.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    whole = (tmp_path / "d" / "bee" / "000.png").read_bytes()
    (tmp_path / "d" / "bee" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "d" / "bee" / "notes.txt").write_text("no image, and does not say so")
    (tmp_path / "d" / ".hidden").mkdir()
    for _ in range(2):  # decoded, then from the cache
        with pytest.raises(ValueError, match=r"2 of the images .* first is ant/zz.png .*skip"):
            load(tmp_path / "d")
        told = Told()
        images = load(tmp_path / "d", told, on_bad_image="skip")
        assert len(images.train) + len(images.test) == 20
        assert not {"ant/zz.png", "bee/cut.png"} & set(images.paths)
        assert told.messages == [
            "d: 2 classes (ant, bee), 18 images to train on, 4 held out "
            "(a fifth of every class, by file name)",
            "left out: 1 hidden folder (.hidden), 1 file of another kind (bee/notes.txt)",
            "left out 2 images that cannot be read: ant/zz.png, bee/cut.png",
        ]


@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere_is_told_never_raised(tmp_path, seed):
    classes(tmp_path / "d", size=(40, 40))
    rng = np.random.default_rng(seed)
    for extension in ("png", "jpg", "gif", "tiff", "bmp", "webp"):
        path = tmp_path / "d" / "ant" / f"bad.{extension}"
        write(path, size=(40, 40))
        content = bytearray(path.read_bytes())
        for place in rng.integers(0, len(content), 8):
            content[place] = rng.integers(256)
        path.write_bytes(content)
    with warnings.catch_warnings(action="ignore"):  # Pillow warns of some damage
        images = load(tmp_path / "d", on_bad_image="skip")
    assert len(images.train) >= 16


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda root: None, "no folder"),
        (lambda root: root.mkdir(), "one folder of images per class, at least 2, got 0"),
        (lambda root: classes(root, names=("ant",)), "at least 2, got 1"),
        (lambda root: classes(root, count=3), "at least 5 images.*'ant' has 3"),
    ],
)
def test_unusable_folders_are_named(tmp_path, make, says):
    make(tmp_path / "d")
    with pytest.raises(ValueError, match=says):
        load(tmp_path / "d")


def test_every_kind_of_bad_file_is_refused_by_name_or_skipped(tmp_path, monkeypatch):
    root = tmp_path / "d"
    classes(root)
    (root / "ant" / "dead.png").symlink_to("gone.png")
    (root / "ant" / "itself.png").symlink_to("itself.png")
    (root / "ant" / "empty.png").touch()
    (root / "ant" / "folder.png").mkdir()
    os.mkfifo(root / "bee" / "pipe.png")
    (root / "bee" / "text.jpg").write_text("no image")
    write(root / "bee" / "locked.png")
    write(root / "bee" / "vanishes.png")
    read_image = reading.read_image

    def read(store, name, *rest):
        path = store.root / name
        if path.name == "locked.png":
            raise PermissionError(13, "Permission denied", str(path))
        if path.name == "vanishes.png":
            path.unlink()
        return read_image(store, name, *rest)

    monkeypatch.setattr(reading, "read_image", read)
    bad = ["ant/dead.png", "ant/empty.png", "ant/folder.png", "ant/itself.png"]
    bad += ["bee/locked.png", "bee/pipe.png", "bee/text.jpg", "bee/vanishes.png"]
    found = read_folder(root, 8, Report())
    assert sorted(path for path, _ in found.bad) == bad
    assert all(reason and str(tmp_path) not in reason for _, reason in found.bad)
    write(root / "bee" / "vanishes.png")
    with pytest.raises(
        ValueError, match=r"8 of the images in .*, the first is ant/\w+.png \(.*skip"
    ):
        load(root)
    write(root / "bee" / "vanishes.png")
    images = load(root, on_bad_image="skip")
    used = [*images.paths, *images.test_paths]
    assert len(used) == len(images.train) + len(images.test) == 20
    assert not set(used) & set(bad)


def test_a_file_that_is_gone_before_it_is_looked_at_is_bad(tmp_path):
    classes(tmp_path / "d")
    layout = list_folder(tmp_path / "d")
    (tmp_path / "d" / "ant" / "000.png").unlink()
    found = reading.read_source(layout, files_under(tmp_path / "d"), 8, Report())
    assert found.bad == [("ant/000.png", "No such file or directory")]


def test_paths_and_digests_stand_beside_the_images(tmp_path):
    classes(tmp_path / "d")
    (tmp_path / "d" / "ant" / "0.png").write_bytes(b"no image")
    for _ in range(2):  # decoded, then from the cache
        images = load(tmp_path / "d", on_bad_image="skip")
        assert len(images.test_paths) == len(images.test) == 4
        assert not set(images.paths) & set(images.test_paths)
        for path, digest in zip(images.paths, images.digests, strict=True):
            content = (tmp_path / "d" / path).read_bytes()
            assert hashlib.sha256(content).hexdigest()[:16] == digest
    part = load(tmp_path / "d", on_bad_image="skip", train_size=8)
    assert dict(zip(part.paths, part.digests, strict=True)).items() <= (
        dict(zip(images.paths, images.digests, strict=True)).items()
    )
    assert part.test_paths == images.test_paths
    digits = load_images(DataConfig(), Report())
    assert digits.paths is digits.test_paths is digits.digests is None


def test_a_camera_s_twelve_bits_in_sixteen_are_said_to_come_out_dark(tmp_path):
    classes(tmp_path / "d")
    pixels = np.full((10, 12), 4000, dtype=np.uint16)
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / "d" / "ant" / f"camera{i}.tif")
    for _ in range(2):  # decoded, then from the cache
        told = Told()
        load(tmp_path / "d", told)
        assert told.messages[1:] == [
            "images that come out dark: 2 (first: ant/camera0.tif); their 16-bit values are all "
            "below 4096, so they may be of 12 bits and not say so"
        ]


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    classes(tmp_path / "home" / "photos")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    images = load_images(DataConfig(dataset="folder", data_dir="~/photos"), Report())
    assert len(images.train) == 16
    with pytest.raises(ValueError, match=r"no usable mnist under .*home/sets"):
        load_images(DataConfig(dataset="mnist", data_dir="~/sets"), Report())
    with pytest.raises(ValueError, match="no folder ~nobody-here/photos"):
        load_images(DataConfig(dataset="folder", data_dir="~nobody-here/photos"), Report())


def test_split_none_reaches_the_folder(tmp_path):
    classes(tmp_path / "d" / "train")
    classes(tmp_path / "d" / "test")
    assert load(tmp_path / "d").class_names == ("ant", "bee")
    assert load(tmp_path / "d", split="none").class_names == ("test", "train")


@pytest.mark.parametrize(
    ("is_split", "pixels"), [(False, "6eb577bf0a77613d"), (True, "4e7f4e5024046721")]
)
def test_images_and_their_order_are_what_they_always_were(tmp_path, is_split, pixels):
    """Recorded before reading was rewritten: the same pixels in the same order."""
    rng = np.random.default_rng(0)
    for part in ("train", "val") if is_split else ("",):
        for name, count in (("ant", 13), ("bee wing", 7), ("Cat", 5)):
            for i in range(count):
                path = tmp_path / "d" / part / name / ("" if i % 4 else "more") / f"IMG_{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                colours = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
                Image.fromarray(colours if i % 2 else colours[..., :3]).save(path)
    images = read_folder(tmp_path / "d", 8, Report()).images
    assert hashlib.sha256(images.tobytes()).hexdigest()[:16] == pixels
