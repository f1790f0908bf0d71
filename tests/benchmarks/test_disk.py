import numpy as np
import torch

from benchmarks.disk import CHANNELS, CLASSES, SIDE, compare, write_images, write_shards
from robustdiff.config.images import DataConfig
from robustdiff.data.image_cache import mapped_array
from robustdiff.data.registry import load_images
from robustdiff.progress import Report


def test_images_are_written_once(tmp_path):
    file = write_images(tmp_path, 12)
    written = file.stat()
    assert mapped_array(file).shape == (12, CHANNELS, SIDE, SIDE)
    assert write_images(tmp_path, 12).stat().st_mtime_ns == written.st_mtime_ns


def test_shards_hold_all_classes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", 60)
    images = load_images(
        DataConfig(dataset="webdataset", data_dir=str(tmp_path / "shards")), Report()
    )
    labels = torch.cat([images.train_labels, images.test_labels])
    assert np.bincount(labels).tolist() == [6] * CLASSES


def test_works_are_compared_with_the_first_in_turn():
    order = []
    works = {name: lambda name=name: order.append(name) or 8 for name in "ab"}
    found = compare(works, 2, lambda: order.append("-"))
    assert "".join(order) == "-a-b" * 6
    assert found["images/s"].keys() == {"a", "b"}
    assert found["ratio, wall"]["a"] == found["ratio, CPU"]["a"] == 1
