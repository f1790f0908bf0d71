import csv
import json
import os
import pickle
import shlex
import zipfile
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call
from PIL import Image

SHORT = [*TINY, "--steps=4"]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photos(root, names=("ant", "<b>bee")):
    rng = np.random.default_rng(0)
    for name in names:
        for i in range(20):
            path = Path(root) / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (12, 9, 3)).astype(np.uint8)).save(path)


def test_labels_are_corrupted_written_and_trained_from(capsys):
    from robustdiff.config.images import DataConfig
    from robustdiff.data.registry import load_images
    from robustdiff.progress import Report

    np.save("y.npy", load_images(DataConfig(), Report()).train_labels.numpy())
    assert call("corrupt", "y.npy", "--noise=0.3", "--noise-type=pairflip", "--out=n") == 0
    said = capsys.readouterr().out
    assert "404 of 1347 labels are wrong: 0.2999, expected 0.3000, asked for 0.3" in said
    assert "--labels n/labels.npz and the images of these labels, by --data or --dataset" in said
    assert sorted(path.name for path in Path("n").iterdir()) == [
        "labels.csv",
        "labels.npz",
        "transition.png",
    ]
    assert Path("n/transition.png").read_bytes().startswith(b"\x89PNG")
    with open("n/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["flipped"]) for row in rows) == 404
    assert all((row["given_label"] != row["true_label"]) == int(row["flipped"]) for row in rows)

    assert call("corrupt", "y.npy", "--out=n") == 2
    assert "already holds labels" in capsys.readouterr().err

    assert call("train", "--labels=n/labels.npz", "--curriculum=pmi", "--out=runs/a", *SHORT) == 0
    assert "30.0% pairflip label noise" in capsys.readouterr().err
    with np.load("runs/a/labels.npz") as used, np.load("n/labels.npz") as made:
        assert (used["given"] == made["given"]).all()
        described = [json.loads(str(content["description"])) for content in (used, made)]
        kept = ("noise_type", "rate", "seed", "mode", "convention")
        assert [described[0][name] for name in kept] == [described[1][name] for name in kept]
    assert call("eval", "--num-samples=40", "--json") == 0
    assert json.loads(capsys.readouterr().out)["noise_type"] == "pairflip"


def test_a_folder_of_images_trains_evaluates_and_is_corrupted(capsys):
    photos("photos")
    words = ("--dataset=folder", "--data-dir=photos", "--image-size=8")
    assert call("train", *words, "--curriculum=pmi", "--out=runs/plain", *SHORT) == 0
    assert "32 folder images, labels as they are" in capsys.readouterr().err
    assert call("eval", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["num_samples"] == 8
    assert (result["noise"], result["noise_type"]) == (None, "unknown")
    assert call("sample", "--out=pictures", "--per-class=2") == 0
    with np.load("pictures/samples.npz") as pictures:
        assert pictures["images"].shape == (4, 3, 8, 8)

    noise = ("--noise=0.25", "--noise-type=instance-dependent-unit", "--out=n", "--image-size=8")
    assert call("corrupt", "photos", *noise) == 0
    assert "<b>bee" in capsys.readouterr().out
    with open("n/labels.csv", newline="") as file:
        row = next(csv.DictReader(file))
    assert set(row) == {"index", "path", "given_label", "true_label", "flipped"}
    assert Path("photos", row["path"]).exists()
    assert call("train", *words, "--labels=n/labels.npz", "--out=runs/noisy", *SHORT) == 0
    assert call("corrupt", "photos", *noise[:-2], "--out=m", "--image-size=8", "--no-copy") == 0
    assert Path("m/labels.csv").read_bytes() == Path("n/labels.csv").read_bytes()


def test_the_command_that_corrupt_names_trains_on_the_same_images(capsys):
    photos("my photos/train/train")  # as parts, or as one class
    photos("my photos/train/test", ("cat", "dog"))
    words = ("--image-size=8", "--split=none", "--no-copy")
    assert call("corrupt", "my photos/train", "--out=n", *words) == 0
    named = capsys.readouterr().out.partition("train from it with: robustdiff ")[2].strip()
    assert named == (
        "train 'my photos/train' --image-size 8 --split none --no-copy --labels n/labels.npz"
    )
    assert call(*shlex.split(named), "--dry-run", *SHORT) == 0


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("made",)


def hostile_file():
    with zipfile.ZipFile("evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"clean_label": Hostile()}))


@pytest.mark.parametrize("name", ["labels.csv", "labels.npz", "transition.png"])
def test_files_that_are_there_are_not_replaced(capsys, monkeypatch, name):
    from robustdiff.jobs import corrupt

    Path(name).write_text("label\n0\n1\n")
    monkeypatch.setattr(corrupt, "open_source", lambda *a, **k: pytest.fail("the work has begun"))
    assert call("corrupt", "labels.csv", "--noise=0.4", "--out=.") == 2
    assert capsys.readouterr().err == f"robustdiff: . already holds {name}; choose another --out\n"
    assert Path(name).read_text() == "label\n0\n1\n"
    assert call("corrupt", "labels.csv", f"--out={name}/n") == 2
    assert f"{name} is no folder, so {name}/n cannot be one" in capsys.readouterr().err
    Path("link").symlink_to("nowhere")
    assert call("corrupt", "labels.csv", "--out=link") == 2


INSTANCE = ("--noise-type=instance-dependent-01",)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["corrupt", "none.npy", "--out=n"], "there is no label file none.npy"),
        (["corrupt", "evil.pt", "--out=n"], "is refused"),
        (["train", "--labels=evil.pt"], "is refused"),
        (["train", "--labels=y.npy"], "4 labels, but there are 1347 samples"),
        (["train", "--labels=y.npy", "--noise=0.3"], "takes the place of drawn noise"),
        (["train", "--labels-key=k"], "noise.labels_key goes with noise.labels"),
        (["train", "--class-map=mnist"], "goes with noise.type = 'asymmetric'"),
        (["train", "--dataset=folder", "--data-dir=none"], "there is no folder none"),
        (["train", "--image-size=0"], "data.image_size must be at least 1, got 0"),
        (["corrupt", "y.npy", "--out=n", "--noise=2"], "must be in [0, 1], got 2"),
        (["corrupt", "y.npy", "--out=n", "--noise-type=gaussian"], "unknown noise type"),
        (["corrupt", "y.npy", "--out=n", "--classes=2"], "must be in [0, 2), got 2"),
        (["corrupt", "y.npy", "--out=n", "--noise-type=instance-dependent-01"], "got none"),
        (["corrupt", "y.npy", "--out=n", *INSTANCE, "--features=none.npy"], "cannot read features"),
        (["corrupt", "y.npy", "--out=n", *INSTANCE, "--features=x.npy"], "in [0, 1] by 255"),
        (["corrupt", "y.npy", "--out=n", "--features=y.npy"], "got noise type 'symmetric'"),
        (["corrupt", "y.npy", "--out=n", "--no-copy"], "--no-copy is for images, which y.npy is"),
        (
            ["corrupt", "y.npy", "--out=n", "--image-size=8", "--split=none"],
            "--image-size, --split are for images, which y.npy is not",
        ),
        (
            ["corrupt", "p", "--out=n", "--key=a", "--labels-as=names", "--features=y.npy"],
            "--key, --labels-as, --features are for label files, which p is not",
        ),
        (["corrupt", "y.npy", "--out=n", "--labels-as=names"], "it needs no --labels-as"),
        (["corrupt", "gaps.csv", "--out=n"], "has 3 numbers up to 10, but no 1: give --labels-as"),
        (["corrupt", "large.csv", "--out=n"], "has 2 numbers up to 300001, but no 0: give"),
        (["corrupt", "large.csv", "--out=n", "--classes=300002"], "at most 10000 classes"),
        (["corrupt", "y.npy", "--out=y.npy"], "y.npy is no folder; choose another"),
    ],
)
def test_bad_input_is_one_line(capsys, words, says):
    np.save("y.npy", np.array([0, 1, 2, 1]))
    np.save("x.npy", np.full((4, 2), 0.5))
    Path("p").mkdir()
    Path("gaps.csv").write_text("label\n0\n5\n10\n5\n")
    Path("large.csv").write_text("label\n300000\n300001\n")
    hostile_file()
    assert call(*words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not Path("made").exists()
    assert not Path("n").exists()
    assert not Path("runs").exists()
