import itertools
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from curricula import (
    CURRICULA,
    TREATMENTS,
    CurriculumSampler,
    Selection,
    Trust,
    dynamics,
    gumbel_top_k,
    selected_share,
    spared,
    squared_error,
    trusted,
)
from curricula.draw import draw_order, standardise
from robustdiff.config.names import CurriculumName, TreatmentName


def predictions(seed=0, shape=(6, 1, 4, 4)):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_paired_dynamics_is_half_the_loss_decrease_less_the_step():
    target, new, old = predictions(0), predictions(1), predictions(2)
    decrease = squared_error(target, old) - squared_error(target, new)
    expected = (decrease - squared_error(new, old)) / 2
    torch.testing.assert_close(dynamics(target, new, new, old), expected)


@pytest.mark.parametrize("name", [n for n in CURRICULA if n.startswith("dynamics")])
def test_dynamics_vanish_when_nothing_moved(name):
    same = predictions(1)
    entry = CURRICULA[name]
    outputs = dict.fromkeys(entry.forwards, same)
    assert (entry.compute(predictions(0), outputs) == 0).all()


def test_dynamics_uncond_uses_the_residual_with_label_and_the_motion_without():
    target, given, null, old = (predictions(i) for i in range(4))
    scores = CURRICULA["dynamics-uncond"].compute(
        target, {"given": given, "null": null, "old_null": old}
    )
    expected = ((target - given) * (null - old)).flatten(1).mean(1)
    torch.testing.assert_close(scores, expected)


def computed(name, target, outputs):
    return CURRICULA[name].compute(target, outputs)


@given(st.integers(0, 1000))
def test_the_dynamics_scores_are_parts_of_each_other(seed):
    target, *moved = (predictions(seed + i) for i in range(5))
    f = dict(zip(("given", "null", "old_given", "old_null"), moved, strict=True))
    by_label = computed("dynamics-label", target, f)
    torch.testing.assert_close(
        by_label,
        computed("dynamics-cond", target, f) - computed("dynamics-uncond", target, f),
    )
    # S = S1 - S2: a part that is blind to the label, less the part that the label has.
    along = computed("dynamics-guidance", target, f)
    blind = dynamics(target, f["null"], f["null"], f["old_null"])
    torch.testing.assert_close(computed("dynamics-uncond", target, f), blind - along)
    # And by the change of pmi, on equal probes.
    old = {"given": f["old_given"], "null": f["old_null"]}
    gain = computed("pmi", target, f) - computed("pmi", target, old)
    steps = squared_error(f["given"], f["old_given"]) - squared_error(f["null"], f["old_null"])
    torch.testing.assert_close(by_label, gain / 2 + along - steps / 2)


def test_the_label_is_learnt_where_only_the_conditional_prediction_improves():
    target, old = predictions(0), predictions(1)
    better, worse = old + 0.1 * (target - old), old - 0.1 * (target - old)
    still = {"null": old, "old_given": old, "old_null": old}
    assert (computed("dynamics-label", target, {"given": better} | still) > 0).all()
    assert (computed("dynamics-label", target, {"given": worse} | still) < 0).all()


def test_the_unconditional_prediction_moves_towards_a_right_label():
    given, old = predictions(0), predictions(1)
    for share, sign in ((0.1, 1), (-0.1, -1)):
        outputs = {"given": given, "null": old + share * (given - old), "old_null": old}
        assert (sign * computed("dynamics-guidance", predictions(2), outputs) > 0).all()


def test_pmi_is_high_where_the_label_helps():
    target, null = predictions(0), predictions(1)
    helped, misled = target + 0.1 * (null - target), target + 2 * (null - target)
    compute = CURRICULA["pmi"].compute
    assert (compute(target, {"given": helped, "null": null}) > 0).all()
    assert (compute(target, {"given": misled, "null": null}) < 0).all()


def test_small_loss_prefers_the_small_loss():
    target = predictions(0)
    near = CURRICULA["small-loss"].compute(target, {"given": target + 0.1})
    far = CURRICULA["small-loss"].compute(target, {"given": target + 0.5})
    assert (near > far).all()


