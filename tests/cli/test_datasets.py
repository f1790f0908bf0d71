"""Every dataset by the same commands, at its own size, in grey and in colour; made here, tiny."""

import base64
import csv
import gzip
import hashlib
import io
import json
import math
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision import datasets

from robustdiff.classifiers import noisy_image
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.metrics import evaluator
from robustdiff.progress import Report

SHORT = [
    *TINY,
    "--set=model.patch_size=4",
    "--set=train.batch_size=32",
    "--curriculum=pmi",
    "--noise=0.2",
    "--epochs=2",
]


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(evaluator, "_SEEN", {False: 1000, True: 1000})


def pictures(count, size, channels, seed):
    """Images whose class, i mod 10, is a row of light; in colour, its hue too."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 10
    images = rng.integers(0, 60, (count, size, size, channels), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[2 * label : 2 * label + 3, :, label % channels] = 255
    return images, labels


def fashion_mnist(root):
    raw = root / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for seed, (part, count) in enumerate((("train", 360), ("t10k", 40))):
        images, labels = pictures(count, 28, 1, seed)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, count)
        content = header + labels.astype(np.uint8).tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(content)
        for name in ("images-idx3", "labels-idx1"):
            path = raw / f"{part}-{name}-ubyte"
            path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes()))


def cifar10(root, monkeypatch):
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data, usedforsecurity=False).hexdigest()

    def batch(name, count, seed):
        images, labels = pictures(count, 32, 3, seed)
        rows = images.transpose(0, 3, 1, 2).reshape(count, -1)
        return [name, write(name, {"data": rows, "labels": labels.tolist()})]

    train = [batch(f"data_batch_{i}", 30, i) for i in range(1, 6)]
    names = [f"kind {i}" for i in range(10)]
    meta = {"filename": "batches.meta", "key": "label_names"}
    meta["md5"] = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", train)
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", 40, 9)])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)


def colour_folder(root):
    images, labels = pictures(160, 40, 3, 0)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = root / f"kind {label}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)


@pytest.fixture(params=["fashion-mnist", "cifar10", "folder"])
def dataset(request, tmp_path, monkeypatch):
    """Name of a dataset and the shape of its images; it lies in the folder `data`."""
    root = tmp_path / "data"
    if request.param == "cifar10":
        cifar10(root, monkeypatch)
    else:
        {"fashion-mnist": fashion_mnist, "folder": colour_folder}[request.param](root)
    return request.param, (1, 28, 28) if request.param == "fashion-mnist" else (3, 32, 32)


def test_images_and_labels_are_those_of_the_files(dataset):
    name, shape = dataset
    size = 32 if name == "folder" else None
    images = load_images(DataConfig(dataset=name, data_dir="data", image_size=size), Report())
    assert tuple(images.train.shape[1:]) == tuple(images.test.shape[1:]) == shape
    assert images.num_classes == 10
    for pixels, labels in ((images.train, images.train_labels), (images.test, images.test_labels)):
        # The brightest row and channel tell the class.
        row = (pixels.float() * shape[1] / (40 if name == "folder" else shape[1])).amax(1).mean(2)
        scale = 40 / 32 if name == "folder" else 1
        brightest = row.argmax(1).double() * scale
        assert ((brightest - 2 * labels).abs() <= 3).all()
        channel = pixels.float().mean((2, 3)).argmax(1)
        assert (channel == labels % shape[0]).all()


def colours(image):
    """How far the channels of (H, W, 3) pixels differ."""
    return int(np.ptp(np.asarray(image.convert("RGB")).astype(int), axis=2).max())


@pytest.mark.parametrize(
    "dataset",
    [
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("fashion-mnist", "cifar10")),
        "folder",
    ],
    indirect=True,
)
def test_train_sample_eval_and_audit(dataset, capsys):
    name, shape = dataset
    run = Path("runs/one")
    assert call("train", f"--dataset={name}", "--data-dir=data", f"--out={run}", *SHORT) == 0
    assert call("sample", run, "--per-class=2") == 0
    capsys.readouterr()
    assert call("eval", run, "--num-samples=20", "--json") == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["dataset"], figures["num_samples"]) == (name, 20)
    with np.load(run / "samples" / "samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (20, *shape)
    # The few steps of the run need not find a suspect; classifiers of so plain pictures do.
    assert call("audit", run, "--by=crossfit", "--judge-effort=quick", "--judge-folds=2") == 0

    is_colour = shape[0] == 3
    board = EventAccumulator(str(run / "tb"), size_guidance={"images": 0}).Reload()
    grid = board.Images("samples/one_column_per_class")[-1].encoded_image_string
    least = board.Images("trust/least_trusted")[-1].encoded_image_string
    page = (run / "audit.html").read_text()
    suspects = [base64.b64decode(code) for code in re.findall(r"base64,([^\"']+)", page)]
    small = [image for png in suspects if (image := Image.open(io.BytesIO(png))).size == shape[1:]]
    assert small
    shown = [
        *(Image.open(path) for path in (run / "samples").glob("*.png")),
        *(Image.open(io.BytesIO(png)) for png in (grid, least)),
        *small,
    ]
    assert all((colours(image) > 20) == is_colour for image in shown)


def test_sweep_likelihood_and_classifier_guidance_know_colour(tmp_path, monkeypatch, capsys):
    colour_folder(tmp_path / "data")
    monkeypatch.setattr(noisy_image, "_MOST_SEEN", 512)
    words = ["--dataset=folder", "--data-dir=data", "--image-size=28"]
    assert call("train", *words, "--out=run", *SHORT) == 0
    assert call("sample", "run", "--per-class=1", "--guidance=classifier", "-w", "1") == 0
    assert Path("run/time_classifier.safetensors").exists()
    with np.load("run/samples/samples.npz", allow_pickle=False) as samples:
        assert samples["images"].shape == (10, 3, 28, 28)
    assert call("sweep", "run", "--values=0,1", "--num-samples=20") == 0
    rows = list(csv.DictReader(Path("run/sweep-guidance.csv").read_text().splitlines()))
    assert [row["guidance_weight"] for row in rows] == ["0.0", "1.0"]
    assert all(math.isfinite(float(row["fid"])) for row in rows)
    capsys.readouterr()
    assert call("likelihood", "run", "--num-images=10", "--levels=2", "--json") == 0
    bits = json.loads(capsys.readouterr().out)["bits_per_dim"]
    assert all(math.isfinite(figures["mean"]) for figures in bits.values())


def test_a_damaged_archive_is_not_opened(tmp_path, monkeypatch, capsys):
    cifar10(tmp_path / "data", monkeypatch)
    path = tmp_path / "data" / "cifar-10-batches-py" / "data_batch_3"
    path.write_bytes(pickle.dumps({"data": 1}))
    assert call("train", "--dataset=cifar10", "--data-dir=data", "--out=run", *SHORT) == 2
    assert "no usable cifar10" in capsys.readouterr().err
    assert not Path("run").exists()


def test_the_layout_of_a_folder_is_said_or_refused_before_the_work(tmp_path, capsys):
    colour_folder(tmp_path / "data" / "Training")
    colour_folder(tmp_path / "data" / "Validation")
    (tmp_path / "data" / "notes.txt").touch()
    words = ["train", "--dataset=folder", "--data-dir=data", "--dry-run", *TINY]
    call(*words)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "data: 10 classes (kind 0, kind 1, kind 2, kind 3, kind 4, ...), 160 images to train on, "
        "160 held out (Validation/)"
    )
    assert said[1] == "left out: 1 file of another kind (notes.txt)"
    (tmp_path / "data" / "Validation").rename(tmp_path / "data" / "unlabelled")
    assert call(*words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Training/ (10 folders of images), unlabelled/" in line
    assert "--split none" in line
