import json

import pytest
import torch

from robustdiff.classifiers.image import embed
from robustdiff.metrics.report import evaluate, principal_axes

KEYS = [
    "num_samples",
    "fid",
    "fid_floor",
    "class_fid",
    "class_fid_floor",
    "class_fid_per_class",
    "kid",
    "kid_floor",
    "inception_score",
    "inception_score_real",
    "nll",
    "nll_real",
    "nll_per_class",
    "label_accuracy",
    "label_accuracy_real",
    "density",
    "density_real",
    "coverage",
    "coverage_real",
]
IMAGES_ONLY = ("fid", "kid", "inception_score", "density", "coverage")


@pytest.fixture(scope="module")
def pretended(digits):
    """Training images as if they were generated, 20 per class, classes mixed."""
    order = torch.randperm(len(digits.train), generator=torch.Generator().manual_seed(7))
    labels = digits.train_labels[order]
    chosen = torch.cat([order[labels == c][:20] for c in range(10)])
    chosen = chosen[torch.randperm(200, generator=torch.Generator().manual_seed(8))]
    return digits.train[chosen], digits.train_labels[chosen]


@pytest.fixture(scope="module")
def judged(digits, evaluator):
    def measure(images, labels, **changes):
        arguments = {
            "real": digits.train,
            "real_labels": digits.train_labels,
            "heldout": digits.test,
            "heldout_labels": digits.test_labels,
            "generated": images,
            "generated_labels": labels,
            "evaluator": evaluator,
            "seed": 0,
        }
        return evaluate(**(arguments | changes))

    return measure


@pytest.fixture(scope="module")
def right(judged, pretended):
    return judged(*pretended)


def test_the_report_has_its_keys_is_valid_json_and_repeats(right, judged, pretended):
    assert list(right) == KEYS
    assert right["num_samples"] == 200
    assert len(right["class_fid_per_class"]) == len(right["nll_per_class"]) == 10
    before = torch.get_rng_state()
    assert json.loads(json.dumps(judged(*pretended), allow_nan=False)) == right
    assert torch.equal(torch.get_rng_state(), before)


def test_real_images_score_like_real_images(right):
    assert right["label_accuracy_real"] > 0.95
    assert right["nll_real"] < 0.1
    assert right["inception_score_real"] > 9
    assert right["density_real"] == pytest.approx(1, abs=0.25)
    assert right["coverage_real"] == pytest.approx(0.969, abs=0.05)
    assert 0 < right["fid_floor"] < 0.5
    assert abs(right["kid_floor"]) < 0.1


def test_the_floor_is_what_the_same_held_out_images_get(digits, judged):
    """Only one choice of held-out images is possible here, so number and floor are of the same."""
    labels = digits.test_labels.sort(stable=True).values
    smallest = int(torch.bincount(labels).min())
    keep = torch.cat([torch.nonzero(digits.test_labels == c)[:smallest, 0] for c in range(10)])
    images, labels = digits.test[keep], digits.test_labels[keep]
    report = judged(images, labels, heldout=images, heldout_labels=labels)
    for name in ("fid", "class_fid"):
        assert report[name] == pytest.approx(report[f"{name}_floor"], rel=1e-6)
    for name in ("nll", "label_accuracy", "inception_score", "density", "coverage"):
        assert report[name] == pytest.approx(report[f"{name}_real"], rel=1e-6)


def test_wrong_labels_change_only_what_looks_at_labels(right, judged, pretended):
    images, labels = pretended
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    wrong = judged(images, labels[order])
    for name in IMAGES_ONLY:
        assert wrong[name] == right[name]
    assert wrong["nll"] > right["nll"] + 3
    assert wrong["class_fid"] > 10 * right["class_fid"]
    assert wrong["label_accuracy"] < 0.3


