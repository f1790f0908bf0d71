"""Somebody else's probabilities: files of any kind, and the verdict on labels."""

import numpy as np
import pytest

from corruptions import corrupt
from robustdiff.labels.judge import margins
from robustdiff.labels.probabilities import by_probabilities, read_probabilities

GOOD = np.full((4, 3), 1 / 3)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.csv", GOOD, "read from .npy and .npz files, got"),
        ("none.npy", None, "there is no file"),
        ("p.npy", GOOD[:3], r"one array of shape \(4, 3\).*got \(3, 3\)"),
        ("p.npy", GOOD - 1, "finite probabilities of at least 0"),
        ("p.npy", GOOD * np.nan, "finite probabilities of at least 0"),
        ("p.npz", {"a": GOOD, "b": GOOD}, r"got \(4, 3\), \(4, 3\)"),
        ("p.npy", np.array([{}], dtype=object), "not an array file of numbers"),
        ("p.npz", b"junk", "not an archive of plain arrays"),
    ],
)
def test_other_files_are_refused_by_one_line(name, content, says, tmp_path):
    path = tmp_path / name
    if isinstance(content, dict):
        np.savez(path, **content)
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        with path.open("wb") as file:
            np.save(file, content, allow_pickle=True)
    with pytest.raises(ValueError, match=says):
        read_probabilities(path, 4, 3)


def test_arrays_beside_others_are_found_by_their_shape(tmp_path):
    np.savez(tmp_path / "p.npz", pred_probs=GOOD, labels=np.arange(4))
    assert (read_probabilities(tmp_path / "p.npz", 4, 3) == GOOD).all()


def test_wrong_labels_are_found_and_their_number_is_told():
    rng = np.random.default_rng(0)
    clean = rng.integers(0, 5, 4000)
    logits = rng.normal(size=(4000, 5)) + 6 * np.eye(5)[clean]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = corrupt(clean, num_classes=5, rate=0.3)
    trust, words = by_probabilities(probabilities, labels.given)
    assert ((margins(trust.classes, labels.given) < 0) == labels.flipped).mean() > 0.97
    assert trust.noise == pytest.approx(0.3, abs=0.03)
    assert "labels are wrong" in words
    trust, words = by_probabilities(probabilities, clean)
    assert trust.noise == 0
    assert "nothing speaks for wrong labels" in words
    trust, words = by_probabilities(np.ones((4000, 5)), clean)
    assert np.isnan(trust.noise)
    assert "no better than chance" in words
