import numpy as np
import pytest
import torch

from corruptions import corrupt
from robustdiff.classifiers import noisy_image
from robustdiff.classifiers.noisy_image import train_time_classifier
from robustdiff.data.arrays import LabelledImages, to_float
from robustdiff.diffusion.schedules import cosine


def trained(digits, given, transition, seed=0, progress=lambda done, total: None):
    return train_time_classifier(
        LabelledImages(digits.train, given),
        10,
        transition=transition,
        schedule=cosine,
        seed=seed,
        progress=progress,
    )


def test_training_is_a_function_of_its_arguments(digits, monkeypatch):
    monkeypatch.setattr(noisy_image, "_MOST_SEEN", 512)
    calls = []
    first = trained(
        digits, digits.train_labels, np.eye(10), progress=lambda *call: calls.append(call)
    ).state_dict()
    torch.rand(1)
    again = trained(digits, digits.train_labels, np.eye(10)).state_dict()
    other = trained(digits, digits.train_labels, np.eye(10), seed=1).state_dict()
    assert calls == [(step, 4) for step in (1, 2, 3, 4)]
    assert all(torch.equal(weight, again[name]) for name, weight in first.items())
    assert not torch.equal(first["convolve.0.weight"], other["convolve.0.weight"])


@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_clean_classes_are_predicted_surely_of_images_and_not_at_all_of_noise(digits, rate):
    labels = corrupt(digits.train_labels.numpy(), num_classes=10, rate=rate)
    classifier = trained(digits, torch.from_numpy(labels.given), labels.nominal)
    assert not classifier.training
    clean = to_float(digits.test)
    for t, least, most in ((0.05, 0.9, 1.0), (1.0, 0.0, 0.2)):
        alpha, sigma = cosine(torch.tensor(t))
        eps = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        predicted = classifier(alpha * clean + sigma * eps, torch.full((len(clean),), t)).argmax(1)
        assert least <= float((predicted == digits.test_labels).double().mean()) <= most
