"""Wrong labels among 200 classes of 20 images each are found, by rows that keep a few classes."""

import numpy as np
import pytest
import torch
from many_patterns import SIDE, K, many_patterns
from sklearn.metrics import roc_auc_score

from curricula.sparse import KEPT, SparseClasses, likeliest
from robustdiff.config.judging import JudgeConfig
from robustdiff.config.layers import resolve
from robustdiff.jobs.assemble import make_task
from robustdiff.labels import scoring
from robustdiff.labels.crossfit import crossfit, make_plan
from robustdiff.progress import Report, silent
from robustdiff.training.loop import train
from robustdiff.training.rounds import RoundDone
from robustdiff.training.state import new_state

SMALL = {
    "model": {"channels": [32, 64], "patch_size": 2},
    "train": {"steps": 600, "batch_size": 128, "precision": "fp32", "warmup_steps": 20},
    "curriculum": {"name": "margin", "warmup": 1000, "score_every": 1, "probes": 1},
}


@pytest.mark.slow
def test_crossfit_finds_wrong_labels_among_many_classes():
    images, labels = many_patterns()
    plan = make_plan(JudgeConfig(), (3, SIDE, SIDE), len(labels.given), seed=0)
    given = torch.from_numpy(labels.given)
    found = crossfit(images.train, given, K, plan, progress=silent)
    assert isinstance(found.decision.classes, SparseClasses)
    right = labels.given == labels.clean
    assert roc_auc_score(right, found.decision.right) > 0.98
    assert roc_auc_score(right, found.margins) > 0.95
    assert found.decision.share == pytest.approx(0.3, abs=0.03)
    assert (found.decision.corrected == labels.clean).mean() > 0.95


@pytest.mark.slow
def test_margin_finds_them_with_five_classes_tried_an_image(monkeypatch):
    images, labels = many_patterns()
    task = make_task(resolve(SMALL), images, labels, Report())
    tried, gains = [], scoring._gains

    def seen(probing, batch, model, some, number):
        tried.append(some.numel())
        return gains(probing, batch, model, some, number)

    monkeypatch.setattr(scoring, "_gains", seen)
    state = new_state(task)
    (done,) = [event for event in train(state, task) if isinstance(event, RoundDone)]
    assert sum(tried) == KEPT * len(labels.given)
    right = labels.given == labels.clean
    assert roc_auc_score(right, done.scores) > 0.97
    assert done.trust.noise == pytest.approx(0.3, abs=0.06)
    assert (likeliest(done.trust.classes) == labels.clean).mean() > np.mean(right) + 0.1
