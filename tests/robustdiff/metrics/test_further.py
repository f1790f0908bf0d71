import json

import pytest
import torch

from robustdiff.metrics.catalogue import FURTHER
from robustdiff.metrics.distribution import classwise_frechet, frechet_distance
from robustdiff.metrics.further import measure_further
from robustdiff.metrics.neighbours import density_coverage
from robustdiff.metrics.report import Seen, make_reference, measure, principal_axes, see

INTERVALS = (
    *("fid", "class_fid", "fid_infinity", "class_fid_infinity"),
    *("nll", "label_accuracy", "density", "coverage"),
)


def balanced(labels, count, seed=7):
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[labels[order] == label][:count] for label in range(10)])


def pixels(images):
    return images.flatten(1).double() / 255


@pytest.fixture(scope="module")
def compared(digits, evaluator):
    def compare(count, seed=0, **options):
        return make_reference(
            real=digits.train,
            real_labels=digits.train_labels,
            heldout=digits.test,
            heldout_labels=digits.test_labels,
            counts=[count] * 10,
            evaluator=evaluator,
            seed=seed,
            **options,
        )

    return compare


def both(reference, digits, count):
    """Training images as if they were generated."""
    chosen = balanced(digits.train_labels, count)
    seen = see(reference, digits.train[chosen], digits.train_labels[chosen])
    measured = measure(reference, seen)
    return seen, measured, measure_further(reference, seen, measured)


@pytest.fixture(scope="module")
def plain(compared, digits):
    reference = compared(30)
    return reference, *both(reference, digits, 30)


@pytest.fixture(scope="module")
def in_two_spaces(compared, digits):
    reference = compared(30, embed_images=pixels)
    return reference, *both(reference, digits, 30)


def test_every_figure_has_its_floor_and_is_valid_json(plain):
    _, _, _, found = plain
    assert json.loads(json.dumps(found, allow_nan=False)) == json.loads(json.dumps(found))
    figures = [m for m in FURTHER if m.key in found]
    assert {m.key for m in FURTHER} - {m.key for m in figures} == {
        *("cas", "evaluator_fid", "evaluator_class_fid", "evaluator_density"),
        *("evaluator_coverage", "features_class_fid"),
        *("copies", "nearest"),
    }
    expected = {key for m in figures for key in (m.key, m.real)}
    assert found.keys() == expected | {f"{key}_interval" for key in INTERVALS}


def test_intervals_hold_their_figures(plain):
    _, _, measured, found = plain
    for key in INTERVALS:
        low, high = found[f"{key}_interval"]
        assert low <= (measured | found)[key] <= high + 1e-12
        assert low < high


def test_a_floor_without_bias_is_about_nothing(plain, compared, digits):
    reference, _, measured, found = plain
    # One choice of real images is off by about half of the bias.
    chosen = [both(compared(30, seed=seed), digits, 30)[1:] for seed in range(8)]
    for key in ("fid", "class_fid"):
        plainly = sum(one[f"{key}_floor"] for one, _ in chosen)
        without_bias = sum(one[f"{key}_infinity_floor"] for _, one in chosen)
        assert abs(without_bias) < 0.4 * plainly
        assert found[f"{key}_infinity"] < measured[key]
    seen = reference.heldout
    low, high = measure_further(reference, seen, measure(reference, seen))["fid_infinity_interval"]
    assert low < 0 < high


def test_held_out_images_in_the_place_of_generated_ones_get_the_floor(plain):
    reference, *_ = plain
    seen = reference.heldout
    found = measure_further(reference, seen, measure(reference, seen))
    for metric in FURTHER:
        if metric.key in found:
            assert found[metric.key] == found[metric.real]


def test_shuffled_labels_are_seen_within_the_classes_alone(plain):
    reference, seen, _, right = plain
    order = torch.randperm(len(seen.labels), generator=torch.Generator().manual_seed(1))
    wrong = seen._replace(labels=seen.labels[order])
    found = measure_further(reference, wrong, measure(reference, wrong))
    for key in ("precision", "recall"):
        assert found[key] == right[key]
    assert found["class_fid_infinity"] > 10 * right["class_fid_infinity_floor"] + 1
    assert found["class_coverage"] < right["class_coverage"] / 2
    assert found["class_density"] < right["class_density"] / 2


def test_figures_are_there_in_both_spaces(in_two_spaces, plain):
    reference, seen, measured, found = in_two_spaces
    one_space, _, plain_measured, _ = plain
    for key in ("fid", "class_fid", "density", "coverage"):
        assert found[f"evaluator_{key}"] == pytest.approx(plain_measured[key], rel=1e-6)
    for key, floor in (("fid", "fid_floor"), ("density", "density_real")):
        assert found[f"evaluator_{floor}"] == pytest.approx(one_space.partners[floor], rel=1e-6)
        assert measured[key] != found[f"evaluator_{key}"]
    project = principal_axes(reference.real.features, 32)
    expected, _ = classwise_frechet(
        project(reference.real.features),
        reference.real.labels,
        project(seen.features),
        seen.labels,
        10,
    )
    assert found["features_class_fid"] == pytest.approx(expected, rel=1e-6)


def test_a_distance_by_given_axes_is_the_one_of_the_features(compared, digits):
    reference = compared(30, embed_images=pixels, class_axes=8)
    _, measured, found = both(reference, digits, 30)
    assert found["features_class_fid"] == measured["class_fid"]
    assert found["evaluator_class_fid"] != measured["class_fid"]


@pytest.mark.parametrize(
    ("count", "missing"),
    [
        (5, {"class_density", "class_coverage"}),
        (2, {"class_density", "class_coverage", "class_fid_infinity"}),
        (1, {"class_density", "class_coverage", "class_fid_infinity", "fid_infinity"}),
    ],
)
def test_a_handful_of_images_has_no_figure_that_needs_more(compared, digits, count, missing):
    reference = compared(count)
    _, _, found = both(reference, digits, count)
    figures = {m.key for m in FURTHER if m.key in found and not m.key.startswith("evaluator")}
    assert {key for key in figures if found[key] is None} == missing
    assert all(found[m.real] is None for m in FURTHER if m.key in missing)
    few = found["fid_interval"] is None
    assert few == (found["nll_interval"] is None) == (count == 1)
    assert (found["class_fid_interval"] is None) == ("class_fid_infinity" in missing)


def test_what_the_evaluator_sees_is_what_its_figures_compare(in_two_spaces):
    reference, seen, _, found = in_two_spaces
    assert isinstance(seen, Seen)
    real = reference.real.evaluator_features
    assert found["evaluator_fid"] == frechet_distance(real, seen.evaluator_features)
    near = density_coverage(real[reference.centres], seen.evaluator_features)
    assert (found["evaluator_density"], found["evaluator_coverage"]) == near
