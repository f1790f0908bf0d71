"""Folders of images made here: formats, sizes, damage, splits, the cache."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from robustdiff.config.sections import DataConfig
from robustdiff.data import folder as folder_module
from robustdiff.data.registry import load_images
from robustdiff.progress import Report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


class Recorder(Report):
    """Remembers messages."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


def load(root, report=None, **more):
    config = DataConfig(dataset="folder", data_dir=str(root), **more)
    return load_images(config, report or Report())


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


def pixel(path, channels=1):
    return folder_module.read_image(path, 4, channels)[:, 0, 0].tolist()


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    Image.fromarray(np.full((6, 6), 257 * 100, dtype=np.uint16)).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == [100]
    Image.fromarray(np.full((6, 6), 0.5, dtype=np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match="no fixed range"):
        pixel(tmp_path / "a.tiff")


def test_transparency_lies_over_white(tmp_path):
    for mode, colour in (("RGBA", (10, 20, 30, 0)), ("LA", (10, 0))):
        Image.new(mode, (6, 6), colour).save(tmp_path / "a.png")
        assert pixel(tmp_path / "a.png", 3) == [255, 255, 255]


def test_cameras_orientation_is_followed(tmp_path):
    upright = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 8, 1).repeat(4, 0))
    exif = Image.Exif()
    exif[0x0112] = 3  # stored upside down
    upright.save(tmp_path / "a.png", exif=exif)
    assert folder_module.read_image(tmp_path / "a.png", 8, 1)[0, 0, 0] == 255


def test_oblong_images_keep_their_proportions(tmp_path):
    pixels = np.zeros((10, 30), dtype=np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (folder_module.read_image(tmp_path / "a.png", 10, 1) == 200).all()


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
        report = Recorder()
        images = load(tmp_path / "d", report, on_bad_image="skip")
        assert len(images.train) + len(images.test) == 20
        assert not {"ant/zz.png", "bee/cut.png"} & set(images.paths)
        assert report.messages == ["left out 2 images that cannot be read: ant/zz.png, bee/cut.png"]


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


def test_the_second_start_decodes_nothing(tmp_path, monkeypatch):
    classes(tmp_path / "d")
    first = load(tmp_path / "d")
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "read_image", None)
        second = load(tmp_path / "d")
        assert torch.equal(first.train, second.train)
        assert first.paths == second.paths
    write(tmp_path / "d" / "ant" / "000.png", value=250)
    assert 250 in torch.cat([load(tmp_path / "d").train, load(tmp_path / "d").test])
    files = sorted(path.suffix for path in (tmp_path / "cache" / "robustdiff").iterdir())
    assert files == [".json", ".npy"]


def test_a_damaged_cache_is_made_again(tmp_path):
    classes(tmp_path / "d")
    first = load(tmp_path / "d")
    for suffix in ("json", "npy"):
        for path in (tmp_path / "cache" / "robustdiff").glob(f"*.{suffix}"):
            path.write_bytes(path.read_bytes()[:20])
        assert torch.equal(load(tmp_path / "d").train, first.train)


def test_training_does_not_write_into_the_cache(tmp_path):
    classes(tmp_path / "d")
    images = load(tmp_path / "d")
    images.train.zero_()
    assert load(tmp_path / "d").train.max() > 0


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
