import pytest
import torch

from robustdiff.metrics import cas
from robustdiff.metrics.cas import classification_accuracy, real_accuracy


@pytest.fixture
def score(digits, monkeypatch):
    """Train on 200 digits, in a shorter time."""
    monkeypatch.setattr(cas, "_SEEN", {False: 8000, True: 8000})
    images, right = digits.train[:200], digits.train_labels[:200]

    def measure(labels=right, **rest):
        return classification_accuracy(
            images, labels, digits.test, digits.test_labels, digits.num_classes, **rest
        )

    return measure


def test_real_images_teach_real_images_shuffled_labels_teach_nothing(score, digits):
    before, seen = torch.get_rng_state(), []
    hits = score(progress=lambda done, total: seen.append((done, total)))
    assert torch.equal(torch.get_rng_state(), before)
    assert hits.shape == (3, len(digits.test))
    assert hits.dtype == torch.bool
    assert hits.double().mean() > 0.85
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    assert score(digits.train_labels[:200][order]).double().mean() < 0.25


def test_it_repeats(score):
    assert torch.equal(score(), score())


def test_the_score_of_real_images_is_kept_and_made_anew_if_damaged(
    score, digits, tmp_path, monkeypatch
):
    rows, trained = torch.arange(200), []
    expected = score()

    def counted(*args, **rest):
        trained.append(len(args[0]))
        return expected

    monkeypatch.setattr(cas, "classification_accuracy", counted)
    for times in (1, 1):
        assert torch.equal(real_accuracy(tmp_path / "kept", digits, rows), expected)
        assert trained == [200] * times
    real_accuracy(tmp_path / "kept", digits, rows[:199])
    assert trained == [200, 199]
    for file in (tmp_path / "kept").iterdir():
        file.write_bytes(b"damaged")
    assert torch.equal(real_accuracy(tmp_path / "kept", digits, rows), expected)
    assert trained == [200, 199, 200]


def test_wrong_labels_are_named(score, digits):
    with pytest.raises(ValueError, match=r"training labels must be int64 of shape \(200,\)"):
        score(digits.train_labels[:199])
    with pytest.raises(ValueError, match="held-out labels must be"):
        classification_accuracy(
            digits.train, digits.train_labels, digits.test, digits.test_labels[:-1], 10
        )
