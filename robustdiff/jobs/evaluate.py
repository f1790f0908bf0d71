"""Evaluate a run: its images against real ones, its scores against the truth."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corruptions import NoisyLabels
from curricula.types import Ints
from robustdiff.classifiers.pretrained import (
    EFFICIENTNET_LITE0,
    features_cache,
    load_network,
    pretrained_features,
)
from robustdiff.config.layers import to_plain
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, on_device
from robustdiff.device import pick_device
from robustdiff.diffusion.generate import class_labels
from robustdiff.files.checkpoint import steps_made
from robustdiff.jobs.audit import stored_findings
from robustdiff.jobs.dataset import RunData, load_run_data
from robustdiff.jobs.evaluator import evaluator_of
from robustdiff.jobs.model import check_label_noise
from robustdiff.jobs.sample import sample_run
from robustdiff.labels.given import known_noise
from robustdiff.metrics.cas import classification_accuracy, real_accuracy
from robustdiff.metrics.copies import find_copies
from robustdiff.metrics.further import measure_further
from robustdiff.metrics.report import CLASS_AXES, Reference, make_reference, measure, see
from robustdiff.metrics.resampling import accuracy_interval
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.reports.card import add_evaluation
from robustdiff.reports.pictures import class_grid, pair_grid, write_png
from robustdiff.runs.evaluations import digests_used, save_evaluation
from robustdiff.runs.folder import PublishedRun, Run
from robustdiff.runs.history import seconds_spent
from robustdiff.runs.scores import detect, load_scores
from robustdiff.training.task import total_steps

_DEFAULT_SAMPLES = 1000
# Pairs of generated images and their nearest training images that are shown.
_PAIRS = 16
# A study's runs lie so deep in its folder.
_STUDY_DEPTH = 3
# Seeds of torch's generators have 63 bits.
_SEEDS = 2**63


def classes_to_make(config: Config, images: Images) -> Tensor:
    """Return the classes of the images that an evaluation generates, (M,) int64.

    By default 1,000, or two of each class if that is more, as far as there are real images to put
    in their place: as many of each class, of those held out and of those trained on.

    Raises:
        ValueError: If more are asked for than there are real images, or fewer than classes.
    """
    k = images.num_classes
    parts = {"held-out": images.test_labels, "training": images.train_labels}
    rarest = {
        what: int(torch.bincount(labels, minlength=k).min()) for what, labels in parts.items()
    }
    part = min(rarest, key=lambda what: rarest[what])
    most = rarest[part] * k
    count = config.eval.num_samples or min(max(_DEFAULT_SAMPLES, 2 * k), most)
    if not k <= count <= most:
        raise ValueError(
            f"eval.num_samples must be between {k} and {most}: as many {part} {images.name} images "
            f"of each class are needed beside them, and the rarest has {rarest[part]}; got {count}"
        )
    return class_labels(count, k)


def load_reference(
    run: Run,
    config: Config,
    data: RunData,
    report: Report,
    *,
    seed: int,
    inception_weights: str | Path | None = None,
    evaluators: Path | None = None,
) -> tuple[Reference, dict[str, Any]]:
    """Measure the real images that a run's are compared with.

    Args:
        run: The run.
        config: Its configuration, for the eval section.
        data: Its dataset.
        report: Receives progress.
        seed: Seed of choices within metrics.
        inception_weights: See `evaluate_run`.
        evaluators: See `evaluate_run`.

    Returns:
        The reference, and what `evaluator_of` says of the evaluator.
    """
    images, folder = data.images, _evaluators(run, evaluators)
    evaluator, about = evaluator_of(config, images, data.labels, folder, report)
    classes = classes_to_make(config, images)
    reference = make_reference(
        real=images.train,
        real_labels=images.train_labels,
        heldout=images.test,
        heldout_labels=images.test_labels,
        counts=torch.bincount(classes, minlength=images.num_classes).tolist(),
        evaluator=evaluator,
        seed=seed % _SEEDS,
        embed_images=_embedding(config, images, inception_weights, report),
        class_axes=CLASS_AXES if config.eval.features == EFFICIENTNET_LITE0 else None,
    )
    return reference, about


def evaluate_run(
    run: Run,
    config: Config,
    report: Report,
    *,
    seed: int,
    inception_weights: str | Path | None = None,
    evaluators: Path | None = None,
    workers: Workers = ALONE,
) -> dict[str, Any]:
    """Evaluate a run and write metrics.json, a grid of samples, and the surest copies.

    Args:
        run: The run.
        config: Its configuration; sample, eval and data sections may differ from the stored ones.
        report: Receives progress.
        seed: Seed of the generated images.
        inception_weights: File of Inception weights, for `eval.features = "inception"`.
        evaluators: Folder that keeps evaluators; None is "evaluators" beside the run.
        workers: Those that share the sampling; the leader alone measures and writes.

    Returns:
        The content of metrics.json; {} in processes other than the leader.

    Raises:
        ValueError: If the run, its dataset or the network of the features cannot be used.
    """
    run.check_trained()
    check_features(config, inception_weights)
    check_label_noise(run, config.sample)
    data = load_run_data(run, config, report, published=True)
    images, labels, rows = data
    classes = classes_to_make(config, images)
    steps = total_steps(run.config(), len(labels.given))
    if (made := steps_made(run.checkpoints, steps)) < steps:
        report.message(f"{run.path} is evaluated after {made} of its {steps} steps")
    digests = digests_used(run, config)
    generated = sample_run(run, config, images, classes, seed, report, workers)
    if not workers.leader:
        return {}
    if digests_used(run, config) != digests:
        raise OSError(f"run {run.path} was trained or audited while it was evaluated; do it again")
    reference, evaluator = load_reference(
        run,
        config,
        data,
        report,
        seed=seed,
        inception_weights=inception_weights,
        evaluators=evaluators,
    )
    seen = see(reference, generated, classes)
    measured, cas = measure(reference, seen), {}
    if config.eval.cas:
        folder = _evaluators(run, evaluators)
        near = on_device(images, pick_device(config.train.device))
        cas = _cas(reference, near, generated, classes, folder, report)
    copies = find_copies(
        images.train,
        images.test,
        generated,
        pairs=_PAIRS,
        progress=report.stage("looking for copies of training images"),
    )
    metrics = {
        **_about(run, config, images, labels),
        **measured,
        **measure_further(reference, seen, measured),
        **cas,
        **copies.figures,
        **_about_scores(run, config, labels, rows),
        **evaluator,
        **digests,
        "trained_steps": made,
        "planned_steps": steps,
        "evaluation_seed": seed,
        **{name: to_plain(config)[name] for name in ("sample", "eval")},
    }
    columns = images.num_classes
    run.samples.mkdir(exist_ok=True)
    shown = columns * min(10, len(generated) // columns)
    write_png(run.samples / "eval.png", class_grid(generated[:shown], columns))
    write_png(run.path / "copies.png", pair_grid(copies.pairs))
    save_evaluation(run, metrics)
    if not isinstance(run, PublishedRun):  # whose card is its publisher's
        add_evaluation(run, metrics)
    return metrics


def _evaluators(run: Run, folder: Path | None) -> Path:
    """Return the folder that keeps evaluators: that of the study which a run belongs to, if any."""
    places = [above / "evaluators" for above in run.path.resolve().parents[:_STUDY_DEPTH]]
    return folder or next((place for place in places if place.is_dir()), places[0])


def _cas(
    reference: Reference,
    images: Images,
    generated: Tensor,
    classes: Tensor,
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    """Return the classification accuracy score, and that of as many real training images."""
    own = classification_accuracy(
        generated.to(images.train.device),
        classes,
        images.test,
        images.test_labels,
        images.num_classes,
        progress=report.stage("training on generated images"),
    )
    progress = report.stage("training on as many real images")
    real = real_accuracy(folder, images, reference.centres, progress=progress)
    return {
        "cas": float(own.double().mean()),
        "cas_real": float(real.double().mean()),
        "cas_interval": accuracy_interval(own),
    }


def _about(run: Run, config: Config, images: Images, labels: NoisyLabels) -> dict[str, Any]:
    """Return what a run is and how long it took, as metrics.json holds it."""
    noise, noise_type = known_noise(config.data, labels), labels.noise_type
    if isinstance(run, PublishedRun):
        noise, noise_type = run.facts().get("noise"), run.facts().get("noise_type", "")
    batch_size = min(config.train.batch_size, len(images.train))
    training, scoring, preparing = seconds_spent(run, batch_size)
    return {
        "run": str(run.path),
        "dataset": images.name,
        "noise": noise,
        "noise_type": "unknown" if noise is None else noise_type,
        "curriculum": config.curriculum.name,
        "objective": config.objective.name,
        "seed": config.seed,
        "training_seconds": training,
        "scoring_seconds": scoring,
        "preparing_seconds": preparing,
    }


def _about_scores(run: Run, config: Config, labels: NoisyLabels, rows: Ints) -> dict[str, Any]:
    """Return what a run's newest scores say about its labels, (M,) rows of the run's samples."""
    stored, found = load_scores(run), stored_findings(run, config, labels, rows)
    trust = None if stored is None else stored.trust
    flagged = None if found is None else found.issue
    return {
        "detection": None if stored is None else detect(stored.scores[rows], labels, flagged),
        "estimated_noise": None if trust is None or math.isnan(trust.noise) else trust.noise,
        "temperature": None if trust is None else trust.temperature,
    }


def check_features(config: Config, inception_weights: str | Path | None) -> None:
    """Refuse features that cannot be computed here, before any work.

    Args:
        config: Its eval section names the features.
        inception_weights: File of Inception weights, None to look for it.

    Raises:
        ValueError: If a package or weights are missing, or weights are given for other features.
        DamagedError: If the weights are not those of this network.
    """
    name = config.eval.features
    if name == EFFICIENTNET_LITE0:
        load_network(torch.float32, torch.device("cpu"))
    if name == "inception":
        from robustdiff.metrics.inception import load_inception

        load_inception(inception_weights)
    elif inception_weights is not None:
        raise ValueError(
            f"Inception weights go with eval.features = 'inception' (--features), got {name!r}"
        )


def _embedding(
    config: Config, images: Images, weights: str | Path | None, report: Report
) -> Callable[[Tensor], Tensor] | None:
    if config.eval.features == "classifier":
        return None
    if config.eval.features == EFFICIENTNET_LITE0:
        device = pick_device(config.train.device)
        return lambda pictures: pretrained_features(
            pictures.to(device),
            dtype=torch.float32,  # figures of several machines are compared
            cache=features_cache() if pictures is images.train else None,
            progress=report.stage(f"features of {EFFICIENTNET_LITE0}"),
        )
    from robustdiff.metrics.inception import inception_features

    return lambda pictures: inception_features(pictures, weights)
