"""A run's variational bound on held-out images, in bits per dimension: likelihood.json."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from robustdiff.config.sections import Config
from robustdiff.device import pick_device
from robustdiff.diffusion.likelihood import LOG_SNR_RANGE, Bound, bounds, draw_given, level_shares
from robustdiff.diffusion.noise_levels import log_snr_bounds
from robustdiff.files.atomic import sha256, write_text
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.model import load_model
from robustdiff.labels.given import known_noise
from robustdiff.progress import Report
from robustdiff.runs.folder import Run

FILE_NAME = "likelihood.json"
# More gain nothing and keep a machine busy for weeks, as with steps of sampling.
_MOST_LEVELS = 10_000


def likelihood_run(
    run: Run, config: Config, report: Report, *, num_images: int | None, num_levels: int, seed: int
) -> dict[str, Any]:
    """Bound the likelihood of held-out images under a run's model, and write likelihood.json.

    Each image has a bound under its true label, under no label and, if the run's labels are noisy,
    under a label drawn as those were. In float32, whatever the run's precision.

    Args:
        run: The run.
        config: Its configuration; the data section may differ from the stored one.
        report: Receives progress.
        num_images: Held-out images, None for at most 500.
        num_levels: Log-SNRs per image, from 1 to 10,000.
        seed: Root of the draws.

    Returns:
        The content of likelihood.json.

    Raises:
        ValueError: If there are not as many held-out images, the levels are out of range, or the
            run cannot be used.
    """
    if not 1 <= num_levels <= _MOST_LEVELS:
        raise ValueError(f"levels must be in [1, {_MOST_LEVELS}], got {num_levels}")
    run.check_trained()
    images, labels, _ = load_run_data(run, config, report)
    available = len(images.test)
    count = min(500, available) if num_images is None else num_images
    if not 2 <= count <= available:
        raise ValueError(
            f"num_images must be between 2 and {available}, the held-out images of {images.name}, "
            f"got {count}"
        )
    generator = torch.Generator().manual_seed(seed % 2**63)  # torch's are below 2^64
    which = torch.randperm(available, generator=generator)[:count]
    pictures, clean = images.test[which], images.test_labels[which]
    conditions = {"true label": clean, "no label": torch.full_like(clean, images.num_classes)}
    transition = torch.from_numpy(labels.nominal)
    if labels.realised_rate > 0:
        conditions["given label"] = draw_given(clean, transition, seed)
    exact = replace(config, train=replace(config.train, precision="fp32"))
    model, device = load_model(run, exact, images), pick_device(config.train.device)
    found = bounds(
        model,
        pictures.to(device),
        {name: part.to(device) for name, part in conditions.items()},
        num_levels=num_levels,
        seed=seed,
        shares=level_shares(images.train).to(device),
        progress=report.stage("bounding the likelihood"),
    )
    result = {
        "run": str(run.path),
        "dataset": images.name,
        "noise": known_noise(config.data, labels),
        "num_images": count,
        "levels": num_levels,
        "seed": seed,
        "log_snr": list(log_snr_bounds(model.schedule, LOG_SNR_RANGE)),
        "weights": sha256(run.weights_file),
        **summary(found, conditions, pictures[0].numel()),
    }
    write_text(run.path / FILE_NAME, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def summary(
    found: Mapping[str, Bound], labels: Mapping[str, Tensor], dimensions: int
) -> dict[str, Any]:
    """Return means and standard errors over images, as JSON holds them.

    Args:
        found: Name -> bound, of "true label", "no label" and perhaps "given label".
        labels: Name -> (N,) labels.
        dimensions: Numbers per image.

    Returns:
        `bits_per_dim`, an upper bound, for each name, with its three parts; `label_gain_bits` per
        image for each label, the bound without a label less that with it, which estimates their
        mutual information as far as both bounds are equally loose; both again for the images whose
        given label is wrong.
    """
    every = torch.ones(len(next(iter(labels.values()))), dtype=torch.bool)
    content = _over(found, every, dimensions)
    if "given label" in labels:
        wrong = labels["given label"] != labels["true label"]
        content["wrong_share"] = float(wrong.double().mean())
        if int(wrong.sum()) > 1:
            content["given_label_wrong"] = _over(found, wrong, dimensions)
    return content


def _over(found: Mapping[str, Bound], where: Tensor, dimensions: int) -> dict[str, Any]:
    per_dim = 1 / (dimensions * math.log(2))
    content: dict[str, Any] = {"bits_per_dim": {}, "label_gain_bits": {}}
    for name, bound in found.items():
        figures = _mean(bound.nats[where] * per_dim)
        for part in ("prior", "diffusion", "reconstruction"):
            figures[part] = float(getattr(bound, part)[where].mean()) * per_dim
        content["bits_per_dim"][name] = figures
        if name != "no label":
            gain = found["no label"].nats[where] - bound.nats[where]
            content["label_gain_bits"][name] = _mean(gain / math.log(2))
    return content


def _mean(values: Tensor) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "standard_error": float(values.std()) / math.sqrt(len(values)),
    }
