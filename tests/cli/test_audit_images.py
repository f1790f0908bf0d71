"""An audit of images that no model is trained on: what it writes, refuses, and takes up again."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call
from PIL import Image

from robustdiff.config.layers import resolve
from robustdiff.jobs import audit as module
from robustdiff.jobs.audit import audit_images
from robustdiff.progress import Report
from robustdiff.review.suspects import read_suspects
from robustdiff.runs.folder import Run

NAMES = ["plain", 'with "quotes"', "<u>", "two\nlines", "=cat"]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def photos():
    """A folder of 5 classes, 40 files each, the first 4 of every class from the next one."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(NAMES):
        folder = Path("photos", name)
        folder.mkdir(parents=True)
        for i in range(40):
            level = 50 * ((label + (i < 4)) % 5)
            pixels = rng.integers(level, level + 40, (8, 8), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{i}.png")
    return Path("photos")


def read(folder):
    with (folder / "label_issues.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_all_images_of_a_folder_are_judged_and_named(photos, capsys):
    assert call("audit", photos, "--image-size=8") == 0
    said, rows = capsys.readouterr().out, read(Path("audits/photos"))
    assert len(rows) == 200
    assert {row["given_name"] for row in rows} == set(NAMES)
    found = {row["file"] for row in rows if row["issue"] == "label"}
    wrong = {f"{name}/{i}.png" for name in NAMES for i in range(4)}
    assert len(found & wrong) >= 16
    assert len(found - wrong) <= 4
    as_is = [
        row["predicted_name"] == NAMES[(NAMES.index(row["given_name"]) + 1) % 5]
        for row in rows
        if row["file"] in found & wrong
    ]
    assert sum(as_is) >= 16
    summary = json.loads(Path("audits/photos/label_issues.json").read_text())
    assert (summary["images"], summary["issues"]) == (200, len(found))
    assert f"{len(found)} of 200 labels look wrong" in said
    page = Path("audits/photos/audit.html").read_text()
    assert "<u>" not in page
    assert not Path("audits/photos/tb").exists()


def test_where_and_how_precisely_it_computes_can_be_said(photos, capsys):
    np.save("p.npy", np.repeat(np.eye(5), 40, axis=0) + 0.1)
    words = ("audit", photos, "--image-size=8", "--judge-probs=p.npy")
    assert call(*words, "--device=cpu", "--precision=fp32") == 0
    train = Run(Path("audits/photos")).config().train
    assert (train.device, train.precision) == ("cpu", "fp32")
    assert call("audit", photos, "--image-size=8", "--device=tpu") == 2
    assert "Input should be 'auto', 'cpu' or 'cuda', got 'tpu'" in capsys.readouterr().err


def test_the_same_command_reports_again_and_another_one_is_refused(photos, capsys, monkeypatch):
    words = ("audit", photos, "--image-size=8", "--out=found")
    assert call(*words) == 0
    first = Path("found/label_issues.csv").read_bytes()
    monkeypatch.setattr(module, "crossfit", None)
    assert call(*words) == 0
    assert Path("found/label_issues.csv").read_bytes() == first
    assert call("audit", "found") == 0
    capsys.readouterr()
    assert call(*words, "--judge-folds=3") == 2
    said = capsys.readouterr().err
    assert "differs in judge.folds" in said
    assert said.endswith("choose another --out, or name the audit: robustdiff audit found\n")
    assert call("audit", photos, "--out=photos") == 2
    assert "photos already exists; choose another --out" in capsys.readouterr().err
    assert not Path("photos/config.json").exists()


def test_another_folder_of_the_same_name_is_not_audited_over_the_first(photos, capsys):
    np.save("p.npy", np.repeat(np.eye(5), 40, axis=0) + 0.1)
    words = ("--image-size=8", "--judge-probs=p.npy")
    assert call("audit", photos, *words) == 0
    first = Path("audits/photos/label_issues.csv").read_bytes()
    shutil.copytree(photos, "b/photos")
    capsys.readouterr()
    assert call("audit", "b/photos", *words) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "audits/photos is the audit of photos, not of b/photos; choose another --out" in said
    assert Path("audits/photos/label_issues.csv").read_bytes() == first
    photos.rename("moved")
    assert call("audit", "moved", *words, "--out=audits/photos") == 0
    assert Path("audits/photos/label_issues.csv").read_bytes() == first


def test_audits_and_runs_made_within_the_images_are_no_classes(photos, monkeypatch, capsys):
    monkeypatch.chdir(photos)
    np.save("p.npy", np.repeat(np.eye(5), 40, axis=0)[:, [2, 1, 0, 4, 3]] + 0.1)
    for _ in range(2):
        assert call("audit", ".", "--image-size=8", "--judge-probs=p.npy") == 0
        said = capsys.readouterr()
    assert "of 200 labels look wrong" in said.out
    assert "1 folder of runs (audits)" in " ".join(said.err.split())
    words = ["train", ".", "--image-size=8", "--curriculum=uniform", "--steps=1", *TINY]
    words += ["--set=train.batch_size=8", "--set=train.sample_every=1"]
    assert call(*words) == 0
    assert list(Path("runs").glob("*/samples/*.png"))
    assert call("train", "--resume=latest", "--steps=2") == 0
    assert call(*words, "--out=again") == 0
    for run in (*Path("runs").iterdir(), Path("again")):
        assert len(Run(run).labels().given) == 160
        assert Run(run).labels().class_names == tuple(sorted(NAMES))


def test_an_interrupted_audit_goes_on_with_the_classifier_it_was_at(photos, monkeypatch):
    config = resolve(
        {"data": {"dataset": "folder", "data_dir": str(photos), "image_size": 8, "whole": True}},
        {"curriculum": {"name": "crossfit"}},
    )
    whole = audit_images(config, Path("whole"), Report())[1]
    steps = []

    class Stops(Report):
        def progress(self, stage, done, total, note=""):
            steps.append((stage, done))
            if stage == "judging the labels" and done > 0.6 * total:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit_images(config, Path("again"), Stops())
    again = audit_images(config, Path("again"), Report())[1]
    np.testing.assert_array_equal(again.scores, whole.scores)
    assert not Path("again/unfinished").exists()


def test_copies_between_the_parts_of_a_folder_and_strange_images_are_found(photos, capsys):
    for name in NAMES:
        for part, numbers in (("test", range(30, 40)), ("train", range(30))):
            Path("parts", part, name).mkdir(parents=True)
            for i in numbers:
                Path("photos", name, f"{i}.png").rename(Path("parts", part, name, f"{i}.png"))
    plain = Path("parts/train/plain")
    copy = Path("parts/test/plain/copy.png")
    copy.write_bytes((plain / "20.png").read_bytes())
    Path("parts/test/<u>/other.png").write_bytes((plain / "21.png").read_bytes())
    stripes = np.zeros((8, 8), dtype=np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(plain / "stripes.png")
    assert call("audit", "parts", "--image-size=8", "--judge-effort=quick") == 0
    said = capsys.readouterr().out
    assert "1 near-duplicate, 2 duplicate-other-label, 4 across parts" in said
    rows = {row["file"]: row for row in read(Path("audits/parts"))}
    assert rows["test/plain/copy.png"]["duplicate_of"] == "train/plain/20.png"
    assert rows["test/plain/copy.png"]["issue"] == "near-duplicate"
    assert rows["train/plain/20.png"]["issue"] == ""
    pair = ["train/plain/21.png", "test/<u>/other.png"]
    for one, two in (pair, pair[::-1]):
        assert rows[one]["duplicate_of"] == two
        assert "duplicate-other-label" in rows[one]["issue"].split(";")
    scores = {file: float(row["off_topic_score"]) for file, row in rows.items()}
    assert max(scores, key=scores.__getitem__) == "train/plain/stripes.png"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["photos", "--dataset=digits"], "photos holds images already"),
        (["none", "--out=x"], "none is no folder or file of images"),
        (["none"], "none is not a run"),
        (["photos/plain"], "must hold one folder of images per class"),
        (["--dataset=digits", "--noise=2"], "noise.rate"),
        (["photos", "--image-size=8", "--labels=none.csv"], "none.csv"),
        (["photos", "--image-size=8", "--judge-probs=none.npy"], "none.npy"),
    ],
)
def test_what_cannot_be_audited_is_refused_before_the_work(photos, words, said, capsys):
    assert call("audit", *words) == 2
    assert said in capsys.readouterr().err
    assert not Path("audits").exists()
    assert not Path("x").exists()


def test_a_run_keeps_its_own_labels_and_an_audit_trains_no_model(photos, capsys):
    assert call("audit", "--dataset=digits", "--noise=0.3", "--judge-effort=quick") == 0
    capsys.readouterr()
    assert call("audit", "audits/digits", "--noise=0.2") == 2
    assert "a run has its own images and labels" in capsys.readouterr().err
    assert call("train", "--resume=audits/digits") == 2
    assert "can be audited, not trained on" in capsys.readouterr().err
    assert call("train", "--set=data.whole=true") == 2
    assert "can be audited, not trained on" in capsys.readouterr().err


def test_a_carriage_return_in_the_name_of_a_file_is_written_so_that_it_is_read(photos):
    for name in NAMES:
        (photos / name / "0.png").rename(photos / name / "0\r.png")
    np.save("p.npy", 0.9 * np.eye(5)[np.repeat(np.arange(5), 40)] + 0.02)
    assert call("audit", photos, "--image-size=8", "--judge-probs=p.npy") == 0
    run = Run(Path("audits/photos"))
    assert [row["file"] for row in read(run.path)] == list(run.labels().paths)
    assert len(read_suspects(run, run.labels(), tuple(sorted(NAMES)))) == 200
