"""The cache of decoded images: never stale, never half-written, and never in the way."""

import errno
import os
import resource
import shutil
import threading
import time
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustdiff.config.images import DataConfig
from robustdiff.data import decode, image_cache, reading
from robustdiff.data.layout import Layout, Listed, list_folder
from robustdiff.data.registry import load_images
from robustdiff.data.store import files_under
from robustdiff.progress import Report


class Heard(Report):
    """Remembers messages."""

    def __init__(self):
        self.messages = []

    def message(self, text):
        self.messages.append(text)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The folder of the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "robustdiff"


@pytest.fixture
def root(tmp_path):
    """A folder of two classes, whose images have the values 0 to 9 and 20 to 29."""
    for label, name in enumerate(("ant", "bee")):
        for i in range(10):
            write(tmp_path / "d" / name / f"{i}.bmp", 20 * label + i)
    return tmp_path / "d"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), value, dtype=np.uint8)).save(path)


def read_folder(root, size, report):
    return reading.read_source(list_folder(root), files_under(root), size, report)


def load(root, report=None):
    return load_images(DataConfig(dataset="folder", data_dir=str(root)), report or Report())


def values(root, report=None):
    """The value of each image by its path, as it is loaded."""
    folder = read_folder(root, 8, report or Report())
    shown = folder.images[:, 0, 0, 0].tolist()
    return dict(zip((entry.path for entry in folder.listed), shown, strict=True))


def expected(root):
    return {
        str(path.relative_to(root)): int(np.asarray(Image.open(path))[0, 0])
        for path in root.rglob("*.bmp")
    }


def test_the_second_start_decodes_nothing(root, cache, monkeypatch):
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_image", None)
        second = load(root)
        assert torch.equal(first.train, second.train)
        assert (first.paths, first.digests) == (second.paths, second.digests)
    write(root / "ant" / "0.bmp", 250)
    assert 250 in torch.cat([load(root).train, load(root).test])
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_a_damaged_cache_is_made_again(root, cache):
    first = load(root)
    for suffix in ("json", "npy"):
        for path in cache.glob(f"*.{suffix}"):
            path.write_bytes(path.read_bytes()[:20])
        assert torch.equal(load(root).train, first.train)


def test_the_array_is_never_in_memory_while_the_cache_is_built(root, cache, monkeypatch):
    pixels, count = np.arange(3 * 64 * 64).reshape(3, 64, 64).astype(np.uint8), 1500
    monkeypatch.setattr(reading, "is_grey", lambda store, name: False)
    image = decode.Decoded(pixels, "0" * 16, is_dim=False)
    monkeypatch.setattr(reading, "read_image", lambda *_: image._replace(pixels=pixels.copy()))
    names = [f"{i}.png" for i in range(count)]
    layout = Layout(
        ("a", "b"), [Listed(name, i % 2, False) for i, name in enumerate(names)], "", [], []
    )
    monkeypatch.setattr(reading, "file_state", lambda path: os.stat(root))
    monkeypatch.setattr(image_cache, "_SMALL", 0)
    peaks = []
    for _ in range(3):  # threads of other tests may allocate while one of them is measured
        for file in cache.glob("*"):
            file.unlink()
        tracemalloc.start()
        try:
            found = reading.read_source(layout, files_under(root), 64, Report())
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert found.images.shape == (count, 3, 64, 64)
    assert isinstance(found.images, np.memmap)
    assert (found.images[::499] == pixels).all()
    assert np.array_equal(np.load(next(cache.glob("*.npy"))), found.images)
    assert min(peaks) < found.images.nbytes / 2


def test_training_does_not_write_into_the_cache(root):
    images = load(root)
    images.train.zero_()
    assert load(root).train.max() > 0


@pytest.mark.parametrize("small", [0, 2**26])
def test_class_folders_that_change_names_take_their_images_along(root, small, monkeypatch):
    monkeypatch.setattr(image_cache, "_SMALL", small)
    now = time.time_ns()
    for path in root.rglob("*.bmp"):  # the same sizes and times everywhere
        os.utime(path, ns=(now, now))
    assert values(root) == expected(root)
    (root / "ant").rename(root / "x")
    (root / "bee").rename(root / "ant")
    (root / "x").rename(root / "bee")
    after = values(root)
    assert after == expected(root)
    assert after["ant/0.bmp"] == 20


@pytest.mark.parametrize("small", [0, 2**26])
def test_content_of_the_same_size_and_time_is_noticed(root, small, monkeypatch):
    monkeypatch.setattr(image_cache, "_SMALL", small)
    file = root / "ant" / "0.bmp"
    status = file.stat()
    values(root)
    time.sleep(0.02)  # more than a tick of the clock behind st_ctime
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"\x07")
        opened.seek(-64, os.SEEK_END)
        opened.write(bytes([99] * 64))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert values(root)["ant/0.bmp"] == 99


