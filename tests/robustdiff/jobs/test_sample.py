"""Files that sampling writes."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from robustdiff.config.layers import resolve
from robustdiff.config.sections import Config, SampleConfig
from robustdiff.data.arrays import Subject, to_uint8
from robustdiff.diffusion.generate import generate, generate_trajectory
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import PREDICTIONS, for_labels
from robustdiff.diffusion.samplers import SAMPLERS
from robustdiff.diffusion.schedules import cosine
from robustdiff.errors import DamagedError
from robustdiff.jobs import sample as module
from robustdiff.jobs.dataset import RunData
from robustdiff.jobs.sample import (
    Wanted,
    classes_wanted,
    folder_name,
    labels_wanted,
    sample_run,
    subject_of,
    write_image_folder,
    write_samples,
)
from robustdiff.progress import Report
from robustdiff.runs.folder import Run

HOSTILE = ("../../up", "/etc", "a/b\\c", "..", "", "<b>\x00\n", "x" * 300, "naïve 猫", "CON", "-rf")


TOYS = Subject(name="toys", image_shape=(1, 8, 8), class_names=("..", "b/c"))


def small_model():
    def network(x_t, t, labels):
        return torch.tanh(for_labels(x_t, len(labels)) + labels.reshape(-1, 1, 1, 1) / 10)

    return Model(network, cosine, PREDICTIONS["x0"], null_class=10)


@pytest.mark.parametrize(
    ("wanted", "numbers"), [(["2"], [3]), ([2], [2]), (["10", "0", " 3"], [1, 0, 3])]
)
def test_a_text_is_a_name_before_it_is_a_number(wanted, numbers):
    subject = Subject(name="a", image_shape=(1, 8, 8), class_names=("1", "10", "11", "2"))
    assert classes_wanted(wanted, subject) == numbers


def test_folders_are_safe_distinct_and_in_the_order_of_the_classes():
    names = [folder_name(k, name, len(HOSTILE)) for k, name in enumerate(HOSTILE)]
    assert names == sorted(names)
    assert len(set(names)) == len(HOSTILE)
    for name in names:
        assert name[0].isdigit()
        assert set(name) <= set("-_") | {c for c in map(chr, range(128)) if c.isalnum()}
        assert len(name) < 64


@pytest.mark.parametrize("channels", [1, 3])
def test_torchvision_reads_the_folder_back(channels, tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (25, channels, 8, 8), generator=generator, dtype=torch.uint8)
    labels = torch.arange(25) % 10
    write_image_folder(tmp_path / "images", images, labels, HOSTILE)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    read = ImageFolder(tmp_path / "images")
    assert read.targets == sorted(labels.tolist())
    with Image.open(read.samples[3][0]) as picture:  # the first image of class 1
        pixels = torch.from_numpy(np.asarray(picture).copy())
    expected = images[1, 0] if channels == 1 else images[1].permute(1, 2, 0)
    assert torch.equal(pixels, expected)


def test_fewer_images_leave_none_of_an_earlier_call(tmp_path):
    images = torch.zeros(6, 1, 8, 8, dtype=torch.uint8)
    write_image_folder(tmp_path, images, torch.tensor([0, 0, 0, 1, 1, 1]), ("a", "b"))
    (tmp_path / "0-a" / "mine.png").touch()
    write_image_folder(tmp_path, images[:1], torch.tensor([0]), ("a", "b"))
    assert sorted(path.name for path in (tmp_path / "0-a").iterdir()) == ["000000.png", "mine.png"]
    assert len(list((tmp_path / "1-b").iterdir())) == 3


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_trajectory_leads_from_the_noise_to_the_images(name):
    labels, setting = torch.arange(5), SampleConfig(sampler=name, steps=4, batch_size=3)
    path = generate_trajectory(small_model(), labels, (1, 4, 4), sample=setting, seed=2)
    images = generate(small_model(), labels, (1, 4, 4), sample=setting, seed=2)
    assert path.x_t.shape == (5, 5, 1, 4, 4)
    assert path.x_0.shape == (5, 4, 1, 4, 4)
    assert path.t.shape == (5,)
    assert torch.equal(to_uint8(path.x_t[:, -1]), images)
    assert abs(float(path.x_t[:, 0].std()) - 1) < 0.3
    assert path.x_0.abs().max() <= 1


def test_a_process_without_images_makes_none_and_asks_no_network():
    model = Model(lambda *_: pytest.fail("asked"), cosine, PREDICTIONS["x0"], null_class=10)
    setting, none = SampleConfig(steps=2), torch.arange(0)
    made = generate(model, torch.arange(3), (1, 4, 4), sample=setting, seed=0, numbers=none)
    assert made.shape == (0, 1, 4, 4)


def test_more_images_than_the_memory_holds_are_refused(monkeypatch):
    monkeypatch.setattr(module, "_memory", lambda: 64 * 1000)
    assert len(labels_wanted([0, "b/c"], 500, TOYS)) == 1000
    with pytest.raises(ValueError, match=r"^per_class 501 of 2 classes .*; the most is 500$"):
        labels_wanted(None, 501, TOYS)
    with pytest.raises(ValueError, match=r"the most is 25$"):
        labels_wanted(None, 26, TOYS, bytes_a_pixel=20)
    monkeypatch.setattr(module, "_memory", lambda: None)
    assert len(labels_wanted(None, 501, TOYS)) == 1002


def test_batches_to_be_compiled_have_one_shape():
    sizes = set()

    def network(x_t, t, labels):
        sizes.add((len(x_t), len(labels)))
        return x_t.repeat_interleave(len(labels) // len(x_t), 0)

    model = Model(network, cosine, PREDICTIONS["x0"], null_class=10)
    setting = SampleConfig(steps=2, batch_size=4, compile=True)
    labels = torch.arange(6)
    assert len(generate(model, labels, (1, 4, 4), sample=setting, seed=0)) == 6
    assert len(generate_trajectory(model, labels, (1, 4, 4), sample=setting, seed=0).x_t) == 6
    assert len(sizes) == 1


@pytest.mark.slow
def test_compiled_sampling_is_that_of_the_plain_network(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    images = SimpleNamespace(image_shape=(1, 8, 8), num_classes=10)
    run = SimpleNamespace(load_weights=randomise)
    labels, pictures = torch.arange(6), []
    for compiled in (False, True):
        sample = {"steps": 3, "batch_size": 4, "compile": compiled}
        model = {"channels": [8], "cen_hidden": 8, "time_size": 8}
        train = {"steps": 2, "precision": "fp32", "device": "cpu"}
        config = resolve({"model": model, "train": train, "sample": sample})
        pictures.append(sample_run(run, config, images, labels, 0, Report()).int())
    plain, fast = pictures
    assert plain.float().std() > 10
    assert (plain - fast).abs().max() <= 1  # of 255: rounding


def randomise(network):
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.2, generator=generator)


def test_sampling_compiled_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setattr("robustdiff.device.shutil.which", lambda name: None)
    images = SimpleNamespace(image_shape=(1, 8, 8), num_classes=10)
    config = resolve({"train": {"steps": 2}, "sample": {"compile": True}})
    with pytest.raises(ValueError, match=r"sample\.compile needs a C\+\+ compiler"):
        sample_run(
            SimpleNamespace(load_weights=randomise), config, images, torch.arange(2), 0, Report()
        )


def test_what_a_run_is_of_is_recorded_and_its_dataset_read_only_where_guidance_learns_from_it(
    tmp_path, monkeypatch
):
    run, read = Run(tmp_path), SimpleNamespace()
    monkeypatch.setattr(module, "load_run_data", lambda *_: RunData(read, None, None))
    learning = Config(sample=SampleConfig(guidance="classifier"))
    assert subject_of(run, Config(), Report()) is read  # no record: a run of an earlier version
    run.save_subject(TOYS)
    assert subject_of(run, Config(), Report()) == TOYS
    assert subject_of(run, learning, Report()) is read
    for shape, names in (
        ([1, 8], ["a"]), ([1, "8", 8], ["a"]), ([1, 8, 8.5], ["a"]), ("abc", ["a"]),
        ([1, 8, 0], ["a"]), ([1, 8, 8], []), ([1, 8, 8], "ab"), ([1, 8, 8], ["a", 2]),
        ([True, True, True], ["a"]), ({"a": 1}, ["a"]), (None, None),
    ):  # fmt: skip
        run.subject_file.write_text(json.dumps({"image_shape": shape, "class_names": names}))
        with pytest.raises(DamagedError, match=r"subject\.json is damaged: image_shape must be"):
            subject_of(run, Config(), Report())


def test_a_picture_of_samples_has_at_most_a_hundred_rows(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.save_subject(TOYS)
    monkeypatch.setattr(module, "generating_model", lambda *_, **__: small_model())
    wanted = Wanted(classes=[1], per_class=103, seed=1)
    write_samples(
        run, Config(sample=SampleConfig(steps=1)), Report(), folder=tmp_path / "x", wanted=wanted
    )
    with Image.open(tmp_path / "x" / "samples.png") as grid:
        assert grid.size == (2 + 50, 2 + 100 * 50)
    assert len([*(tmp_path / "x" / "images").rglob("*.png")]) == 103


def test_samples_are_written_in_all_forms(tmp_path, monkeypatch):
    run = Run(tmp_path)
    run.save_subject(TOYS)
    monkeypatch.setattr(module, "generating_model", lambda *_, **__: small_model())
    config = Config(sample=SampleConfig(steps=3))
    for trajectory in (False, True):
        folder = write_samples(
            run, config, Report(), folder=tmp_path / str(trajectory),
            wanted=Wanted(classes=None, per_class=2, seed=1, trajectory=trajectory),
        )  # fmt: skip
        with np.load(folder / "samples.npz") as content:
            pictures, labels = content["images"], content["labels"]
        assert pictures.shape == (4, 1, 8, 8)
        assert labels.tolist() == [0, 1, 0, 1]
        if not trajectory:
            plain = pictures
    np.testing.assert_array_equal(plain, pictures)
    made = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert made == {
        "samples.png", "samples.npz", "trajectory.png", "trajectory.npz",
        "images/0-_/000000.png", "images/0-_/000001.png",
        "images/1-b_c/000000.png", "images/1-b_c/000001.png",
    }  # fmt: skip
    with Image.open(folder / "samples.png") as grid:
        assert grid.size == (2 + 2 * 50, 2 + 2 * 50)
    with np.load(folder / "trajectory.npz") as content:
        assert {name: content[name].shape for name in content} == {
            "x_t": (4, 4, 1, 8, 8), "x_0": (4, 3, 1, 8, 8), "t": (4,), "labels": (4,),
        }  # fmt: skip
    with pytest.raises(ValueError, match=r"classes 0 to 1, .*; got '2'"):
        write_samples(
            run, config, Report(), folder=tmp_path / "none",
            wanted=Wanted(classes=[2], per_class=2, seed=1),
        )  # fmt: skip
    assert not (tmp_path / "none").exists()