def test_names_of_the_configuration_are_those_of_the_registry():
    assert set(get_args(CurriculumName)) == set(CURRICULA)
    assert set(get_args(TreatmentName)) == set(TREATMENTS)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"smoothing": 3.0}, r"smoothing must be in \[0, 1\), got 3.0"),
        ({"dk": 1.0}, r"dk must be in \[0, 1\)"),
        ({"temperature": -1.0}, "temperature must be at least 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be at least 0"),
        ({"k": 0.5, "mk": 0.9}, "0 <= mk <= k <= 1, got 0.9 and 0.5"),
        ({"k": 2.0}, "0 <= mk <= k <= 1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, says):
    with pytest.raises(ValueError, match=says):
        Selection(**setting)


@pytest.mark.parametrize(
    ("name", "treatment", "says"),
    [
        ("foo", None, "unknown curriculum 'foo'; choose from aum,"),
        ("pmi", "nul", "unknown treatment 'nul'; choose from none, select"),
    ],
)
def test_unknown_names_are_refused(name, treatment, says):
    with pytest.raises(ValueError, match=says):
        CurriculumSampler(name, 4, seed=0, selection=Selection(treatment=treatment))


def test_gumbel_top_k_follows_sequential_weighted_draws():
    weights = np.array([1.0, 2.0, 3.0, 4.0])
    rng, reference = np.random.default_rng(0), np.random.default_rng(1)
    ours, theirs = np.zeros(4), np.zeros(4)
    for _ in range(20_000):
        ours[gumbel_top_k(np.log(weights), 2, rng)] += 1
        theirs[reference.choice(4, 2, replace=False, p=weights / 10)] += 1
    np.testing.assert_allclose(ours / 20_000, theirs / 20_000, atol=0.02)


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 60), st.floats(0.01, 1), st.floats(0, 5), st.integers(0, 99))
def test_an_epoch_holds_distinct_indices_of_the_stated_number(count, share, temperature, epoch):
    scores = np.random.default_rng(0).normal(size=count)
    order = draw_order(0, epoch, count, scores=scores, share=share, temperature=temperature)
    assert len(order) == max(1, round(share * count)) == len(set(order.tolist()))
    assert set(order.tolist()) <= set(range(count))


@settings(deadline=None, derandomize=True)
@given(st.floats(0.1, 1), st.floats(0, 0.9), st.floats(0, 1))
def test_the_share_shrinks_from_k_to_mk(k, dk, part):
    mk = max(1e-3, part * k)
    shares = [selected_share(r, k, dk, mk) for r in range(1, 30)]
    assert shares[0] == k
    assert all(a >= b >= mk for a, b in itertools.pairwise(shares))


def test_standardised_scores_ignore_scale_shift_and_survive_ties():
    scores = np.random.default_rng(0).normal(size=101)
    np.testing.assert_allclose(standardise(scores), standardise(7 * scores + 3))
    assert np.isfinite(standardise(np.array([1.0, 1.0, 1.0, 5.0]))).all()
    assert (standardise(np.ones(5)) == 0).all()


def test_equal_scores_draw_uniformly():
    hits = np.zeros(10)
    for epoch in range(4000):
        hits[draw_order(0, epoch, 10, scores=np.ones(10), share=0.3, temperature=9)] += 1
    np.testing.assert_allclose(hits / 4000, 0.3, atol=0.03)


def test_order_is_a_function_of_seed_epoch_and_scores_and_survives_saving():
    selection = Selection(treatment="select", k=0.5)
    first = CurriculumSampler("pmi", 50, seed=4, selection=selection)
    first.update(np.arange(50.0))
    copy = CurriculumSampler("pmi", 50, seed=4, selection=selection)
    copy.load_state_dict(first.state_dict())
    assert copy.trust.right.tolist() == first.trust.right.tolist()
    assert (first.order(7) == copy.order(7)).all()
    assert (first.order(7) != first.order(8)).any()
    ranks = [first.order(7)[rank::3] for rank in range(3)]
    assert sorted(np.concatenate(ranks)) == sorted(first.order(7))


def test_scores_are_smoothed_and_the_first_is_taken_whole():
    sampler = CurriculumSampler("pmi", 2, seed=0, selection=Selection(smoothing=0.75))
    assert sampler.update(np.array([1.0, -1.0])).tolist() == [1, -1]
    assert sampler.update(np.array([5.0, 3.0])).tolist() == [2, 0]


