import numpy as np
import pytest
import torch

from robustdiff.classifiers.networks import ImageClassifier
from robustdiff.classifiers.noisy_image import TimeClassifier
from robustdiff.config.images import DataConfig
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.labels.crossfit import Crossfitted
from robustdiff.labels.decision import decide
from robustdiff.metrics.evaluator import train_evaluator
from robustdiff.progress import Report


@pytest.fixture(scope="session")
def digits() -> Images:
    return load_images(DataConfig(), Report())


@pytest.fixture(scope="session")
def evaluator(digits: Images) -> ImageClassifier:
    return train_evaluator(digits.train, digits.train_labels, digits.num_classes, seed=0)


@pytest.fixture
def quick_classifiers(monkeypatch):
    """Training classifiers takes seconds; these predict at random, by the seed alone."""

    def predicted(images, given, num_classes, plan, **_):
        rng = np.random.default_rng(plan.lessons.seed)
        classes = rng.dirichlet(np.ones(num_classes), len(given)).astype(np.float32)
        return Crossfitted(classes, decide(classes, given.numpy()), classes[:, 0])

    def classifier(data, num_classes, *, transition, schedule, seed, progress):
        torch.manual_seed(seed)
        return TimeClassifier(1, num_classes).eval()

    monkeypatch.setattr("robustdiff.training.judging.crossfit", predicted)
    monkeypatch.setattr("robustdiff.training.objective.train_time_classifier", classifier)
