import dataclasses

import numpy as np
import pytest
import torch

from curricula import CURRICULA
from curricula.sparse import keep_few
from robustdiff.config.images import DataConfig
from robustdiff.config.sections import ModelConfig
from robustdiff.data.arrays import LabelledImages
from robustdiff.data.registry import load_images
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.nets.unet import UNet
from robustdiff.diffusion.process import PREDICTIONS
from robustdiff.diffusion.schedules import cosine
from robustdiff.labels import scoring
from robustdiff.labels.scoring import Probing, class_evidence, make_probe, prediction_scores
from robustdiff.progress import Report

ROWS = torch.arange(20)


def shifting(shift, used):
    """A model whose error depends on the label: wrong by `shift[label]`."""

    def network(x_t, t, labels):
        used.append(labels.unflatten(0, (len(x_t), -1)))
        return x_t.repeat_interleave(used[-1].shape[1], dim=0) + shift[labels].reshape(-1, 1, 1, 1)

    return Model(network, cosine, PREDICTIONS["eps"], null_class=10)


def probing(**changes):
    return Probing(seed=0, p_uncond=0.5, **changes)


def small_data(labels=None):
    images = load_images(DataConfig(), Report())
    given = images.train_labels[:20] if labels is None else labels
    return LabelledImages(images.train[:20], given)


def test_probes_are_the_same_for_every_label_and_stratified_in_time():
    data, where = small_data(), torch.arange(20)
    model = shifting(torch.zeros(11), [])
    x, labels, index = data[where]
    chosen = probing(probes=4, times=(0.2, 0.6))
    for k in range(4):
        a = make_probe(model, chosen, (x, labels, index), 3, k)
        b = make_probe(model, chosen, (x, labels.flip(0), index), 3, k)
        assert torch.equal(a.x_t, b.x_t)
        assert (a.t >= 0.2 + 0.1 * k).all()
        assert (a.t <= 0.3 + 0.1 * k).all()
        again = make_probe(model, chosen, (x, labels, index), 4, k)
        assert not torch.isclose(a.eps, again.eps).any()


def test_a_snapshot_equal_to_the_model_gives_dynamics_of_0():
    model = shifting(torch.rand(11), [])
    for name in ("dynamics-cond", "dynamics-uncond", "dynamics-dropout"):
        scores = prediction_scores(CURRICULA[name], probing(), small_data(), model, model, ROWS, 1)
        if name == "dynamics-dropout":  # old and new share the dropped labels too
            assert (scores == 0).all()
        assert abs(scores).max() == 0


def test_redrawn_probes_make_dynamics_of_an_unmoved_model_noise():
    model = shifting(torch.rand(11), [])
    chosen = probing(redrawn=True)
    scores = prediction_scores(
        CURRICULA["dynamics-cond"], chosen, small_data(), model, model, ROWS, 1
    )
    assert (scores != 0).all()


def test_dynamics_uncond_motion_does_not_depend_on_the_label():
    """With the residual's label part gone, the score of the fix is blind to labels."""
    shift = torch.zeros(11)
    moved = torch.zeros(11)
    moved[10] = 0.3
    old, new = shifting(shift, []), shifting(moved, [])
    entry = CURRICULA["dynamics-uncond"]
    one = prediction_scores(entry, probing(), small_data(), new, old, ROWS, 1)
    labels = small_data().given.flip(0)
    other = prediction_scores(entry, probing(), small_data(labels), new, old, ROWS, 1)
    np.testing.assert_array_equal(one, other)


def test_scores_call_each_forward_with_the_right_labels():
    used = []
    model = shifting(torch.rand(11), used)
    data = small_data()
    prediction_scores(CURRICULA["pmi"], probing(probes=1), data, model, None, ROWS, 0)
    (labels,) = used  # one forward for both
    assert torch.equal(labels[:, 0], data.given)
    assert (labels[:, 1] == 10).all()


def test_dynamics_have_no_score_before_a_second_round():
    model = shifting(torch.rand(11), [])
    for name in ("dynamics-cond", "dynamics-uncond"):
        assert (
            prediction_scores(CURRICULA[name], probing(), small_data(), model, None, ROWS, 0)
            is None
        )