def test_a_dropped_mode_shows_in_the_distribution_and_not_in_the_likelihood(
    right, judged, digits, pretended
):
    few = torch.nonzero(digits.train_labels < 5)[:200, 0]
    _, labels = pretended
    dropped = judged(digits.train[few], labels)
    assert dropped["fid"] > 10 * right["fid"]
    assert dropped["inception_score"] < 6
    assert dropped["coverage"] < 0.7 * right["coverage"]


def test_repeated_images_lose_coverage_and_keep_the_likelihood(right, judged, pretended):
    images, labels = pretended
    prototypes = torch.cat([torch.nonzero(labels == c)[:2, 0].repeat(10) for c in range(10)])
    report = judged(images[prototypes], labels[prototypes])
    assert report["coverage"] < 0.6 * right["coverage"]
    assert report["fid"] > 2 * right["fid"]
    assert report["nll"] < right["nll"] + 0.05


def test_what_real_images_get_does_not_depend_on_the_generated_ones(right, judged, pretended):
    report = judged(255 - pretended[0], pretended[1])
    for name in KEYS:
        if name.endswith(("_floor", "_real")):
            assert report[name] == right[name]
        elif name != "num_samples":
            assert report[name] != right[name]


def test_images_on_half_the_scale_are_far_away(right, judged, pretended):
    images, labels = pretended
    assert judged(images // 2, labels)["fid"] > 10 * right["fid"]


def test_another_feature_space_replaces_the_distances_but_not_the_classifier(
    right, judged, pretended, evaluator
):
    same = judged(*pretended, embed_images=lambda images: embed(evaluator, images)[0])
    assert same == right
    pixels = judged(*pretended, embed_images=lambda images: images.flatten(1).double() / 255)
    for name in ("fid", "fid_floor", "kid", "kid_floor", "density", "density_real"):
        assert pixels[name] != right[name]
    for name in ("class_fid", "nll", "nll_real", "inception_score", "label_accuracy"):
        assert pixels[name] == right[name]


def test_more_images_than_the_floor_has_are_refused_with_the_largest_number(judged, digits):
    smallest = int(torch.bincount(digits.test_labels).min())
    labels = torch.arange(10).repeat_interleave(smallest + 1)
    images = digits.train[: len(labels)]
    with pytest.raises(ValueError, match=rf"largest num_samples allowed is {10 * smallest}$"):
        judged(images, labels)


def test_wrong_arguments_are_named(judged, pretended, digits):
    images, labels = pretended
    with pytest.raises(ValueError, match=r"generated images must be uint8"):
        judged(images.float(), labels)
    with pytest.raises(ValueError, match=r"held-out labels must be int64 of shape \(450,\)"):
        judged(images, labels, heldout_labels=digits.test_labels[:-1])
    with pytest.raises(ValueError, match="images of every class are needed, got 0 of class 9"):
        judged(images[labels < 9], labels[labels < 9])


def test_class_wise_distances_are_taken_on_principal_axes_of_another_feature_space(
    judged, pretended
):
    def pixels(images):
        return images.flatten(1).float()

    plain = judged(*pretended)
    other = judged(*pretended, embed_images=pixels)
    assert other["class_fid"] == plain["class_fid"]
    assert other["fid"] != plain["fid"]
    axes = judged(*pretended, embed_images=pixels, class_axes=8)
    assert axes["fid"] == other["fid"]
    assert axes["class_fid"] != plain["class_fid"]
    assert len(axes["class_fid_per_class"]) == 10
    assert axes["class_fid_floor"] > 0


def test_principal_axes_have_variance_one_and_no_more_than_there_are():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 3, generator=generator) @ torch.randn(3, 9, generator=generator) + 5
    for count, left in ((2, 2), (6, 3)):
        found = principal_axes(features, count)(features)
        torch.testing.assert_close(found.T.cov(), torch.eye(left).double())
        torch.testing.assert_close(found.mean(0), torch.zeros(left).double(), atol=1e-6, rtol=0)