def test_suspects_lose_their_label_and_can_win_it_back():
    given_labels = np.array([0, 0, 0])
    sampler = CurriculumSampler("pmi", 3, seed=0, selection=Selection())
    assert sampler.labels(given_labels, 5).labels.tolist() == [0, 0, 0]
    sampler.update(np.array([1.0, -1.0, 0.0]))
    assert sampler.labels(given_labels, 5).labels.tolist() == [0, 5, 0]
    sampler.update(np.array([1.0, 3.0, 0.0]))
    assert sampler.labels(given_labels, 5).labels.tolist() == [0, 0, 0]
    assert len(sampler.order(0)) == 3


CLASSES = np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.3, 0.4]])


def treated(treatment):
    sampler = CurriculumSampler("crossfit", 3, seed=0, selection=Selection(treatment=treatment))
    given_labels = np.array([0, 0, 2])

    def judge(evidence):
        return np.zeros(3), Trust(evidence[np.arange(3), given_labels], 0.3, evidence)

    sampler.update(CLASSES, judge)
    return sampler.labels(given_labels, 3)


def test_treatments_do_what_they_say():
    assert treated("none").labels.tolist() == [0, 0, 2]
    # The third label is below one half, but the only one of its class: it stays in use.
    assert treated("null").labels.tolist() == [0, 3, 2]
    assert treated("relabel").labels.tolist() == [0, 1, 2]
    soft = treated("soft").soft
    np.testing.assert_allclose(soft[:2], CLASSES[:2], rtol=1e-6)
    assert soft[2].tolist() == [0, 0, 1]
    weights = treated("reweight").weights
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose(weights / weights[0], np.array([0.9, 0.2, 0.5]) / 0.9, rtol=1e-6)


@settings(deadline=None, derandomize=True)
@given(st.integers(0, 99), st.integers(2, 5))
def test_a_class_that_would_lose_all_labels_keeps_them_all(seed, k):
    rng = np.random.default_rng(seed)
    given_labels = rng.integers(0, k, 200)
    right = rng.random(200) * (given_labels != 0)  # class 0 is wholly distrusted
    used = trusted(right, given_labels)
    np.testing.assert_array_equal(used, (right >= 0.5) | (given_labels == 0))


def rare_class(peak, wrong=50):
    """Trust where class 2 has 10 images of its own and `wrong` others; `peak` is their p(2)."""
    given_labels = np.repeat([0, 1, 2, 2], [100, 100, 10, wrong])
    clean = np.repeat([0, 1, 2, 0], [100, 100, 10, wrong])
    image_classes = 0.96 * np.eye(3)[clean] + 0.04 / 3
    image_classes[200:210] = [(1 - peak) * 0.6, (1 - peak) * 0.4, peak]
    right = image_classes[np.arange(len(clean)), given_labels]
    return Trust(right, 0.2, image_classes, image_classes), given_labels, clean


@pytest.mark.parametrize("treatment", ["null", "relabel", "soft", "reweight"])
def test_a_class_that_was_not_learnt_is_left_alone(treatment):
    trust, given_labels, _ = rare_class(peak=0.3, wrong=150)
    left = spared(trust, given_labels)
    assert (left.right[given_labels == 2] == 0.5).all()
    assert "class {2} was not learnt" in left.doubts[0]
    used = TREATMENTS[treatment](left, given_labels, 3)
    assert (used.labels == given_labels).all()
    if used.soft is not None:
        # The labels of the class are never drawn otherwise, and no other image gets them.
        np.testing.assert_array_equal(used.soft[:, 2], given_labels == 2)
    # The other classes are judged as before, but for what is left out.
    np.testing.assert_allclose(left.classes.sum(axis=1), 1)
    others = given_labels != 2
    np.testing.assert_allclose(left.right[others], left.classes[others, given_labels[others]])


def test_a_rare_class_that_was_learnt_loses_its_wrong_labels():
    trust, given_labels, clean = rare_class(peak=0.9, wrong=150)
    left = spared(trust, given_labels)
    assert left is trust
    np.testing.assert_array_equal(TREATMENTS["relabel"](left, given_labels, 3).labels, clean)


