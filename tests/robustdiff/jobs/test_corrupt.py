"""Labels written for a folder of images come back to the same images."""

import csv
import json
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from corruptions import NoisyLabels
from robustdiff.config.images import DataConfig
from robustdiff.config.layers import resolve, to_plain
from robustdiff.config.sections import NoiseConfig
from robustdiff.data.registry import load_images
from robustdiff.jobs.checkpoints import _check_saved
from robustdiff.jobs.corrupt import corrupt_source, open_source, write_labels
from robustdiff.labels.given import prepare_labels
from robustdiff.progress import Report

TWELVE = [str(number) for number in range(12)]


class Heard(Report):
    """Keeps what it is told."""

    def __init__(self):
        self.lines = []

    def message(self, text):
        self.lines.append(text)


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def photos(names, root="photos", count=6):
    rng = np.random.default_rng(0)
    for name in names:
        for i in range(count):
            path = Path(root) / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (4, 4)).astype(np.uint8)).save(path)


def opened(path, **more):
    settings = {"key": None, "num_classes": None, "features": None, "report": Report()} | more
    return open_source(Path(path), folder=DataConfig(image_size=4), **settings)


def corrupted(path, out, rate, **more):
    source = opened(path, **more)
    labels = corrupt_source(source, NoiseConfig(rate=rate), seed=0)
    write_labels(Path(out), source, labels)
    return labels


def trained_on(labels, **noise):
    """The labels of a run on the folder, and what was said about them."""
    data = {"dataset": "folder", "data_dir": "photos", "image_size": 4}
    config = resolve({"data": data, "noise": {"labels": str(labels), **noise}})
    heard = Heard()
    return prepare_labels(config, load_images(config.data, Report()), heard), heard.lines


@pytest.mark.parametrize(
    "names",
    [TWELVE, ["1", "2", "3"], ["dog, big", 'dog "big"', "dog;big"], ["nan", "None", "label"]],
)
@pytest.mark.parametrize("rate", [0, 0.4])
def test_what_is_written_is_read(names, rate):
    photos(names)
    made = corrupted("photos", "n", rate)
    assert made.class_names == tuple(sorted(names))
    assert made.paths[0].endswith(".png")
    for name in ("labels.csv", "labels.npz"):
        labels, lines = trained_on(Path("n") / name)
        assert labels.given.tolist() == made.given.tolist()
        assert labels.clean.tolist() == made.clean.tolist()
        assert lines == []
    assert NoisyLabels.load(Path("n/labels.npz")).sha256 == made.sha256


def test_a_carriage_return_in_the_name_of_a_file_is_read():
    photos(["ant", "bee"])
    for name in ("0\r.png", "1\r\r\n.png"):
        Path("photos/ant", name.replace("\r", "").replace("\n", "")).rename(f"photos/ant/{name}")
    made = corrupted("photos", "n", 0.4)
    labels, lines = trained_on("n/labels.csv")
    assert labels.given.tolist() == made.given.tolist()
    assert lines == []


@pytest.mark.parametrize("seed", range(6))
def test_rows_columns_and_delimiters_in_any_order(seed):
    photos(TWELVE)
    made = corrupted("photos", "n", 0.4)
    rng = random.Random(seed)
    with open("n/labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    columns = rng.sample(list(rows[0]), 5)
    for left_out in ([], ["path"], ["index"], ["true_label", "flipped"]):
        with open("again.csv", "w", newline="") as file:
            writer = csv.DictWriter(
                file,
                [name for name in columns if name not in left_out],
                delimiter=rng.choice(",;\t"),
                extrasaction="ignore",
            )
            writer.writeheader()
            writer.writerows(rng.sample(rows, len(rows)))
        labels, lines = trained_on("again.csv")
        assert labels.given.tolist() == made.given.tolist()
        assert len(lines) == ("true_label" in left_out)


def test_labels_of_labels():
    photos(TWELVE)
    made = corrupted("photos", "n", 0.4)
    heard = Heard()
    again = corrupted("n/labels.csv", "m", 0, report=heard, labels_as="names")
    assert again.clean.tolist() == made.given.tolist()
    assert again.class_names == made.class_names
    assert again.paths == made.paths
    assert heard.lines == []
    assert corrupted("n/labels.npz", "o", 0.2).paths == made.paths


def test_the_number_of_classes_is_honoured_or_refused():
    photos(["ant", "bee"])
    assert opened("photos", num_classes=2).class_names == ("ant", "bee")
    with pytest.raises(ValueError, match="photos has 2 classes, got --classes 3"):
        opened("photos", num_classes=3)
    Path("y.csv").write_text("label\n0\n1\n")
    assert opened("y.csv", num_classes=5).class_names == tuple("01234")
    Path("y.csv").write_text("label\nx\ny\n")
    with pytest.raises(ValueError, match="have 2 names, 'x', 'y', so that there are no 5"):
        opened("y.csv", num_classes=5)


def test_guesses_are_said():
    photos(["1", "2", "3"], count=10)
    labels, lines = trained_on(write("label", ["1", "2", "2"] * 8))
    assert labels.given.tolist() == [0, 1, 1] * 8
    assert len(lines) == 2
    assert "settle it with --labels-as names or --labels-as numbers" in lines[0]
    assert "its labels were taken in their order" in lines[1]
    labels, lines = trained_on(write("label", ["1", "2", "2"] * 8), labels_as="numbers")
    assert labels.given.tolist() == [1, 2, 2] * 8
    assert len(lines) == 1


def test_a_checkpoint_may_be_older_than_a_setting():
    config = resolve()
    stored = to_plain(config)
    del stored["noise"]["labels_as"]
    _check_saved({"config": json.dumps(stored), "step": 1}, config, steps=9)
    stored["noise"]["rate"] = 0.9
    with pytest.raises(ValueError, match=r"only .* may change, got noise.rate"):
        _check_saved({"config": json.dumps(stored), "step": 1}, config, steps=9)


def write(name, words):
    Path("y.csv").write_text("\n".join([name, *words]) + "\n")
    return "y.csv"
