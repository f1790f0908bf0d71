"""Judge a run: generate images, compare them with real ones, and the scores with the truth."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robustdiff.classifiers.image import load_or_train
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images
from robustdiff.data.registry import load_images
from robustdiff.diffusion.generate import class_labels
from robustdiff.files.atomic import write_text
from robustdiff.jobs.sample import sample_run
from robustdiff.labels.given import known_noise
from robustdiff.metrics.report import Reference, make_reference, measure
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.reports.pictures import image_grid, write_png
from robustdiff.runs.folder import Run
from robustdiff.runs.history import seconds_spent
from robustdiff.runs.scores import detect, load_scores

# One evaluator judges all runs on a dataset, so its seed is not the run's.
_EVALUATOR_SEED = 0
_MOST_SAMPLES = 1000


def classes_to_make(config: Config, images: Images) -> Tensor:
    """Return the classes of the images that an evaluation generates, (M,) int64.

    Raises:
        ValueError: If there are not as many held-out images to compare with.
    """
    rarest = int(torch.bincount(images.test_labels).min())
    count = config.eval.num_samples or min(_MOST_SAMPLES, rarest * images.num_classes)
    if not 2 * images.num_classes <= count <= rarest * images.num_classes:
        raise ValueError(
            f"num_samples must be between {2 * images.num_classes} and "
            f"{rarest * images.num_classes}: the floor takes as many held-out {images.name} images "
            f"of each class, and the rarest has {rarest}; got {count}"
        )
    return class_labels(count, images.num_classes)


@dataclass(frozen=True)
class Judge:
    """What generated images of a dataset are measured with.

    Attributes:
        reference: The real images, measured.
        digest: SHA-256 of the evaluator.
    """

    reference: Reference
    digest: str


def make_judge(
    run: Run,
    config: Config,
    images: Images,
    report: Report,
    *,
    seed: int,
    inception_weights: Path | None = None,
    evaluators: Path | None = None,
) -> Judge:
    """Measure a run's dataset; see `evaluate_run` for arguments and errors."""
    evaluator, digest = load_or_train(
        evaluators or run.path.resolve().parent / "evaluators",
        images.name,
        images.train,
        images.train_labels,
        images.num_classes,
        seed=_EVALUATOR_SEED,
        progress=lambda done, total: report.progress("training the evaluator", done, total),
    )
    classes = classes_to_make(config, images)
    reference = make_reference(
        real=images.train,
        real_labels=images.train_labels,
        heldout=images.test,
        heldout_labels=images.test_labels,
        counts=torch.bincount(classes, minlength=images.num_classes).tolist(),
        evaluator=evaluator,
        seed=seed,
        embed_images=_embedding(config, inception_weights),
    )
    return Judge(reference, digest)


def evaluate_run(
    run: Run,
    config: Config,
    report: Report,
    *,
    seed: int,
    inception_weights: Path | None,
    evaluators: Path | None = None,
    workers: Workers = ALONE,
) -> dict[str, Any]:
    """Evaluate a run and write metrics.json and a grid of samples.

    Args:
        run: The run.
        config: Its configuration; sample, eval and data sections may differ from the stored ones.
        report: Told about progress.
        seed: Seed of the generated images.
        inception_weights: File of Inception weights, for `eval.features = "inception"`.
        evaluators: Folder that keeps evaluators; None is "evaluators" beside the run.
        workers: Those that share the sampling; the leader alone measures and writes.

    Returns:
        The content of metrics.json; {} in processes other than the leader.

    Raises:
        ValueError: If the run, its dataset or the Inception weights cannot be used.
    """
    labels = run.labels()
    images = load_images(config.data, report)
    classes = classes_to_make(config, images)
    generated = sample_run(run, config, images, classes, seed, report, workers)
    if not workers.leader:
        return {}
    judge = make_judge(
        run,
        config,
        images,
        report,
        seed=seed,
        inception_weights=inception_weights,
        evaluators=evaluators,
    )
    measured = measure(judge.reference, generated, classes)
    stored, noise = load_scores(run), known_noise(config.data, labels)
    trust = None if stored is None else stored.trust
    training, scoring, preparing = seconds_spent(
        run, min(config.train.batch_size, len(images.train))
    )
    result = {
        "run": str(run.path),
        "dataset": images.name,
        "noise": noise,
        "noise_type": "unknown" if noise is None else labels.noise_type,
        "curriculum": config.curriculum.name,
        "objective": config.objective.name,
        "seed": config.seed,
        **measured,
        "detection": None if stored is None else detect(stored.scores, labels),
        "estimated_noise": None if trust is None or math.isnan(trust.noise) else trust.noise,
        "temperature": None if trust is None else trust.temperature,
        "training_seconds": training,
        "scoring_seconds": scoring,
        "preparing_seconds": preparing,
        "features": config.eval.features,
        "evaluator_sha256": judge.digest,
        "guidance": config.sample.guidance,
        "guidance_weight": config.sample.guidance_weight,
        "sampler": config.sample.sampler,
        "steps": config.sample.steps,
    }
    columns = images.num_classes
    write_png(run.samples / "eval.png", image_grid(generated[: 10 * columns], columns))
    write_text(run.metrics_file, json.dumps(result, indent=2, allow_nan=False) + "\n")
    return result


def _embedding(config: Config, weights: Path | None) -> Callable[[Tensor], Tensor] | None:
    if config.eval.features == "classifier":
        return None
    from robustdiff.metrics.inception import inception_features

    return lambda pictures: inception_features(pictures, weights)
