"""Labels judged before training, as a dataset for any trainer."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bright_rows import COUNT, K, bright_rows
from torch.utils.data import DataLoader, TensorDataset

import robustdiff
from robustdiff.classifiers.image import train_image_classifier
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.labels import crossfit as module
from robustdiff.labels import folds
from robustdiff.labels.crossfit import Crossfitted
from robustdiff.labels.decision import decide
from robustdiff.progress import Report
from robustdiff.trainers import judged as judging

IMAGES, CLEAN, GIVEN = bright_rows()


@pytest.fixture
def quick(monkeypatch):
    """Classifiers that are nearly sure of the clean classes."""

    def crossfit(images, given, num_classes, plan, **_):
        found = np.full((len(given), num_classes), 0.01, dtype=np.float32)
        found[np.arange(len(given)), CLEAN] = 1 - 0.01 * (num_classes - 1)
        return Crossfitted(found, decide(found, given.numpy()), found[:, 0])

    monkeypatch.setattr(judging, "crossfit", crossfit)


def test_real_classifiers_find_the_wrong_labels_once_and_again_from_the_cache(
    tmp_path, monkeypatch
):
    trained = []
    monkeypatch.setattr(module, "_SMALL_LEAST", 2000)
    monkeypatch.setattr(
        folds,
        "train_image_classifier",
        lambda *words, **more: trained.append(1) or train_image_classifier(*words, **more),
    )
    words = IMAGES, GIVEN, {"judge.effort": "quick"}
    first, again = (robustdiff.RobustLabels(*words, cache=tmp_path / "kept") for _ in range(2))
    assert len(trained) == 2
    for found in (first, again):
        assert np.array_equal(found.labels, CLEAN)
        assert np.array_equal(found.wrong, GIVEN != CLEAN)
        assert found.noise == pytest.approx(0.2, abs=0.05)
        assert "labels are wrong" in found.verdict
    assert np.array_equal(first.quality, again.quality)
    # Other labels of the same images are other work.
    (folder,) = (tmp_path / "kept").iterdir()
    monkeypatch.setattr(judging, "crossfit", lambda *_, folder, **__: trained.append(folder) or 1)
    with pytest.raises(AttributeError):
        robustdiff.RobustLabels(IMAGES, CLEAN, words[2], cache=tmp_path / "kept")
    assert trained[-1] != folder


def test_a_cache_knows_every_image_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr("robustdiff.data.arrays._DIGESTED", 64)
    folders = []
    monkeypatch.setattr(judging, "crossfit", lambda *_, folder, **__: folders.append(folder))
    for row in (None, *range(COUNT)[:7]):
        images = IMAGES.copy()
        if row is not None:
            images[row] = 255 - images[row]
        with pytest.raises(AttributeError):
            robustdiff.RobustLabels(images, GIVEN, cache=tmp_path)
    assert len(set(folders)) == 8


def test_settings_are_of_the_judge_the_seed_and_the_device(quick):
    settings = {"judge.effort": "quick", "judge.flip": False, "seed": 1, "train.device": "cpu"}
    labels = robustdiff.RobustLabels(IMAGES, GIVEN, settings)
    assert (labels.labels != GIVEN).any()


def test_what_is_known_about_the_labels(quick):
    judged = robustdiff.RobustLabels(IMAGES, GIVEN)
    wrong = GIVEN != CLEAN
    assert judged.num_classes == K
    assert np.array_equal(judged.given, GIVEN)
    assert judged.weights.mean() == pytest.approx(1)
    assert judged.weights[wrong].max() < judged.weights[~wrong].min()
    assert judged.soft.shape == (COUNT, K)
    assert np.array_equal(judged.soft.argmax(1), CLEAN)
    assert (judged.quality[wrong] < 0.5).all()
    assert (judged.quality[~wrong] > 0.5).all()
    assert (judged.scores[wrong] < 0).all()
    assert judged.doubts == ()


def test_items_are_what_the_treatment_makes_of_them(quick):
    def first(treatment):
        return robustdiff.RobustLabels(IMAGES, GIVEN, treatment=treatment)[0]

    image, label = first("relabel")
    assert torch.equal(image, torch.from_numpy(IMAGES[0]).float() / 127.5 - 1)
    assert label == CLEAN[0] != GIVEN[0]
    assert first("null")[1] == K
    assert first("none")[1] == first("select")[1] == GIVEN[0]
    soft = first("soft")[1]
    assert soft.shape == (K,)
    assert soft.dtype == torch.float32
    assert int(soft.argmax()) == CLEAN[0]
    _, label, weight = first("reweight")
    assert label == GIVEN[0]
    assert weight < 0.1


def test_a_dataset_keeps_its_items_but_for_the_label(quick):
    pairs = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(GIVEN))
    judged = robustdiff.RobustLabels(pairs)
    assert judged[0][0] is pairs[0][0] or torch.equal(judged[0][0], pairs[0][0])
    assert [judged[i][1] for i in range(COUNT)] == CLEAN.tolist()
    mappings = [{"x": x, "y": int(y), "id": i} for i, (x, y) in enumerate(pairs)]
    judged = robustdiff.RobustLabels(mappings, keys=("x", "y"), treatment="reweight")
    assert set(judged[0]) == {"x", "y", "id", "weight"}
    assert judged[0]["y"] == GIVEN[0]
    assert mappings[0].keys() == {"x", "y", "id"}
    augmented = judged.over([(torch.zeros(1, 4, 4), -1)] * COUNT)
    assert augmented[0][0].abs().sum() == 0
    assert augmented[0][1:] == (GIVEN[0], judged[0]["weight"])
    with pytest.raises(ValueError, match="are for 120 images, the dataset has 1"):
        judged.over(mappings[:1])


def test_a_judged_dataset_keeps_the_names_of_its_classes(quick, tmp_path):
    pairs = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(GIVEN))
    assert robustdiff.RobustLabels(pairs).classes == tuple(map(str, range(K)))
    pairs.classes = [f"kind {k}" for k in range(K)]
    judged = robustdiff.RobustLabels(pairs)
    assert judged.classes == tuple(pairs.classes)
    robustdiff.save_dataset(tmp_path / "kept", judged)
    kept = DataConfig(dataset="arrays", data_dir=str(tmp_path / "kept"), image_size=8)
    images = load_images(kept, Report())
    assert images.class_names == judged.classes
    assert len(images.train) + len(images.test) == COUNT
    arrays = robustdiff.RobustLabels(IMAGES, GIVEN)
    with pytest.raises(ValueError, match=r"floats outside of \[0, 1\]"):
        robustdiff.save_dataset(tmp_path / "arrays", arrays)
    plain = arrays.over(list(zip(torch.from_numpy(IMAGES), GIVEN, strict=True)))
    robustdiff.save_dataset(tmp_path / "arrays", plain)
    again = load_images(replace(kept, data_dir=str(tmp_path / "arrays")), Report())
    assert torch.equal(again.train, images.train)
    assert torch.equal(again.train_labels, images.train_labels)
    # Labels that are left out have no class to be kept under.
    without = robustdiff.RobustLabels(pairs, treatment="null")
    with pytest.raises(ValueError, match=rf"number the {K} classes .* 0 to {K - 1}, got '{K}'"):
        robustdiff.save_dataset(tmp_path / "kept", without)


def test_the_sampler_draws_all_images_or_the_best_and_every_epoch_anew(quick):
    everything = robustdiff.RobustLabels(IMAGES, GIVEN).sampler()
    first, second = list(everything), list(everything)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first != second
    everything.set_epoch(0)
    assert list(everything) == first
    best = robustdiff.RobustLabels(IMAGES, GIVEN, treatment="select").sampler()
    drawn = list(best)
    assert len(best) == len(drawn) == len(set(drawn)) < COUNT
    assert (GIVEN[drawn] != CLEAN[drawn]).mean() < 0.1
    loader = DataLoader(robustdiff.RobustLabels(IMAGES, GIVEN), 8, sampler=everything)
    assert sum(len(y) for _, y in loader) == COUNT


@pytest.mark.parametrize(
    ("words", "more", "says"),
    [
        ((IMAGES,), {}, "images as an array need labels beside them, got none"),
        ((IMAGES, GIVEN[1:]), {}, "labels must be 120 whole numbers"),
        ((IMAGES, GIVEN + 1), {}, "1 of .* are given to no image, the first is class 0"),
        ((IMAGES, GIVEN * 10**11), {}, "are given to no image, the first is class 1"),
        ((IMAGES, GIVEN, {"train.steps": 3}), {}, "section judge, seed, train.device; got"),
        ((IMAGES, GIVEN, {"judge.efort": "quick"}), {}, "judge.efort"),
        ((IMAGES, GIVEN, {"judge.features": "f.npy"}), {}, "robustdiff.audit_images"),
        ((IMAGES, GIVEN), {"treatment": "drop"}, "unknown treatment 'drop'; choose from"),
    ],
)
def test_bad_input_is_one_line_before_the_work(words, more, says, monkeypatch):
    monkeypatch.setattr(judging, "crossfit", lambda *_, **__: pytest.fail("it worked first"))
    with pytest.raises(ValueError, match=says):
        robustdiff.RobustLabels(*words, **more)
