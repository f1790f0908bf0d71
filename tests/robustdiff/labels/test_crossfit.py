import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from corruptions import corrupt
from robustdiff.labels.crossfit import crossfit
from robustdiff.labels.judge import by_classes


@pytest.fixture(scope="module")
def fitted(digits):
    clean = digits.train_labels.numpy()
    labels = corrupt(clean, num_classes=10, noise_type="pairflip", rate=0.3)
    seen = []
    found = crossfit(
        digits.train,
        torch.from_numpy(labels.given),
        10,
        seed=0,
        progress=lambda done, total: seen.append((done, total)),
    )
    return labels, found, seen


def test_classifiers_find_wrong_labels_of_images_they_never_saw(fitted):
    labels, found, seen = fitted
    np.testing.assert_allclose(found.image_classes.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(found.transition, labels.realised, atol=0.12)
    scores, trust = by_classes(found.image_classes, found.transition, labels.given)
    assert roc_auc_score(~labels.flipped, scores) > 0.98
    assert trust.noise == pytest.approx(labels.realised_rate, abs=0.03)
    assert (trust.classes.argmax(axis=1) == labels.clean).mean() > 0.96
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
