"""Shards that are cut off anywhere, from several writers, and labels of other encodings."""

import io
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from forms import write_tar
from PIL import Image

from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.data.shards import read_shards
from robustdiff.progress import Report


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def members(labels):
    for number, label in enumerate(labels):
        content = io.BytesIO()
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(content, "png")
        yield f"{number:02}.png", content.getvalue()
        yield f"{number:02}.cls", label


def listed(path):
    return read_shards(DataConfig(dataset="webdataset", data_dir=str(path), whole=True))[0].listed


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_shard_that_is_cut_off_anywhere_is_refused(tmp_path, form):
    path, cut = tmp_path / "a.tar", tmp_path / "cut.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in members([b"0", b"1"] * 3):
            # A long name has headers of its own.
            entry = tarfile.TarInfo(f"{'long/' * 18}{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    assert len(listed(path)) == 6
    for size in range(0, end + 512, 128):
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut off|damaged"):
            listed(cut)
    # A header whose bytes were changed ends the members, too.
    cut.write_bytes(whole[:1024] + b"\1" * 512 + whole[1536:])
    with pytest.raises(ValueError, match="cut off or damaged"):
        listed(cut)


def test_shards_of_gnu_tar_are_whole(tmp_path):
    if shutil.which("tar") is None:
        pytest.skip("there is no tar")
    for name, content in members([b"0", b"1"] * 3):
        (tmp_path / name).write_bytes(content)
    names = sorted(path.name for path in tmp_path.glob("0*"))
    subprocess.run(["tar", "-b1", "-cf", "a.tar", *names], cwd=tmp_path, check=True)
    assert len(listed(tmp_path / "a.tar")) == 6


def test_labels_that_are_not_of_utf_8_stay_apart(tmp_path):
    write_tar(tmp_path / "a.tar", members([b"caf\xe9", b"caf\xe8"] * 10))
    config = DataConfig(dataset="webdataset", data_dir=str(tmp_path / "a.tar"), image_size=4)
    for _ in range(2):
        images = load_images(config, Report())
        assert images.class_names == ("caf\udce8", "caf\udce9")
        assert np.bincount(images.train_labels).tolist() == [8, 8]
