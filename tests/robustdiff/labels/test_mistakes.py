import numpy as np
import pytest
from scipy.special import softmax

from robustdiff.labels.mistakes import MistakeModel, fit_mistakes, hardness

K = 4
CONFUSION = np.array(
    [[0, 0.8, 0.1, 0.1], [0.2, 0, 0.6, 0.2], [0.3, 0.3, 0, 0.4], [0.1, 0.1, 0.8, 0]]
)
TRUE = MistakeModel(
    scale=0.4,
    bias=np.zeros(K),
    rate=np.array([-0.4, -1.5, -1.0, -1.0]),
    slope=0.6,
    resemblance=0.3,
    confusion=CONFUSION,
    likelihood=0.0,
)


def drawn(model, count, seed=0):
    """Draw evidence, hardness, classes and labels as a model says."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(count, K)) * 2.5
    z -= z.mean(axis=1, keepdims=True)
    u = hardness(softmax(z, axis=1))
    classes = np.array([rng.choice(K, p=p) for p in model.image_classes(z)])
    wrong = rng.random(count) < 1 / (1 + np.exp(-(model.rate[classes] + model.slope * u)))
    weights = model.confusion[classes] * np.exp(model.resemblance * z)
    names = np.array([rng.choice(K, p=w / w.sum()) for w in weights])
    return z, u, classes, np.where(wrong, names, classes)


def test_hardness_is_the_rank_of_the_doubt_whatever_the_temperature():
    logits = np.array([[9.0, 0.0, 0.0], [1.0, 0.9, 0.0], [3.0, 1.0, 0.0]])
    for temperature in (0.5, 1.0, 3.0):
        np.testing.assert_allclose(
            hardness(softmax(logits / temperature, axis=1)), [-0.5, 0.5, 0.0], atol=1e-12
        )


def test_the_model_behind_labels_is_found_again():
    z, u, classes, labels = drawn(TRUE, 20_000)
    found = fit_mistakes(z, u, labels, MistakeModel.before(K).parameters())
    assert found.likelihood > fit_start(z, u, labels)
    assert found.scale == pytest.approx(TRUE.scale, abs=0.15)
    np.testing.assert_allclose(found.confusion, CONFUSION, atol=0.15)
    right = found.posterior(z, u, labels)[np.arange(len(labels)), labels]
    assert 1 - right.mean() == pytest.approx((labels != classes).mean(), abs=0.03)


def fit_start(z, u, labels):
    start = MistakeModel.before(K)
    named = start.image_classes(z)
    wrong = 1 / (1 + np.exp(-start.rate[0]))
    others = (
        start.confusion[:, labels].T
        * np.exp(start.resemblance * z)[np.arange(len(labels)), labels, None]
    )
    norm = np.exp(start.resemblance * z) @ start.confusion.T
    given = wrong * others / norm
    given[np.arange(len(labels)), labels] = 1 - wrong
    return float(np.log((named * given).sum(axis=1)).sum())


def test_probabilities_sum_to_one_over_classes_and_over_labels():
    z, u, _, labels = drawn(TRUE, 50)
    np.testing.assert_allclose(TRUE.posterior(z, u, labels).sum(axis=1), 1)
    np.testing.assert_allclose(TRUE.image_classes(z).sum(axis=1), 1)


def test_without_trend_and_resemblance_it_is_noise_of_classes_by_bayes_rule():
    model = TRUE._replace(slope=0.0, resemblance=0.0)
    z, u, _, labels = drawn(model, 100)
    wrong = 1 / (1 + np.exp(-model.rate))
    transition = np.diag(1 - wrong) + wrong[:, None] * CONFUSION
    joint = model.image_classes(z) * transition[:, labels].T
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.posterior(z, u, labels), expected, atol=1e-9)


def test_a_scale_that_is_given_stays():
    z, u, _, labels = drawn(TRUE, 500)
    start = MistakeModel.before(K).parameters()
    assert fit_mistakes(z, u, labels, start, scale=0.9).scale == 0.9
