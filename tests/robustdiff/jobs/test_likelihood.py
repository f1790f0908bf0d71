"""How bounds of single images become the figures of likelihood.json."""

import math

import pytest
import torch

from robustdiff.diffusion.likelihood import Bound
from robustdiff.jobs.likelihood import summary

PIXELS = 16


def test_bounds_become_bits_with_errors_parts_and_gains():
    generator = torch.Generator().manual_seed(0)
    names = ("true label", "no label", "given label")
    found = {
        name: Bound(*100 * torch.rand(3, 60, generator=generator, dtype=torch.float64))
        for name in names
    }
    labels = {"true label": torch.arange(60) % 3, "given label": torch.zeros(60).long()}
    content = summary(found, labels, PIXELS)
    wrong = labels["true label"] != 0
    assert content["wrong_share"] == pytest.approx(2 / 3)
    for where, figures in ((slice(None), content), (wrong, content["given_label_wrong"])):
        for name in names:
            bits = found[name].nats[where] / (PIXELS * math.log(2))
            mine = figures["bits_per_dim"][name]
            assert mine["mean"] == pytest.approx(float(bits.mean()))
            assert mine["standard_error"] == pytest.approx(float(bits.std()) / len(bits) ** 0.5)
            parts = mine["prior"] + mine["diffusion"] + mine["reconstruction"]
            assert mine["mean"] == pytest.approx(parts)
        assert figures["label_gain_bits"].keys() == {"true label", "given label"}
        for name, gain in figures["label_gain_bits"].items():
            bits = (found["no label"].nats - found[name].nats)[where] / math.log(2)
            assert gain["mean"] == pytest.approx(float(bits.mean()))
            assert gain["standard_error"] == pytest.approx(float(bits.std()) / len(bits) ** 0.5)


def test_labels_that_are_all_wrong_have_the_figures_of_all_images():
    each = torch.rand(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = dict.fromkeys(("true label", "no label", "given label"), Bound(each, each, each))
    labels = {"true label": torch.zeros(5).long(), "given label": torch.ones(5).long()}
    content = summary(found, labels, PIXELS)
    assert content["wrong_share"] == 1
    assert content["given_label_wrong"]["bits_per_dim"] == content["bits_per_dim"]
