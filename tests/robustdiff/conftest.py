import numpy as np
import pytest
import torch

from robustdiff.classifiers.networks import ImageClassifier
from robustdiff.classifiers.noisy_image import TimeClassifier
from robustdiff.config.sections import DataConfig
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.labels.crossfit import CrossfitResult
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

    def predicted(images, given, num_classes, *, seed, progress, workers):
        rng = np.random.default_rng(seed)
        classes = rng.dirichlet(np.ones(num_classes), len(given))
        return CrossfitResult(classes, np.full((num_classes, num_classes), 1 / num_classes))

    def transition(images, given, num_classes, *, seed, progress):
        return np.full((num_classes, num_classes), 0.05) + 0.5 * np.eye(num_classes)

    def classifier(data, num_classes, *, transition, schedule, seed, progress):
        torch.manual_seed(seed)
        return TimeClassifier(1, num_classes).eval()

    monkeypatch.setattr("robustdiff.training.rounds.crossfit", predicted)
    monkeypatch.setattr("robustdiff.training.objective.estimate_transition", transition)
    monkeypatch.setattr("robustdiff.training.objective.train_time_classifier", classifier)
