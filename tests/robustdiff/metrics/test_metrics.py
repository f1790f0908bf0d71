import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.metrics import average_precision_score, roc_auc_score

from robustdiff.data import load_images
from robustdiff.metrics.classification import label_accuracy, nll, nll_per_class
from robustdiff.metrics.detection import detection
from robustdiff.metrics.distribution import (
    classwise_frechet,
    frechet_distance,
    inception_score,
    kid,
)
from robustdiff.metrics.evaluator import embed, load_or_train
from robustdiff.metrics.neighbours import density_coverage
from robustdiff.metrics.report import evaluate


def normal(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(n, d, seed=0):
    """Samples with sample mean exactly 0 and sample covariance exactly I."""
    x = normal(n, d, seed)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T


def test_fid_of_known_gaussians_is_the_closed_form():
    s1, s2 = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([2.0, 1.0, 1.5]).double()
    m = torch.tensor([0.0, 3.0, -1.0]).double()
    expected = float((m**2).sum() + ((s1 - s2) ** 2).sum())
    measured = frechet_distance(whitened(50, 3) * s1, whitened(40, 3, 1) * s2 + m)
    assert measured == pytest.approx(expected, rel=1e-6)


def test_fid_equals_the_formula_with_scipys_matrix_root():
    a, b = normal(200, 6), normal(150, 6, 1) @ torch.triu(torch.ones(6, 6).double()) + 0.5
    s, w = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    mean = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    expected = mean + np.trace(s + w - 2 * sqrtm(s @ w).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("n", "d"), [(100, 8), (5, 16)])
def test_fid_of_a_set_with_itself_is_0(n, d):
    assert 0 <= frechet_distance(normal(n, d), normal(n, d)) < 1e-4


def test_classwise_fid_sees_what_fid_cannot():
    x = torch.cat([normal(100, 4), normal(100, 4, 1) + 5])
    labels = torch.arange(2).repeat_interleave(100)
    assert classwise_frechet(x, labels, x, labels, 2)[0] < 1e-4
    assert classwise_frechet(x, labels, x, 1 - labels, 2)[0] > 50
    assert frechet_distance(x, x) < 1e-4


def test_kid_is_near_0_for_equal_and_large_for_different_distributions():
    assert abs(kid(normal(500, 4), normal(500, 4, 1), 0)) < 0.05
    assert kid(normal(500, 4), normal(500, 4, 1) + 2, 0) > 1


def test_inception_score_of_uniform_and_of_one_hot_predictions():
    assert inception_score(torch.zeros(1000, 10).double(), 0) == pytest.approx(1)
    one_hot = 1000 * torch.eye(10).double().repeat(1000, 1)
    assert inception_score(one_hot, 0) == pytest.approx(10, rel=0.02)


def test_metrics_leave_the_global_generator_alone():
    state = torch.get_rng_state()
    inception_score(normal(100, 10), 0)
    kid(normal(50, 4), normal(50, 4, 1), 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_coverage_of_equal_distributions_has_its_closed_form():
    n, k = 400, 5
    expected = 1 - math.prod((n - 1 - i) / (2 * n - 1 - i) for i in range(k))
    pairs = [density_coverage(normal(n, 6, s), normal(n, 6, s + 50), k) for s in range(8)]
    density, coverage = np.mean(pairs, axis=0)
    assert coverage == pytest.approx(expected, abs=0.01)
    assert density == pytest.approx(1, abs=0.04)


def test_duplicates_lower_coverage():
    real = normal(300, 4)
    assert density_coverage(real, normal(3, 4, 1).repeat(100, 1))[1] < 0.2


def test_nll_and_accuracy():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0]]).double()
    labels = torch.tensor([0, 1, 1])
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert nll(logits, labels) == pytest.approx(float(expected))
    assert nll(torch.zeros(4, 10), torch.arange(4)) == pytest.approx(math.log(10))
    assert label_accuracy(logits, labels) == pytest.approx(2 / 3)
    per_class = nll_per_class(logits, torch.tensor([0, 0, 0]), 2)
    assert per_class[1] is None