def test_no_other_image_is_moved_into_a_class_that_was_not_learnt():
    trust, given_labels, _ = rare_class(peak=0.3)
    moved = trust.classes.copy()
    moved[:5] = [0.1, 0.1, 0.8]  # as given 0, looks like 2, then like nothing else
    moved[5] = [0.0, 0.0, 1.0]
    left = spared(
        trust._replace(classes=moved, right=moved[np.arange(260), given_labels]), given_labels
    )
    labels = TREATMENTS["relabel"](left, given_labels, 3).labels
    np.testing.assert_array_equal(labels == 2, given_labels == 2)
    np.testing.assert_allclose(left.classes[:5], [[0.5, 0.5, 0]] * 5)
    assert left.classes[5].tolist() == [1, 0, 0]


def test_without_classes_a_class_whose_labels_look_wrong_keeps_them():
    given_labels = np.arange(300) % 3
    right = np.where(given_labels == 1, 0.1, 0.9)
    right[1] = 0.9  # one in a hundred looks right
    left = spared(Trust(right, 0.3), given_labels)
    assert trusted(left.right, given_labels).all()
    assert left.doubts
    right[given_labels == 1] = np.where(np.arange(100) < 10, 0.9, 0.1)
    assert spared(Trust(right, 0.3), given_labels).doubts == ()


def used_by_class(used, given_labels, num_classes):
    """How much of every class's labels training hears of, (K,)."""
    shares = np.zeros((len(given_labels), num_classes + 1))
    shares[np.arange(len(given_labels)), used.labels] = 1
    if used.soft is not None:
        shares = used.soft
    heard = shares[np.arange(len(given_labels)), given_labels]
    if used.weights is not None:
        heard = heard * (used.weights >= 0.5 * used.weights.max())
    return np.bincount(given_labels, heard, num_classes)


@pytest.mark.parametrize("treatment", ["null", "reweight", "relabel", "soft"])
@pytest.mark.parametrize("lost", [[0], [0, 1, 2]])
def test_no_treatment_drops_a_class(treatment, lost):
    given_labels = np.arange(300) % 3
    right = np.where(np.isin(given_labels, lost), 0.0, 1.0)
    classes = np.zeros((300, 3))
    classes[np.arange(300), np.where(right > 0, given_labels, (given_labels + 1) % 3)] = 1
    used = TREATMENTS[treatment](Trust(right, 0.5, classes), given_labels, 3)
    np.testing.assert_array_equal(used_by_class(used, given_labels, 3), [100, 100, 100])
    if used.weights is not None:
        assert used.weights.mean() == pytest.approx(1)


def test_a_draw_by_score_loses_no_class():
    given_labels = np.arange(3000) % 3
    scores = np.random.default_rng(0).normal(size=3000) - 50 * (given_labels == 1)
    setting = {"scores": scores, "share": 0.3, "temperature": 1.0}
    plain = draw_order(0, 5, 3000, **setting)
    assert not (given_labels[plain] == 1).any()
    drawn = draw_order(0, 5, 3000, **setting, given=given_labels)
    assert len(drawn) == len(set(drawn.tolist())) == 900
    assert np.bincount(given_labels[drawn])[1] == 30
    # Only as much is exchanged as the quota asks for, and again the same.
    assert len(np.setdiff1d(plain, drawn)) == 30
    np.testing.assert_array_equal(drawn, draw_order(0, 5, 3000, **setting, given=given_labels))
    assert (drawn[:100] != draw_order(0, 6, 3000, **setting, given=given_labels)[:100]).any()


@settings(deadline=None, derandomize=True)
@given(st.integers(1, 80), st.integers(1, 6), st.floats(0.01, 1), st.integers(0, 99))
def test_every_class_has_its_quota_where_the_draw_is_large_enough(count, k, share, seed):
    rng = np.random.default_rng(seed)
    given_labels = rng.integers(0, k, count)
    scores = rng.normal(size=count) + 20 * given_labels
    setting = {"scores": scores, "share": share, "temperature": 2.0}
    plain, drawn = (
        draw_order(seed, 0, count, **setting, given=labels) for labels in (None, given_labels)
    )
    assert len(drawn) == len(plain) == len(set(drawn.tolist()))
    counts, found = np.bincount(given_labels), np.bincount(given_labels[drawn], minlength=k)
    quota = np.where(counts > 0, np.maximum(1, np.rint(0.1 * len(drawn) / count * counts)), 0)
    if quota.sum() <= len(drawn):
        assert (found[: len(quota)] >= quota).all()


