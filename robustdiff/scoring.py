"""Scoring rounds: run a diffusion model on every sample's probes and reduce to one score each.

A probe is a fixed (t, eps) keyed by (seed, sample, round, k): the same for every label and for old
and new weights, so that differences between predictions are not differences between draws.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curricula.scores import Curriculum, Forward
from robustdiff.config import CurriculumConfig
from robustdiff.data import LabelledImages
from robustdiff.guidance import Network, drop_labels
from robustdiff.process import Prediction, diffuse, per_image
from robustdiff.rng import Stream, normal, uniform
from robustdiff.schedules import Schedule

_BATCH = 512


@dataclass(frozen=True, kw_only=True)
class Probing:
    """What a scoring round needs to know besides the networks.

    Attributes:
        seed: Seed of the run.
        schedule: Noise schedule.
        prediction: What the networks predict.
        null_class: K.
        p_uncond: Label dropout of the "dropped" forwards.
        settings: Number, times and pairing of the probes.
    """

    seed: int
    schedule: Schedule
    prediction: Prediction
    null_class: int
    p_uncond: float
    settings: CurriculumConfig


@dataclass(frozen=True)
class Probe:
    """Noisy images of a batch of samples at one draw.

    Attributes:
        eps: (B, C, H, W) float32, the regression target.
        x_t: (B, C, H, W) float32.
        t: (B,) float64.
        alpha: (B, 1, 1, 1) float32.
        sigma: (B, 1, 1, 1) float32.
        kept: (B,) int64 labels after random dropping.
    """

    eps: Tensor
    x_t: Tensor
    t: Tensor
    alpha: Tensor
    sigma: Tensor
    kept: Tensor


def make_probe(
    probing: Probing, x_0: Tensor, labels: Tensor, index: Tensor, round_number: int, k: int
) -> Probe:
    """Draw the k-th probe of a round for a batch.

    Args:
        probing: Settings.
        x_0: (B, C, H, W) float32 in [-1, 1].
        labels: (B,) int64 given labels.
        index: (B,) int64 sample indices, which key the draws.
        round_number: Scoring round.
        k: Number of the probe in [0, probes); its time falls into the k-th stratum.

    Returns:
        The probe; equal arguments give an equal probe.
    """
    key = (probing.seed, Stream.PROBE, round_number, index)
    low, high = probing.settings.probe_times
    # A second draw number space keeps times and noise of one probe independent.
    u = uniform(*key, draw=2 * k)[:, 0]
    t = low + (high - low) * (k + u) / probing.settings.probes
    eps = normal(*key, tuple(x_0.shape[1:]), draw=2 * k + 1)
    alpha, sigma = (per_image(part, x_0) for part in probing.schedule(t))
    drop = uniform(probing.seed, Stream.PROBE_DROP, round_number, index, draw=k)[:, 0]
    kept = drop_labels(labels, drop, probing.p_uncond, probing.null_class)
    return Probe(eps, diffuse(x_0, eps, alpha, sigma), t, alpha, sigma, kept)


@torch.inference_mode()
def prediction_scores(
    curriculum: Curriculum,
    probing: Probing,
    data: LabelledImages,
    network: Network,
    old_network: Network | None,
    round_number: int,
) -> NDArray[np.float64] | None:
    """Score every sample by its predictions, averaged over its probes.

    Args:
        curriculum: Entry of `CURRICULA` with source "predictions".
        probing: Settings.
        data: Images and given labels.
        network: Current weights, in evaluation mode.
        old_network: Weights of the previous round, None if there was none.
        round_number: Number of this round, keys the probes.

    Returns:
        (N,) float64, or None if the score compares with a previous round and there is none.
    """
    compute = curriculum.compute
    needs_old = any(name.startswith("old_") for name in curriculum.forwards)
    if compute is None or (needs_old and old_network is None):
        return None
    scores = torch.zeros(len(data), dtype=torch.float64)
    probes = probing.settings.probes
    for start in range(0, len(data), _BATCH):
        where = torch.arange(start, min(start + _BATCH, len(data)))
        x_0, labels, index = data[where]
        for k in range(probes):
            probe = make_probe(probing, x_0, labels, index, round_number, k)
            then = probe
            if needs_old and probing.settings.pairing == "redrawn":
                then = make_probe(probing, x_0, labels, index, round_number - 1, k)
            outputs: dict[Forward, Tensor] = {}
            for name in curriculum.forwards:
                old = name.startswith("old_")
                at, model = (then, old_network) if old else (probe, network)
                assert model is not None
                outputs[name] = _eps(probing, model, at, _labels(name, at, labels, probing))
            scores[where] += compute(probe.eps, outputs).double().cpu() / probes
    return scores.numpy()


def _labels(name: Forward, probe: Probe, given: Tensor, probing: Probing) -> Tensor:
    kind = name.removeprefix("old_")
    if kind == "given":
        return given
    return probe.kept if kind == "dropped" else torch.full_like(given, probing.null_class)


def _eps(probing: Probing, network: Network, probe: Probe, labels: Tensor) -> Tensor:
    output = network(probe.x_t, probe.t, labels).float()
    return probing.prediction.to_eps(output, probe.x_t, probe.alpha, probe.sigma)
