"""Labels of images, judged by classifiers that did not learn them, as a dataset for any trainer."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from curricula import TREATMENTS, CurriculumSampler, Selection
from curricula.scores import Treatment
from robustdiff.config.layers import choose, nested, resolve
from robustdiff.config.sections import Config
from robustdiff.device import native_precision, pick_device
from robustdiff.labels.crossfit import Crossfitted, crossfit, make_plan
from robustdiff.labels.probabilities import by_decision, label_scores
from robustdiff.progress import Report
from robustdiff.trainers.labels import Source, TrustedLabels, read_source


class RobustLabels(TrustedLabels):
    """Images with labels that are judged by the images, before anything is trained on them.

    Args:
        images: (N, C, H, W) array or tensor, uint8 or floating point in [0, 1]; or, without
            `labels`, a map-style dataset of (image, label). See `robustdiff.data.items`.
        labels: (N,) whole numbers, some of them wrong.
        settings: How they are judged, such as {"judge.effort": "quick", "judge.flip": False,
            "seed": 1, "train.device": "cpu"}: section judge without its files, the seed, and where
            it computes.
        treatment: What is done about wrong labels: "relabel", "soft", "null", "reweight",
            "select" or "none". A draw of "select" is as large as the share of right labels.
        num_classes: K; None for the largest label plus one.
        keys: What image and label are called, where the items of a dataset are mappings.
        cache: Folder, made if missing, that keeps what was computed: interrupted judging goes on
            there, and the same images and labels are judged at once. None keeps nothing.
        report: Receives progress; None for silence.

    Attributes:
        verdict: What was found, in words.

    Raises:
        ValueError: If images, labels or settings cannot be used.

    Example:
        >>> import numpy as np, robustdiff
        >>> y = np.arange(60) % 2
        >>> x = np.full((60, 8, 8), 200, np.uint8) * y[:, None, None].astype(np.uint8)
        >>> y[:6] = 1 - y[:6]
        >>> judged = robustdiff.RobustLabels(x, y, {"judge.effort": "quick"})
        >>> np.flatnonzero(judged.wrong).tolist(), judged.labels[:6].tolist()
        ([0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 0, 1])
    """

    def __init__(  # noqa: PLR0913 two ways to hand over images, and how they are judged
        self,
        images: Any,  # noqa: ANN401
        labels: Any = None,  # noqa: ANN401
        settings: Mapping[str, Any] | None = None,
        *,
        treatment: Treatment = "relabel",
        num_classes: int | None = None,
        keys: tuple[str, str] = ("image", "label"),
        cache: str | Path | None = None,
        report: Report | None = None,
    ) -> None:
        choose(treatment, TREATMENTS, "treatment")
        config = _config(settings)
        source = read_source(images, labels, num_classes, keys)
        found = _judge(source, config, cache, report or Report())
        trust, self.verdict = by_decision(found.decision, source.given)
        kept = 1.0 if math.isnan(trust.noise) else 1 - trust.noise
        curriculum = CurriculumSampler(
            "crossfit",
            len(source.given),
            seed=config.seed,
            selection=Selection(treatment=treatment, k=kept, mk=0.0),
        )
        scores = label_scores(trust, source.given)
        curriculum.update(found.probabilities, lambda _: (scores, trust))
        super().__init__(source, curriculum)


def _config(settings: Mapping[str, Any] | None) -> Config:
    able = "seed", "train.device"
    for key in settings or ():
        if key not in able and not key.startswith("judge."):
            raise ValueError(
                f"settings of labels are those of section judge, {', '.join(able)}; got {key}"
            )
    config = resolve(nested(dict(settings or {})))
    if config.judge.probabilities is not None or config.judge.features is not None:
        raise ValueError(
            "judge.probabilities and judge.features belong to a folder; "
            "audit it by robustdiff.audit_images"
        )
    return config


def _judge(source: Source, config: Config, cache: str | Path | None, report: Report) -> Crossfitted:
    images, given = source.images, torch.from_numpy(source.given)
    device = pick_device(config.train.device)
    dtype, shape = native_precision(device), tuple(images.shape[1:])
    plan = make_plan(config.judge, shape, len(images), seed=config.seed, dtype=dtype)
    folder = None
    if cache is not None:
        # All pixels: of many images a digest of some would find the verdict on others.
        digest = hashlib.sha256(f"{tuple(images.shape)} {plan}".encode())
        digest.update(images.contiguous().numpy().data)
        digest.update(source.given.data)
        folder = Path(cache).expanduser() / digest.hexdigest()[:12]
    return crossfit(
        images.to(device),
        given,
        source.num_classes,
        plan,
        progress=report.stage("judging the labels"),
        folder=folder,
    )