def test_labels_change_no_draw_that_has_every_class():
    given_labels = np.arange(500) % 5
    scores = np.random.default_rng(0).normal(size=500)
    setting = {"scores": scores, "share": 0.5, "temperature": 1.0}
    np.testing.assert_array_equal(
        draw_order(3, 1, 500, **setting), draw_order(3, 1, 500, **setting, given=given_labels)
    )


def test_what_was_not_measured_keeps_its_evidence():
    sampler = CurriculumSampler("margin", 2, seed=0, selection=Selection(smoothing=0.5))

    def judge(evidence):
        return evidence[:, 0], Trust(np.ones(2), 0.0)

    sampler.update(np.array([[0.0, 2.0], [0.0, 4.0]]), judge)
    sampler.update(np.array([[0.0, 4.0], [0.0, np.nan]]), judge)
    np.testing.assert_array_equal(sampler.evidence, [[0, 3], [0, 4]])
    with pytest.raises(ValueError, match="finite, got nan for sample 1"):
        CurriculumSampler("margin", 2, seed=0, selection=Selection()).update(
            np.array([[0.0, 1.0], [0.0, np.nan]]), judge
        )


@pytest.mark.parametrize(
    ("name", "treatment", "says"),
    [
        ("uniform", "select", "has none"),
        ("uniform", "null", "has none"),
        ("pmi", "relabel", "knows the classes"),
    ],
)
def test_impossible_treatments_are_refused(name, treatment, says):
    with pytest.raises(ValueError, match=says):
        CurriculumSampler(name, 3, seed=0, selection=Selection(treatment=treatment))


@pytest.mark.parametrize("scores", [np.ones(4), np.array([1.0, np.nan, 0.0])])
def test_bad_scores_are_refused(scores):
    with pytest.raises(ValueError, match="scores must"):
        CurriculumSampler("pmi", 3, seed=0, selection=Selection()).update(scores)


def test_a_plain_classifier_can_use_a_curriculum():
    """Small loss finds wrong labels of a scikit-learn classifier; no diffusion anywhere."""
    images, clean = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    wrong = rng.random(len(clean)) < 0.3
    given_labels = np.where(wrong, (clean + rng.integers(1, 10, len(clean))) % 10, clean)
    model = MLPClassifier((32,), random_state=0)
    selection = Selection(k=0.9, mk=0.6)
    sampler = CurriculumSampler("small-loss", len(clean), seed=0, selection=selection)
    target = torch.eye(10, dtype=torch.float64)[torch.from_numpy(given_labels)]
    for epoch in range(12):
        order = sampler.order(epoch)
        for batch in np.array_split(order, len(order) // 32):
            model.partial_fit(images[batch] / 16, given_labels[batch], classes=np.arange(10))
        output = torch.from_numpy(model.predict_proba(images / 16))
        scores = CURRICULA["small-loss"].compute(target, {"given": output})
        sampler.update(scores.numpy())
    drawn = sampler.order(99)
    assert wrong[drawn].mean() < 0.15


@pytest.mark.parametrize(
    ("name", "treatment", "shape"),
    [
        ("margin", "null", (4, 3)),
        ("crossfit", None, (4, 3)),
        ("margin", "select", (4, 3)),
        ("forgetting", "null", (4,)),
        ("small-loss", "reweight", (4,)),
    ],
)
def test_scores_that_do_not_say_which_labels_are_right_need_a_judge(name, treatment, shape):
    held = CurriculumSampler(name, 4, seed=0, selection=Selection(treatment=treatment))
    with pytest.raises(ValueError, match="give `update` a judge"):
        held.update(np.zeros(shape))
    assert held.rounds == 0
    held.update(np.zeros(shape), lambda _: (np.zeros(4), Trust(np.ones(4), 0.0)))
    assert held.rounds == 1


def test_scores_without_a_zero_estimate_no_noise():
    held = CurriculumSampler("small-loss", 4, seed=0, selection=Selection())
    held.update(np.arange(4.0))
    assert np.isnan(held.trust.noise)


def test_only_scores_of_classes_have_columns():
    held = CurriculumSampler("pmi", 4, seed=0, selection=Selection())
    with pytest.raises(ValueError, match=r"shape \(4,\), got \(4, 1\)"):
        held.update(np.zeros((4, 1)))