def test_of_a_small_folder_the_content_alone_is_enough(root, monkeypatch):
    """As where a file system keeps neither inodes nor times."""

    def states(path):
        return os.stat_result((0o100644, 1, 1, 1, 0, 0, path.stat().st_size, 0, 0, 0))

    monkeypatch.setattr(reading, "file_state", states)
    values(root)
    write(root / "ant" / "0.bmp", 77)
    assert values(root)["ant/0.bmp"] == 77


def test_images_that_are_mapped_outlive_their_cache(root, cache):
    first = read_folder(root, 8, Report())
    before = first.images.copy()
    for path in root.rglob("*.bmp"):
        write(path, 200)
    assert set(values(root).values()) == {200}
    assert np.array_equal(first.images, before)
    shutil.rmtree(cache)
    assert np.array_equal(first.images, before)


def test_jobs_that_decode_at_once_are_all_right(root, cache):
    ready, found = threading.Barrier(4), []

    def job():
        ready.wait()
        found.append(values(root))

    jobs = [threading.Thread(target=job) for _ in range(4)]
    for each in jobs:
        each.start()
    for each in jobs:
        each.join()
    assert found == [expected(root)] * 4
    assert sorted(path.suffix for path in cache.iterdir()) == [".json", ".npy"]


def test_a_slow_job_does_not_spoil_the_cache_of_a_later_one(root, monkeypatch):
    write_text, later = image_cache.write_text, []

    def slowly(*given):
        if not later:
            later.append(None)
            for path in root.rglob("*.bmp"):
                write(path, 150)
            later[0] = values(root)
        return write_text(*given)

    monkeypatch.setattr(image_cache, "write_text", slowly)
    before = expected(root)
    assert values(root) == before
    assert set(later[0].values()) == {150}
    assert set(values(root).values()) == {150}


def test_what_a_killed_job_left_is_removed_once_it_is_old(root, cache):
    values(root)
    array = next(cache.glob("*.npy"))
    old, young = (cache / f".{array.name}.7-{i}.tmp" for i in range(2))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    write(root / "ant" / "0.bmp", 250)
    values(root)
    assert (old.exists(), young.exists()) == (False, True)


def said(root):
    heard = Heard()
    assert values(root, heard) == expected(root)
    return [line for line in heard.messages if "XDG_CACHE_HOME" in line]


def test_without_a_place_for_the_cache_images_are_decoded_into_memory(root, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", Path("/proc/nowhere")):
        monkeypatch.setenv("XDG_CACHE_HOME", str(place))
        (line,) = said(root)
        assert line.startswith("the decoded images are not kept")
        assert str(place) in line
    monkeypatch.delenv("XDG_CACHE_HOME")

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert "no home folder" in said(root)[0]


@contextmanager
def room_for(size):
    """Let no file grow beyond a size, as if the disk were full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [0, 200, 1400])
def test_a_full_disk_leaves_nothing_and_the_older_cache_as_it_was(root, cache, size):
    with room_for(size):
        heard = said(root)
    assert len(heard) == 1
    assert not list(cache.iterdir())
    values(root)
    held = {path: path.read_bytes() for path in cache.iterdir()}
    write(root / "ant" / "0.bmp", 250)
    with room_for(size):
        assert len(said(root)) == 1
    assert {path: path.read_bytes() for path in cache.iterdir()} == held


def test_without_room_for_the_index_the_array_is_removed(root, cache, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(image_cache, "write_text", full)
    assert "No space left on device" in said(root)[0]
    assert not list(cache.iterdir())


@pytest.mark.parametrize(("number", "is_kept"), [(errno.EIO, False), (errno.EACCES, True)])
def test_failures_that_may_pass_are_not_kept(root, cache, monkeypatch, number, is_kept):
    read_image = reading.read_image

    def fail(store, name, *rest):
        if name.endswith("/0.bmp"):
            raise OSError(number, os.strerror(number), str(store.root / name))
        return read_image(store, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(reading, "read_image", fail)
        assert len(read_folder(root, 8, Report()).bad) == 2
    assert any(cache.iterdir()) == is_kept
    assert bool(read_folder(root, 8, Report()).bad) == is_kept
    os.utime(root / "ant" / "0.bmp")  # as a change of permissions does, it changes st_ctime
    assert len(read_folder(root, 8, Report()).bad) == 0


def test_names_of_any_bytes_are_kept(root, cache, monkeypatch):
    (root / "ant").rename(os.fsdecode(os.fsencode(root) + b"/caf\xe9"))
    place = Path(os.fsdecode(os.fsencode(root.parent) + b"/\xff\n"))
    root.rename(place)
    (place / "bee" / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    first = read_folder(place, 8, Report())
    assert first.bad == [("bee/\udcfe.png", "not an image of a known format")]
    assert first.class_names == ("bee", "caf\udce9")
    monkeypatch.setattr(reading, "read_image", None)
    assert read_folder(place, 8, Report()).bad == first.bad
