"""The verdict of class probabilities on labels."""

import numpy as np
import pytest

from corruptions import corrupt
from robustdiff.labels.probabilities import by_probabilities, label_scores


def test_wrong_labels_are_found_and_their_number_is_told():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 5, 4000)
    logits = rng.normal(size=(4000, 5)) + 6 * np.eye(5)[clean]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = corrupt(clean, num_classes=5, rate=0.3)
    trust, words = by_probabilities(probabilities, labels.given)
    assert ((label_scores(trust, labels.given) < 0) == labels.flipped).mean() > 0.97
    assert trust.noise == pytest.approx(0.3, abs=0.03)
    assert "labels are wrong" in words
    trust, words = by_probabilities(probabilities, clean)
    assert trust.noise == 0
    assert len(np.unique(label_scores(trust, clean))) > 2000  # they still rank the labels
    assert "nothing speaks for wrong labels" in words
    trust, words = by_probabilities(np.ones((4000, 5)), clean)
    assert np.isnan(trust.noise)
    assert "no better than chance" in words
