"""Scoring rounds: run a diffusion model on every sample's probes and reduce to one score each.

A probe is a fixed (t, eps) keyed by (seed, sample, round, k): the same for every label and for old
and new weights, so that differences between predictions are not differences between draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from curricula.scores import Curriculum, Forward
from curricula.sparse import MOST_DENSE, ClassValues, SparseClasses, keep_few, unknown
from curricula.types import Floats
from robustdiff.data.arrays import LabelledImages
from robustdiff.diffusion.guidance import drop_labels
from robustdiff.diffusion.model import Model
from robustdiff.diffusion.process import diffuse, per_image
from robustdiff.rng import Stream, normal, uniform


@dataclass(frozen=True, kw_only=True)
class Probing:
    """How a scoring round probes the samples.

    Attributes:
        seed: Seed of the run.
        p_uncond: Label dropout of the "dropped" forwards, in [0, 1].
        probes: Number of probes per sample.
        times: (low, high) range of the probes' times, stratified within.
        rivals: Classes that `class_evidence` tries besides the given one; None for all.
        redrawn: Whether the weights of the previous round are evaluated on the probes of that
            round, in place of those of this one.
        batch_size: Images times labels in one forward.
    """

    seed: int
    p_uncond: float
    probes: int = 4
    times: tuple[float, float] = (0.5, 0.95)
    rivals: int | None = 2
    redrawn: bool = False
    batch_size: int = 512


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
        probing: See `Probing`.
        batch: Images (B, C, H, W) float32 in [-1, 1]; given labels (B,) int64; sample indices (B,)
            int64, which key the draws.
        round_number: Scoring round.
        k: Number of the probe in [0, probes); its time falls into the k-th stratum.

    Returns:
        The probe; equal arguments give an equal probe.
    """
    x_0, labels, index = batch
    key = (probing.seed, Stream.PROBE, round_number, index)
    low, high = probing.times
    # Two draw numbers per probe keep its time and its noise independent.
    u = uniform(*key, draw=2 * k)[:, 0]
    t = low + (high - low) * (k + u) / probing.probes
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
    rows: Tensor,
    round_number: int,
) -> Floats | None:
    """Score every sample by its predictions, averaged over its probes.

    Args:
        curriculum: Entry of `CURRICULA` with source "predictions".
        probing: See `Probing`.
        data: Images and given labels.
        model: Current weights, in evaluation mode.
        old_model: Weights of the previous round, None if there was none.
        rows: (M,) int64 samples to score.
        round_number: Number of this round, keys the probes.

    Returns:
        (N,) float32, NaN for other samples; None if the score compares with a previous round and
        there is none.
    """
    compute = curriculum.compute
    if compute is None or (curriculum.needs_previous and old_model is None):
        return None
    old = [name for name in curriculum.forwards if name.startswith("old_")]
    new = [name for name in curriculum.forwards if name not in old]
    redrawn = curriculum.needs_previous and probing.redrawn
    scores = torch.full((len(data),), float("nan"))
    parts = torch.split(rows, max(1, probing.batch_size // len(curriculum.forwards)))
    for where, batch in zip(parts, data.batches(parts), strict=True):
        total = torch.zeros(len(where), dtype=torch.float64)
        for k in range(probing.probes):
            probe = make_probe(model, probing, batch, round_number, k)
            old_probe = make_probe(model, probing, batch, round_number - 1, k) if redrawn else probe
            outputs = _predict(new, model, probe, batch[1])
            if old_model is not None:
                outputs |= _predict(old, old_model, old_probe, batch[1])
            total += compute(probe.eps, outputs).double().cpu()
        scores[where] = (total / probing.probes).float()
    return scores.numpy()


def _predict(
    names: Sequence[Forward], model: Model, probe: Probe, given: Tensor
) -> dict[Forward, Tensor]:
    """Predict eps under several labels in one forward."""
    if not names:
        return {}
    labels = {
        "given": given,
        "dropped": probe.kept,
        "null": torch.full_like(given, model.null_class),
    }
    tried = torch.stack([labels[name.removeprefix("old_")] for name in names], dim=1)
    eps = model.eps_under(probe.x_t, probe.t, tried)
    return dict(zip(names, eps.unbind(1), strict=True))


@torch.inference_mode()
def class_evidence(
    probing: Probing,
    data: LabelledImages,
    model: Model,
    previous: ClassValues | None,
    rows: Tensor,
    round_number: int,
) -> ClassValues:
    """Compare how well each class denoises each sample (diffusion classifier, Li et al. 2023).

    Args:
        probing: See `Probing`; rivals are the likeliest other classes by the previous evidence.
        data: Images and given labels.
        model: Current weights, in evaluation mode.
        previous: (N, K) evidence so far, None to try every class. Where it is sparse, the classes
            that it keeps are tried, and no others.
        rows: (M,) int64 samples to score.
        round_number: Number of this round, keys the probes.

    Returns:
        (N, K) float32, the error under the given label less that under each class, mean over
        pixels and probes; NaN for what was not tried. Sparse for many classes, of which then only
        the likeliest are kept; classes of samples that were not scored are 0.
    """
    count = model.null_class
    if previous is None and count > MOST_DENSE:
        return _first_of_many(probing, data, model, rows, round_number)
    if previous is None:
        return every_class(probing, data, model, rows, round_number)
    held = previous.values if isinstance(previous, SparseClasses) else previous
    evidence = torch.full(held.shape, float("nan"))
    count = held.shape[1]
    if probing.rivals is not None:
        count = min(probing.rivals + 1, count)
    parts = torch.split(rows, max(1, probing.batch_size // count))
    for where, batch in zip(parts, data.batches(parts), strict=True):
        given, so_far = batch[1].cpu(), torch.from_numpy(held[where.numpy()])
        if isinstance(previous, SparseClasses):
            classes = torch.from_numpy(previous.classes[where.numpy()]).long()
            place = _likeliest((classes == given[:, None]).long().argmax(1), so_far, count)
            tried = classes.gather(1, place)
        else:
            tried = place = _likeliest(given, so_far, count)
        gain = _gains(probing, batch, model, tried, round_number)
        evidence[where] = evidence[where].scatter(1, place, gain)
    if isinstance(previous, SparseClasses):
        # Nothing new is known of the classes left out.
        rest = np.full_like(previous.rest, np.nan)
        return replace(previous, values=evidence.numpy(), rest=rest)
    return evidence.numpy()


@torch.inference_mode()
def every_class(
    probing: Probing, data: LabelledImages, model: Model, rows: Tensor, round_number: int
) -> Floats:
    """Compare all classes; see `class_evidence`. Returns (N, K) float32, NaN for other samples."""
    evidence = torch.full((len(data), model.null_class), float("nan"))
    for where, gain in _all_gains(probing, data, model, rows, round_number):
        evidence[where] = gain
    return evidence.numpy()


def _first_of_many(
    probing: Probing, data: LabelledImages, model: Model, rows: Tensor, round_number: int
) -> SparseClasses:
    """Compare all classes, and keep the given one and the likeliest of every sample."""
    found = unknown(len(data), model.null_class)
    for where, gain in _all_gains(probing, data, model, rows, round_number):
        # As an array: a tensor of one index would be taken for a number.
        some, few = where.numpy(), keep_few(gain.numpy(), data.given[where].cpu().numpy())
        found.values[some], found.classes[some] = few.values, few.classes
        found.rest[some] = few.rest
    return found


def _all_gains(
    probing: Probing, data: LabelledImages, model: Model, rows: Tensor, round_number: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield samples, (B,), and the gains of all classes, (B, K)."""
    count = model.null_class
    parts = torch.split(rows, max(1, probing.batch_size // count))
    for where, batch in zip(parts, data.batches(parts), strict=True):
        tried = _likeliest(batch[1].cpu(), torch.zeros(len(where), count), count)
        gain = _gains(probing, batch, model, tried, round_number)
        yield where, torch.empty_like(gain).scatter(1, tried, gain)


def _gains(
    probing: Probing,
    batch: tuple[Tensor, Tensor, Tensor],
    model: Model,
    tried: Tensor,
    round_number: int,
) -> Tensor:
    """Return the error under the given label, which comes first, less that under each, (B, C)."""
    labels = tried.to(batch[1].device)
    total = torch.zeros(labels.shape, dtype=torch.float64)
    for k in range(probing.probes):
        probe = make_probe(model, probing, batch, round_number, k)
        error = (probe.eps[:, None] - model.eps_under(probe.x_t, probe.t, labels)).square()
        total += error.flatten(2).mean(2).double().cpu()
    return ((total[:, :1] - total) / probing.probes).float()


def _likeliest(given: Tensor, evidence: Tensor, count: int) -> Tensor:
    """Return (B, count) int64 distinct classes, the given one first, then by (B, K) evidence."""
    order = evidence.scatter(1, given[:, None], float("inf"))
    return order.argsort(dim=1, descending=True, stable=True)[:, :count]
