"""Decisions on data whose truth is known: Gaussian classes, so that p(class | image) is exact."""

import numpy as np
import pytest
from gaussian_classes import classes_of, draw, symmetric
from scipy.special import softmax

from robustdiff.labels.decision import decide, hedged
from robustdiff.labels.label_fit import Family, fit_labels
from robustdiff.labels.mistakes import hardness
from robustdiff.labels.sure import contradictions, sure_transition

SPARSE = np.array([[0.6, 0.4, 0, 0], [0, 1, 0, 0], [0.1, 0, 0.8, 0.1], [0, 0, 0.3, 0.7]])


def f1(flags, wrong):
    return 2 * (flags & wrong).sum() / (flags.sum() + wrong.sum())


def calibration_error(right, truth):
    bins = (right * 15).astype(int).clip(0, 14)
    return sum(
        (bins == b).mean() * abs(right[bins == b].mean() - truth[bins == b].mean())
        for b in np.unique(bins)
    )


@pytest.mark.parametrize("learnt", [False, True], ids=["of the clean class", "of the given label"])
@pytest.mark.parametrize("matrix", [symmetric(4, 0.2), symmetric(4, 0.5), SPARSE])
def test_noise_by_class_is_judged_as_well_as_with_the_true_matrix(matrix, learnt):
    clean, p = classes_of(6000, 4, 3.0)
    given = draw(matrix[clean])
    found = decide(p @ matrix if learnt else p, given)
    best = p * matrix[:, given].T  # Bayes' rule with the true matrix
    best /= best.sum(axis=1, keepdims=True)
    wrong, rows = given != clean, np.arange(len(given))
    assert f1(found.right < 0.5, wrong) > f1(best[rows, given] < 0.5, wrong) - 0.01
    assert found.low <= wrong.mean() <= found.high
    # That exact forecasts of the given label are deconvolved in few steps costs some accuracy.
    tolerance = 0.06 if learnt else 0.03
    assert abs(found.share - wrong.mean()) < tolerance
    assert calibration_error(found.right, ~wrong) < tolerance
    assert (found.corrected != clean).mean() < wrong.mean() / 2
    np.testing.assert_allclose(found.classes.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(found.transition, matrix, atol=0.15)


def test_labels_that_people_guess_on_hard_images_are_found():
    clean, p = classes_of(12_000, 4, 2.5)
    # Half of the labels are guesses by how the image looks through fog, some are slips.
    looks = softmax(0.3 * np.log(p), axis=1)
    noise = 0.5 * looks + 0.5 * symmetric(4, 0.1)[clean]
    given = draw(noise)
    found = decide(0.5 * looks + 0.5 * p @ symmetric(4, 0.1), given)
    wrong = given != clean
    # As well as by the likeliest class of an oracle, which believes no label.
    assert f1(found.right < 0.5, wrong) > f1(p.argmax(axis=1) != given, wrong) - 0.01
    assert found.kind == "by image"
    assert found.low <= wrong.mean() <= found.high
    assert (found.corrected != clean).mean() < 0.65 * wrong.mean()


@pytest.mark.parametrize("distance", [1.0, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("k", [2, 10])
def test_clean_labels_stay_however_weak_the_classifier(k, distance):
    clean, p = classes_of(4000, k, distance)
    found = decide(softmax(1.5 * np.log(p), axis=1), clean)
    assert found.kind == "no noise"
    assert found.share == 0 == found.low
    assert (found.corrected == clean).all()
    assert (found.right == 1).all()


def test_nothing_is_flagged_without_evidence():
    given = np.arange(32) % 2
    for p in (
        np.full((32, 2), 0.5),
        np.random.default_rng(0).dirichlet([1, 1], 32),
    ):
        found = decide(p, given)
        assert found.kind == "no evidence"
        assert (found.right == 1).all()
        assert (found.low, found.high) == (0, 1)


def test_two_classes_and_a_hundred():
    for k, distance in ((2, 3.0), (100, 5.0)):
        clean, p = classes_of(4000, k, distance)
        given = draw(symmetric(k, 0.3)[clean])
        found = decide(p.astype(np.float16), given)
        wrong = given != clean
        assert f1(found.right < 0.5, wrong) > 0.9
        assert found.low <= wrong.mean() <= found.high


def test_a_rare_class_keeps_its_own_images_and_gains_no_others():
    clean, p = classes_of(4000, 4, 4.0, weights=[0.333, 0.333, 0.332, 0.002])
    given = draw(symmetric(4, 0.3)[clean])
    found = decide(p, given)
    # All but 11 of the 400 labels of the class are wrong.
    assert (given == 3).sum() > 400
    assert (clean[found.corrected == 3] == 3).all()
    assert (found.corrected[clean == 3] == 3).mean() > 0.8


def test_a_temperature_does_not_matter():
    clean, p = classes_of(4000, 4, 3.0)
    given = draw(SPARSE[clean])
    flags = [decide(softmax(t * np.log(p), axis=1), given).right < 0.5 for t in (0.5, 1.0, 2.0)]
    assert (flags[0] == flags[1]).mean() > 0.99
    assert (flags[2] == flags[1]).mean() > 0.99


@pytest.mark.parametrize("distance", [2.5])
def test_few_mistakes_show_on_the_clearest_images(distance):
    clean, p = classes_of(10_000, 10, distance)
    given = draw(symmetric(10, 0.05)[clean])
    found = decide(softmax(1.2 * np.log(p), axis=1), given)
    wrong = given != clean
    assert found.kind == "few"
    assert found.low <= wrong.mean() <= found.high
    assert (found.corrected != clean).mean() < 1.1 * wrong.mean()
    np.testing.assert_array_equal(found.classes, found.mean_classes)


def test_others_learn_from_the_mean_of_all_explanations():
    clean, p = classes_of(6000, 4, 3.0)
    found = decide(p, draw(symmetric(4, 0.3)[clean]))
    np.testing.assert_allclose(found.mean_classes.sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(found.mean_image_classes.sum(axis=1), 1, rtol=1e-4)
    assert (found.mean_classes.argmax(axis=1) == clean).mean() > 0.9


def test_the_kind_of_noise_can_be_known():
    clean, p = classes_of(6000, 4, 2.5)
    given = draw(symmetric(4, 0.3)[clean])
    found, by_class, by_image = (decide(p, given, by_image=known) for known in (None, False, True))
    assert by_class.kind == "by class"
    np.testing.assert_array_equal(by_class.right, found.right)
    assert by_image.kind == "by image"
    assert (by_image.right != found.right).any()


def test_a_hedged_decision_is_by_the_mean_of_all_explanations():
    clean, p = classes_of(6000, 4, 2.5)
    given = draw(symmetric(4, 0.3)[clean])
    found = decide(p, given)
    mean = hedged(found, given)
    np.testing.assert_array_equal(mean.classes, found.mean_classes)
    np.testing.assert_allclose(mean.right, found.mean_classes[np.arange(6000), given], rtol=1e-6)
    assert mean.share == pytest.approx(1 - mean.right.mean())
    assert mean.low <= mean.share <= mean.high
    assert (mean.corrected[mean.right >= 0.5] == given[mean.right >= 0.5]).all()
    np.testing.assert_allclose(mean.transition.sum(axis=1), 1)
    assert abs(mean.share - 0.3) < 0.05


def test_sure_images_are_the_clearest_of_every_predicted_class():
    p = np.array([[0.9, 0.1]] + [[0.6, 0.4]] * 9 + [[0.2, 0.8]] * 9 + [[0.01, 0.99]])
    given = np.r_[1, np.zeros(9, int), np.ones(9, int), 1]
    # Of few images half, of many a tenth.
    assert contradictions(p, given) == (0.05, 0.1, 10, 0.5, 2)
    np.testing.assert_allclose(sure_transition(p, given), [[5 / 6, 1 / 6], [0, 1]])
    many, labels = np.tile(p, (50, 1)), np.tile(given, 50)
    assert contradictions(many, labels) == (0.05, 0.5, 100, 0.5, 100)
    np.testing.assert_allclose(sure_transition(many, labels), [[1 / 51, 50 / 51], [0, 1]])


def test_the_fit_finds_the_same_optimum_from_elsewhere_and_noise_where_there_is():
    clean, p = classes_of(300, 3, 2.0)
    z, labels = np.log(p), draw(symmetric(3, 0.2)[clean])
    start = np.r_[0.0, np.zeros(3), np.log(symmetric(3, 0.3)).ravel(), -1.0]
    fitted = fit_labels(z, labels, start, Family("any"), p[np.arange(300), labels])
    other = fit_labels(z, labels, start + 0.3, Family("any"), p[np.arange(300), labels])
    assert fitted.likelihood == pytest.approx(other.likelihood, abs=0.5)
    none = fit_labels(z, labels, np.zeros(4), Family("none"))
    assert fitted.likelihood > none.likelihood + 10


@pytest.mark.parametrize(
    ("p", "given", "message"),
    [
        (np.ones((3, 1)), [0, 0, 0], r"shape \(3, K\), K >= 2, got \(3, 1\)"),
        (np.ones((2, 2)), [0, 0, 0], r"shape \(3, K\), K >= 2, got \(2, 2\)"),
        (np.array([[0.5, np.nan]]), [0], "finite and at least 0"),
        (np.array([[0.5, -0.5]]), [0], "finite and at least 0"),
        (np.ones((1, 2)), [2], r"labels in \[0, 2\)"),
    ],
)
def test_wrong_input_is_refused(p, given, message):
    with pytest.raises(ValueError, match=message):
        decide(p, np.array(given))


def test_names_that_hard_images_resemble_are_found_as_often_as_by_a_classifier_that_believes_none():
    rng = np.random.default_rng(0)
    clean, p = classes_of(5000, 6, 2.4)
    u = hardness(p)
    wrong = rng.random(len(clean)) < 1 / (1 + np.exp(-(0.9 * u - 0.7)))
    names = p**0.4
    names[np.arange(len(clean)), clean] = 0
    given = np.where(wrong, draw(names / names.sum(axis=1, keepdims=True)), clean)
    found = decide(p, given)
    assert found.kind == "by image"
    assert f1(found.right < 0.5, wrong) > f1(p.argmax(axis=1) != given, wrong) - 0.01
    assert found.low <= wrong.mean() <= found.high