def test_detection_is_scikit_learns_for_scores_of_any_range():
    rng = np.random.default_rng(0)
    wrong = rng.random(500) < 0.3
    score = rng.normal(size=500) * 40 - 60 * wrong
    found = detection(torch.from_numpy(score), torch.from_numpy(wrong))
    assert found["auroc"] == pytest.approx(roc_auc_score(wrong, -score))
    assert found["average_precision"] == pytest.approx(average_precision_score(wrong, -score))
    least = np.argsort(score)[: wrong.sum()]
    assert found["precision_at_rate"] == pytest.approx(wrong[least].mean())


def test_detection_of_nothing_is_none_and_ties_are_chance():
    assert detection(torch.zeros(4), torch.zeros(4, dtype=torch.bool)) is None
    tied = detection(torch.zeros(8), torch.arange(8) < 2)
    assert tied["auroc"] == 0.5
    assert tied["precision_at_rate"] == 0.25


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "", download=False)


@pytest.fixture(scope="module")
def evaluator(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluators")
    arguments = (digits.train, digits.train_labels, 10)
    return (*load_or_train(folder, "digits", *arguments, seed=0), folder)


def test_the_evaluator_is_good_and_its_batches_do_not_matter(digits, evaluator):
    features, logits = embed(evaluator[0], digits.test)
    assert label_accuracy(logits, digits.test_labels) >= 0.97
    assert features.shape == (450, 32)
    torch.testing.assert_close(embed(evaluator[0], digits.test, 7)[1], logits, rtol=0, atol=1e-4)


def test_the_evaluator_is_cached_and_damage_noticed(digits, evaluator):
    network, digest, folder = evaluator
    arguments = (digits.train, digits.train_labels, 10)

    def refuse(*_):
        raise AssertionError("trained again")

    again, same = load_or_train(folder, "digits", *arguments, seed=0, progress=refuse)
    assert same == digest
    assert torch.equal(embed(again, digits.test)[1], embed(network, digits.test)[1])
    path = next(folder.iterdir())
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(AssertionError, match="trained again"):
        load_or_train(folder, "digits", *arguments, seed=0, progress=refuse)


def judged(digits, evaluator, images, labels):
    return evaluate(
        real=digits.train,
        real_labels=digits.train_labels,
        heldout=digits.test,
        heldout_labels=digits.test_labels,
        generated=images,
        generated_labels=labels,
        evaluator=evaluator[0],
        seed=0,
    )


@pytest.fixture(scope="module")
def stand_in(digits):
    """Held-out images as if they were generated, equally many per class."""
    order = torch.argsort(digits.test_labels, stable=True)
    labels = digits.test_labels[order]
    which = torch.cat([order[labels == c][:40] for c in range(10)])
    return digits.test[which], digits.test_labels[which]


def test_shuffled_labels_move_only_what_looks_at_labels(digits, evaluator, stand_in):
    images, labels = stand_in
    right = judged(digits, evaluator, images, labels)
    shuffled = judged(digits, evaluator, images, labels.flip(0))
    for name in ("fid", "kid", "inception_score", "density", "coverage"):
        assert shuffled[name] == pytest.approx(right[name], abs=1e-9), name
    assert shuffled["nll"] > right["nll"] + 3
    assert shuffled["class_fid"] > 10 * right["class_fid"]
    assert right["label_accuracy"] > 0.95 > 0.3 > shuffled["label_accuracy"]


def test_a_dropped_mode_raises_fid_and_lowers_coverage_but_not_nll(digits, evaluator, stand_in):
    images, labels = stand_in
    right = judged(digits, evaluator, images, labels)
    first = torch.cat([torch.nonzero(labels == c)[:4, 0].repeat(10) for c in range(10)])
    few = judged(digits, evaluator, images[first], labels[first])
    assert few["fid"] > 2 * right["fid"]
    assert few["coverage"] < 0.5 * right["coverage"]
    assert few["nll"] < right["nll"] + 0.1


def test_more_images_than_the_floor_has_are_refused(digits, evaluator):
    images = digits.train[:600]
    with pytest.raises(ValueError, match="largest num_samples"):
        judged(digits, evaluator, images, digits.train_labels[:600])
