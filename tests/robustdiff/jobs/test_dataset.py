"""The dataset is the run's: renamed classes, grown, shrunk and changed folders, other arrays."""

import csv
import dataclasses

import numpy as np
import pytest
from commands import TINY, call
from PIL import Image

from robustdiff.config.layers import resolve
from robustdiff.jobs.audit import audit_run
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.train import start_run
from robustdiff.progress import Report
from robustdiff.runs.folder import Run

WORDS = ("--dataset=folder", "--data-dir=photos", "--image-size=8", "--steps=4")


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def issues(run):
    with (run.path / "label_issues.csv").open() as file:
        return list(csv.DictReader(file))


def photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path):
    for label, name in enumerate(("cat", "dog")):
        for i in range(15):
            photo(tmp_path / "photos" / name / f"{i:02d}.png", 100 * label + i)
    return tmp_path / "photos"


@pytest.fixture
def run(photos):
    assert call("train", *WORDS, "--curriculum=pmi", "--out=run", *TINY) == 0
    return Run(photos.parent / "run")


@pytest.mark.parametrize("command", ["eval", "audit", "likelihood", "sweep", "train --resume"])
def test_a_renamed_class_is_refused_by_every_command(command, run, photos, capsys):
    (photos / "cat").rename(photos / "zcat")
    before = sorted(run.path.rglob("*"))
    if command == "train --resume":
        assert call("train", "--resume=run", "--steps=6") == 2
    else:
        assert call(command, "run") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "gone: cat; new: zcat" in said
    assert sorted(run.path.rglob("*")) == before


def test_images_are_generated_of_the_classes_that_were_trained_on(run, photos, capsys):
    """Sampling reads no images, but an earlier version's run has no other record of its classes."""
    (photos / "cat").rename(photos / "zcat")
    assert call("sample", "run", "--per-class=1", "--classes=cat") == 0
    assert [path.name for path in (run.samples / "images").iterdir()] == ["0-cat"]
    run.subject_file.unlink()
    assert call("sample", "run") == 2
    assert "gone: cat; new: zcat" in capsys.readouterr().err.splitlines()[-1]


def test_a_grown_folder_is_audited_without_what_was_added(run, photos, capsys):
    first = issues(run)
    for i in range(3):
        photo(photos / "cat" / f"a{i}.png", 900 + i)
    assert call("audit", "run") == 0
    said = capsys.readouterr().err
    assert "are not among those trained on, and are left out: cat/a" in said
    again = issues(run)
    assert again == first
    assert call("train", "--resume=run", "--steps=6") == 0


def test_a_shrunk_or_changed_folder_is_audited_as_far_as_it_goes_and_not_trained_on(
    run, photos, capsys
):
    labels = run.labels()
    gone, changed = labels.paths[0], labels.paths[-1]
    (photos / gone).unlink()
    photo(photos / changed, 999)
    assert call("audit", "run") == 0
    said = capsys.readouterr().err
    assert f"1 images of photos are gone: {gone}" in said
    assert f"1 images of photos have changed: {changed}" in said
    rows = issues(run)
    assert [row["file"] for row in rows] == list(labels.paths[1:-1])
    assert [int(row["index"]) for row in rows] == list(range(1, len(labels.given) - 1))
    assert [int(row["given_label"]) for row in rows] == labels.given[1:-1].tolist()
    assert call("eval", "run") == 0
    capsys.readouterr()
    assert call("train", "--resume=run", "--steps=6") == 2
    assert "cannot go on without them as they were" in capsys.readouterr().err


def test_a_folder_with_other_files_is_refused(run, photos):
    for path in list(photos.glob("*/*.png")):
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(ValueError, match="holds no image that run"):
        load_run_data(run, run.config(), Report())


def test_every_image_keeps_its_label_whatever_is_added(run, photos):
    config, before = run.config(), load_run_data(run, run.config(), Report())
    for i in range(20):
        photo(photos / "dog" / f"{i:02d}-more.png", 500 + i)
    after = load_run_data(run, config, Report(), whole=True)
    assert after.images.paths == before.images.paths
    assert (after.images.train == before.images.train).all()
    assert (after.images.train_labels == before.images.train_labels).all()
    assert not set(after.images.test_paths) & set(before.images.paths)


def test_other_arrays_are_refused(tmp_path):
    config = resolve({"train": {"steps": 2}, "model": {"channels": [8], "time_size": 8}})
    run = start_run(config, tmp_path / "digits", Report())
    for change in ({"train_size": 500}, {"image_size": 4}):
        other = resolve({"data": change}, {"train": {"steps": 2}, "model": {"channels": [8]}})
        with pytest.raises(ValueError, match=r"was trained on 1347 images|are not those that run"):
            audit_run(run, other, Report())


def test_a_run_from_before_names_were_kept_is_read_by_order(run, photos):
    labels = run.labels()
    assert labels.class_names == ("cat", "dog")
    old = dataclasses.replace(labels, class_names=None, paths=None, digests=None)
    old.save(run.labels_file)
    data = load_run_data(run, run.config(), Report())
    assert (data.labels.given == labels.given).all()
    photo(photos / "cat" / "more.png", 1)
    with pytest.raises(ValueError, match=r"was trained on 24 images|are not those that run"):
        load_run_data(run, run.config(), Report())


def test_a_part_of_a_folder_is_found_again_when_the_folder_grew(photos, capsys):
    words = (*WORDS, "--set=data.train_size=12", "--out=part", *TINY)
    assert call("train", *words) == 0
    run = Run(photos.parent / "part")
    for i in range(9):
        photo(photos / "dog" / f"{i:02d}-more.png", 500 + i)
    data = load_run_data(run, run.config(), Report(), whole=True)
    assert data.images.paths == run.labels().paths
    assert call("audit", "part", "--by=crossfit") == 0
    assert "are left out" not in capsys.readouterr().err


def test_a_run_knows_its_classes_without_the_file_that_named_them(photos, tmp_path, capsys):
    rows = [f"photos/{p.parent.name}/{p.name},{p.parent.name}" for p in photos.glob("*/*.png")]
    (tmp_path / "l.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    words = ("--dataset=manifest", "--data-dir=l.csv", "--class-names=names.txt", *WORDS[2:])
    assert call("train", *words, "--out=run", *TINY) == 0
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert call("train", "--resume=run", "--steps=6") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "in the same order, but from class 0 on run run has 'dog', 'cat'" in said
    assert "l.csv has 'cat', 'dog'" in said
    (tmp_path / "names.txt").unlink()
    assert call("train", "--resume=run", "--steps=6") == 0
    assert call("audit", "run") == 0
    assert Run(tmp_path / "run").labels().class_names == ("dog", "cat")


def test_images_that_are_not_where_a_run_looks_for_them_are_asked_for(run, photos, capsys):
    photos.rename(photos.parent / "elsewhere")
    for words in (("eval", "run"), ("train", "--resume=run", "--steps=6")):
        capsys.readouterr()
        assert call(*words) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert f"there is no file or folder {photos}; say where it is by --data-dir" in said
    assert call("train", "--resume=run", "--steps=6", "--data-dir=elsewhere") == 0