def test_class_evidence_is_the_error_of_the_given_label_less_that_of_each_class():
    shift = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    # The model predicts eps = x_t + shift; at t near 1, x_t is nearly eps.
    data = small_data(torch.full((20,), 3))
    chosen = probing(probes=2, times=(0.97, 0.99), rivals=2)
    whole = class_evidence(chosen, data, shifting(shift, []), None, ROWS, 0)
    expected = 0.3**2 - shift[:10].double().numpy() ** 2
    np.testing.assert_allclose(whole, np.broadcast_to(expected, (20, 10)), atol=0.12)
    assert (whole[:, 3] == 0).all()
    used = []
    again = class_evidence(chosen, data, shifting(shift, used), whole, ROWS, 0)
    assert len(used) == 2  # one forward a probe
    assert all((labels == torch.tensor([3, 0, 1])).all() for labels in used)
    tried = ~np.isnan(again)
    assert (tried == np.isin(np.arange(10), [0, 1, 3])).all()
    np.testing.assert_allclose(again[tried], whole[tried])


def test_of_many_classes_the_likeliest_are_kept_and_tried_again(monkeypatch):
    shift = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    data = small_data(torch.full((20,), 3))
    chosen = probing(probes=2, times=(0.97, 0.99), rivals=2)
    whole = class_evidence(chosen, data, shifting(shift, []), None, ROWS, 0)
    monkeypatch.setattr(scoring, "MOST_DENSE", 9)
    chosen = dataclasses.replace(chosen, batch_size=90)  # the last batch has one sample
    some = class_evidence(chosen, data, shifting(shift, []), None, ROWS[::2], 0)
    few = keep_few(whole, data.given.numpy())
    np.testing.assert_allclose(some[::2], few[::2], atol=1e-6)
    assert np.isnan(some.values[1::2]).all()
    assert np.isnan(some.rest[1::2]).all()
    used = []
    again = class_evidence(chosen, data, shifting(shift, used), few, ROWS, 0)
    assert all((labels == torch.tensor([3, 0, 1])).all() for labels in used)
    np.testing.assert_array_equal(again.classes, few.classes)
    tried = ~np.isnan(again.values)
    assert (tried == np.isin(few.classes, [0, 1, 3])).all()
    np.testing.assert_allclose(again.values[tried], few.values[tried])
    assert np.isnan(again.rest).all()


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_scores_do_not_depend_on_how_many_run_at_once(prediction):
    torch.manual_seed(0)
    config = ModelConfig(channels=(8, 16), cen="complete-bottleneck")
    network = UNet(config, image_channels=1, num_classes=10).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model = Model(network, cosine, PREDICTIONS[prediction], null_class=10)
    data, one, many = small_data(), [], []
    for found, batch in ((many, 512), (one, 1)):
        how = probing(probes=2, batch_size=batch)
        found.append(class_evidence(how, data, model, None, ROWS, 0))
        for name in ("pmi", "dynamics-uncond"):
            args = (CURRICULA[name], how, data, model, model, ROWS, 0)
            found.append(prediction_scores(*args))
    for a, b in zip(one, many, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
    # Class by class, as the definition says.
    labels, index = data.given, torch.arange(20)
    error = torch.zeros(20, 10)
    with torch.no_grad():
        for k in range(2):
            probe = make_probe(model, probing(probes=2), (data[index][0], labels, index), 0, k)
            for c in range(10):
                eps = model.eps(probe.x_t, probe.t, torch.full((20,), c))
                error[:, c] += (probe.eps - eps).square().flatten(1).mean(1) / 2
    expected = error.gather(1, labels[:, None]) - error
    np.testing.assert_allclose(many[0], expected, rtol=1e-4, atol=1e-5)


def test_only_the_rows_that_are_asked_for_are_scored():
    rows, model = torch.tensor([3, 7]), shifting(torch.rand(11), [])
    scores = prediction_scores(CURRICULA["pmi"], probing(), small_data(), model, None, rows, 0)
    gains = class_evidence(probing(), small_data(), model, None, rows, 0)
    assert np.flatnonzero(~np.isnan(scores)).tolist() == [3, 7]
    assert np.flatnonzero(~np.isnan(gains).any(axis=1)).tolist() == [3, 7]
