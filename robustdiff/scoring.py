"""Scoring rounds: run a diffusion model on every sample's probes and reduce to one score each.

A probe is a fixed (t, eps) keyed by (seed, sample, round, k): the same for every label and for old
and new weights, so that differences between predictions are not differences between draws.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curricula.scores import Curriculum, Forward
from robustdiff.config import CurriculumConfig
from robustdiff.data import LabelledImages
from robustdiff.guidance import drop_labels
from robustdiff.model import Model
from robustdiff.process import diffuse, per_image
from robustdiff.rng import Stream, normal, uniform

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What a scoring round needs to know besides the models.

    Attributes:
        seed: Seed of the run.
        p_uncond: Label dropout of the "dropped" forwards.
        settings: Number, times and pairing of the probes.
    """

    seed: int
    p_uncond: float
    settings: CurriculumConfig


class Probe(NamedTuple):
    """Noisy images of a batch of samples at one draw.

    Attributes:
        eps: (B, C, H, W) float32, the regression target.
        x_t: (B, C, H, W) float32.
        t: (B,) float64.
        kept: (B,) int64 labels after random dropping.
    """

    eps: Tensor
    x_t: Tensor
    t: Tensor
    kept: Tensor


def make_probe(
    model: Model, probing: Probing, batch: tuple[Tensor, Tensor, Tensor], round_number: int, k: int
) -> Probe:
    """Draw the k-th probe of a round for a batch.

    Args:
        model: For its schedule and null class.
        probing: Settings.
        batch: Images (B, C, H, W) float32 in [-1, 1]; given labels (B,) int64; sample indices (B,)
            int64, which key the draws.
        round_number: Scoring round.
        k: Number of the probe in [0, probes); its time falls into the k-th stratum.

    Returns:
        The probe; equal arguments give an equal probe.
    """
    x_0, labels, index = batch
    key = (probing.seed, Stream.PROBE, round_number, index)
    low, high = probing.settings.probe_times
    # Two draw numbers per probe keep its time and its noise independent.
    u = uniform(*key, draw=2 * k)[:, 0]
    t = low + (high - low) * (k + u) / probing.settings.probes
    eps = normal(*key, tuple(x_0.shape[1:]), draw=2 * k + 1)
    alpha, sigma = (per_image(part, x_0) for part in model.schedule(t))
    drop = uniform(probing.seed, Stream.PROBE_DROP, round_number, index, draw=k)[:, 0]
    kept = drop_labels(labels, drop, probing.p_uncond, model.null_class)
    return Probe(eps, diffuse(x_0, eps, alpha, sigma), t, kept)


@torch.inference_mode()
def prediction_scores(
    curriculum: Curriculum,
    probing: Probing,
    data: LabelledImages,
    model: Model,
    old_model: Model | None,
    round_number: int,
) -> NDArray[np.float64] | None:
    """Score every sample by its predictions, averaged over its probes.

    Args:
        curriculum: Entry of `CURRICULA` with source "predictions".
        probing: Settings.
        data: Images and given labels.
        model: Current weights, in evaluation mode.
        old_model: Weights of the previous round, None if there was none.
        round_number: Number of this round, keys the probes.

    Returns:
        (N,) float64, or None if the score compares with a previous round and there is none.
    """
    compute = curriculum.compute
    if compute is None or (curriculum.needs_previous and old_model is None):
        return None
    redrawn = curriculum.needs_previous and probing.settings.pairing == "redrawn"
    scores = torch.zeros(len(data), dtype=torch.float64)
    for where in torch.split(torch.arange(len(data)), _BATCH):
        batch = data[where]
        for k in range(probing.settings.probes):
            probe = make_probe(model, probing, batch, round_number, k)
            old_probe = make_probe(model, probing, batch, round_number - 1, k) if redrawn else probe
            outputs: dict[Forward, Tensor] = {}
            for name in curriculum.forwards:
                if name.startswith("old_") and old_model is not None:
                    outputs[name] = _predict(name, old_model, old_probe, batch[1])
                else:
                    outputs[name] = _predict(name, model, probe, batch[1])
            scores[where] += compute(probe.eps, outputs).double().cpu()
    return (scores / probing.settings.probes).numpy()


def _predict(name: Forward, model: Model, probe: Probe, given: Tensor) -> Tensor:
    labels = {
        "given": given,
        "dropped": probe.kept,
        "null": torch.full_like(given, model.null_class),
    }
    return model.eps(probe.x_t, probe.t, labels[name.removeprefix("old_")])
