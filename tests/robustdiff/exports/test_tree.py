"""A new folder under corrected labels, by links or copies; the original one is not touched."""

import os
from pathlib import Path

import numpy as np
import pytest
from correcting import NAMES, make_folder, snapshot

from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.data.store import files_under
from robustdiff.exports import tree as module
from robustdiff.exports.places import places, places_by_class
from robustdiff.exports.tree import LINKS, write_tree
from robustdiff.progress import Report


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def load(root, *, whole=True):
    data = DataConfig(dataset="folder", data_dir=str(root), image_size=4, whole=whole)
    return load_images(data, Report())


def changes(images, seed=0):
    rng = np.random.default_rng(seed)
    n = len(images.train)
    labels = np.where(rng.random(n) < 0.4, rng.integers(0, len(NAMES), n), images.train_labels)
    return labels, rng.random(n) < 0.15


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_a_tree_holds_what_the_labels_say(tmp_path, link, parts):
    root = make_folder(tmp_path / "photos", parts=parts)
    before, images = snapshot(root), load(root)
    labels, removed = changes(images)
    found, folders = places(images, labels, removed)
    count = write_tree(files_under(root), tmp_path / "new", found, folders, link)
    assert snapshot(root) == before
    again = load(tmp_path / "new")
    assert again.class_names == images.class_names
    assert count == len(again.train) == int((~removed).sum())
    # Every image differs, so its digest tells which one it is.
    wanted = {
        digest: (label, path.split("/")[0] if parts != ("",) else "")
        for digest, label, path, gone in zip(
            images.digests, labels, images.paths, removed, strict=True
        )
        if not gone
    }
    got = {
        digest: (label, path.split("/")[0] if parts != ("",) else "")
        for digest, label, path in zip(
            again.digests, again.train_labels.tolist(), again.paths, strict=True
        )
    }
    assert got == wanted
    some = next((tmp_path / "new").rglob("*.png"))
    assert some.is_symlink() == (link == "soft")
    assert (some.stat().st_nlink > 1) == (link == "hard")


def test_names_stay_and_taken_ones_say_where_they_come_from(tmp_path):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"), each=3)
    (root / "ant" / "sub").mkdir()
    (root / "ant" / "2.png").rename(root / "ant" / "sub" / "x.png")
    images = load(root)
    labels = np.where(images.train_labels == 0, 1, 1)
    found, _ = places(images, labels, np.zeros(len(labels), dtype=bool))
    new = {old: to for old, to in found if old.startswith("ant")}
    assert new == {
        "ant/0.png": "bee/0-from-ant.png",
        "ant/1.png": "bee/1-from-ant.png",
        "ant/sub/x.png": "bee/sub/x.png",
    }


def test_held_out_images_keep_their_places(tmp_path):
    root = make_folder(tmp_path / "photos", each=10)
    images = load(root, whole=False)
    labels = (images.train_labels.numpy() + 1) % len(NAMES)
    found, _ = places(images, labels, np.zeros(len(labels), dtype=bool))
    moved = {old for old, new in found if old != new}
    assert moved == set(images.paths)
    assert len(found) == len(images.paths) + len(images.test_paths)


def test_no_new_path_is_the_path_of_another_image(tmp_path):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"), each=4)
    (root / "bee" / "3.png").rename(root / "bee" / "0-from-ant.png")
    images = load(root)
    swapped = 1 - images.train_labels.numpy()
    found, _ = places(images, swapped, np.zeros(8, dtype=bool))
    new = [to for _, to in found]
    assert len(set(new)) == len(new)
    assert not set(new) & set(images.paths)


@pytest.mark.parametrize("name", ["there", "photos/new", "."])
def test_a_target_that_exists_or_overlaps_is_refused(tmp_path, name):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"))
    (tmp_path / "there").mkdir()
    images = load(root)
    found, folders = places(images, images.train_labels.numpy(), np.zeros(12, dtype=bool))
    before = snapshot(tmp_path)
    with pytest.raises(ValueError, match="choose another folder"):
        write_tree(files_under(root), tmp_path / name, found, folders, "copy")
    assert snapshot(tmp_path) == before


def test_what_fails_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"))
    images = load(root)
    found, folders = places(images, images.train_labels.numpy(), np.zeros(12, dtype=bool))
    before, calls = snapshot(tmp_path), []

    def link(old, new):
        calls.append(new)
        if len(calls) == 5:
            raise OSError(18, os.strerror(18))

    monkeypatch.setattr(module.os, "link", link)
    with pytest.raises(ValueError, match="use --link soft or --link copy"):
        write_tree(files_under(root), tmp_path / "new", found, folders, "hard")
    assert snapshot(tmp_path) == before


def test_names_that_differ_by_case_alone_are_taken(tmp_path):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"), each=3)
    (root / "ant" / "1.png").rename(root / "ant" / "1.PNG")
    (root / "bee" / "2.png").rename(root / "bee" / "1-FROM-ant.png")
    images = load(root)
    found, _ = places(images, np.ones(6, dtype=np.int64), np.zeros(6, dtype=bool))
    new = {old: to for old, to in found if old.startswith("ant")}
    assert new == {
        "ant/0.png": "bee/0-from-ant.png",
        "ant/1.PNG": "bee/1-from-ant-2.PNG",
        "ant/2.png": "bee/2.png",
    }


PARTS = ["validation", "val", "valid", "dev", "eval", "holdout", "test", "Held-Out", "VAL_set"]


@pytest.mark.parametrize("held", PARTS)
def test_a_tree_of_a_table_has_no_part_within_a_class(tmp_path, held):
    root = make_folder(tmp_path / "photos", names=("ant", "bee"), each=6, parts=("training", held))
    files = sorted(path.relative_to(root) for path in root.rglob("*.png"))
    # Folders that say nothing of classes, one of them hidden.
    moved = {file: Path(file.parts[0], f".{held}", "deep", "-".join(file.parts)) for file in files}
    for file, place in moved.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / file).rename(root / place)
    lines = ["file,label", *(f"{place},{file.parts[1]}" for file, place in moved.items())]
    (root / "labels.csv").write_text("\n".join(lines))
    data = DataConfig(dataset="manifest", data_dir=str(root / "labels.csv"), image_size=4)
    images = load_images(data, Report())
    assert len(images.test) == 12
    labels, removed = images.train_labels.numpy(), np.zeros(12, dtype=bool)
    found, folders = places_by_class(images, labels, removed)
    assert {to.split("/")[0] for _, to in found} == {"train", "test"}
    assert {to.split("/")[2] for _, to in found} == {"deep"}
    write_tree(files_under(root), tmp_path / "new", found, folders, "copy")
    for whole in (False, True):
        again = load(tmp_path / "new", whole=whole)
        assert len(again.train) + len(again.test) == 24
    assert sorted(images.test_digests) == sorted(load(tmp_path / "new", whole=False).test_digests)
