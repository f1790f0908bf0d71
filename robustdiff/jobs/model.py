"""A run's model as it generates: its weights, its guidance, the labels' noise undone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from curricula.types import Doubles
from robustdiff.classifiers.noisy_image import TimeClassifier, train_time_classifier
from robustdiff.config.sections import Config, SampleConfig
from robustdiff.data.arrays import Images, LabelledImages, Subject
from robustdiff.data.rows import check_same_names
from robustdiff.device import check_compiler, keep_freed_memory, pick_device, set_precision
from robustdiff.diffusion.guidance import Guide, autoguidance, classifier_free, classifier_guidance
from robustdiff.diffusion.label_noise import check_transition, without_label_noise
from robustdiff.diffusion.model import Model, bind
from robustdiff.diffusion.schedules import SCHEDULES
from robustdiff.errors import DamagedError
from robustdiff.files.caches import keep_compiled
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.runs.folder import PublishedRun, Run, open_run
from robustdiff.runs.scores import estimated_transition, transition_digest
from robustdiff.training.task import build_network

_CLASSIFIER_FILE = "time_classifier.safetensors"
_UNDOING_FILE, _DIGITS = "time_classifier-{}.safetensors", 12


def load_model(
    run: Run, config: Config, images: Images | Subject, *, compiled: bool = False
) -> Model:
    """Load a run's averaged weights, on the device and in the precision of its configuration.

    Args:
        run: The run.
        config: Its configuration.
        images: Its dataset, or what it is of, for shapes and classes.
        compiled: Compile the network, anew for each shape of its inputs.

    Raises:
        ValueError: If the device is not there, or no compiler.
        DamagedError: If the run's weights cannot be used.
    """
    network = build_network(config.model, images.image_shape, images.num_classes, config.seed)
    run.load_weights(network)
    device = pick_device(config.train.device)
    network = network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    if compiled:
        check_compiler("sample.compile")
        keep_compiled()
        network.compile(dynamic=False)
    keep_freed_memory()
    dtype = set_precision(config.train.precision, device)
    schedule, prediction = config.diffusion.schedule, config.diffusion.prediction
    return bind(network, schedule, prediction, null_class=images.num_classes, dtype=dtype)


def check_guidance(sample: SampleConfig) -> None:
    """Refuse guidance by a weaker run that is not there, or not trained, before any work.

    Raises:
        ValueError: If it is not.
    """
    if sample.weak is not None:
        open_run(Path(sample.weak)).check_trained()


def check_label_noise(run: Run, sample: SampleConfig) -> None:
    """Refuse to undo label noise that cannot be undone, before any work.

    Raises:
        ValueError: If the run has no images, or its label noise no estimate of use.
        DamagedError: If the estimate is damaged.
    """
    if sample.undo_label_noise:
        _transition(run)


def _transition(run: Run) -> Doubles:
    """Return the estimate of a run's label noise, (K, K), which can be undone."""
    if isinstance(run, PublishedRun):
        raise ValueError(
            f"undoing label noise trains a classifier on a run's images, and {run.path} is a "
            "published model without any"
        )
    transition = estimated_transition(run)
    if transition is None:
        raise ValueError(
            f"sample.undo_label_noise needs an estimate of the label noise of {run.path}, and "
            f"there is none: `robustdiff audit {run.path} --by crossfit` makes one"
        )
    check_transition(transition)
    return transition


def generating_model(
    run: Run, config: Config, images: Images | Subject, report: Report, workers: Workers = ALONE
) -> Model:
    """Load a run's model as it generates: with the labels' noise undone, if that is asked for.

    Args:
        run: The run.
        config: Its configuration; the sample section may differ from the stored one.
        images: Its dataset, or what it is of, for shapes and classes.
        report: Receives progress.
        workers: The leader trains the classifier that this takes, and saves it; the others load it.

    Raises:
        ValueError: If the device is not there, or no compiler, or the noise cannot be undone.
        DamagedError: If the run's weights cannot be used.
    """
    model = load_model(run, config, images, compiled=config.sample.compile)
    if not config.sample.undo_label_noise:
        return model
    transition = workers.from_leader(lambda: _transition(run))
    assert isinstance(images, Images)
    path = run.path / _UNDOING_FILE.format(transition_digest(transition)[:_DIGITS])
    classifier = workers.leader_first(
        lambda: _time_classifier(run, config, images, report, path, transition)
    )
    for other in set(run.path.glob(_UNDOING_FILE.format("*"))) - {path}:
        other.unlink(missing_ok=True)  # of an earlier estimate
    return without_label_noise(model, transition, classifier)


def _classifier_free(run: Run, config: Config, images: Images | Subject, report: Report) -> Guide:
    return classifier_free


def _auto(run: Run, config: Config, images: Images | Subject, report: Report) -> Guide:
    weak = open_run(Path(config.sample.weak or ""))
    other = weak.config()
    for what, mine, its in (
        ("dataset", config.data.dataset, other.data.dataset),
        ("data.image_size", config.data.image_size, other.data.image_size),
        ("diffusion.schedule", config.diffusion.schedule, other.diffusion.schedule),
    ):
        if mine != its:
            raise ValueError(
                f"the weaker run must have the {what} of the run, which is {mine!r}, "
                f"got {its!r} in {weak.path}"
            )
    theirs = weak.subject()
    if theirs is not None:
        if theirs.image_shape != images.image_shape:
            raise ValueError(
                f"the weaker run must be of images of {_size(images)}, got {_size(theirs)} "
                f"in {weak.path}"
            )
        check_same_names(
            images.class_names,
            f"the run {run.path}",
            theirs.class_names,
            f"the weaker run {weak.path}",
        )
    # Where the run computes, and as it does: the weaker run may have been trained elsewhere.
    device, precision = config.train.device, config.train.precision
    other = replace(other, train=replace(other.train, device=device, precision=precision))
    return autoguidance(load_model(weak, other, images, compiled=config.sample.compile))


def _size(images: Images | Subject) -> str:
    return " x ".join(map(str, images.image_shape))


def _classifier(run: Run, config: Config, images: Images | Subject, report: Report) -> Guide:
    """Return guidance by a classifier of the run's given labels, trained once for each run."""
    if isinstance(images, Subject):
        raise ValueError(
            f"guidance by a classifier trains it on a run's images, and {run.path} is a published "
            "model without any; choose another --guidance"
        )
    trained = _time_classifier(
        run, config, images, report, run.path / _CLASSIFIER_FILE, np.eye(images.num_classes)
    )
    return classifier_guidance(lambda x_t, t: trained(x_t.float(), t))


def _time_classifier(
    run: Run, config: Config, images: Images, report: Report, path: Path, transition: Doubles
) -> TimeClassifier:
    """Return the classifier of noisy images in a file; train it if it is not there, or damaged."""
    device = pick_device(config.train.device)
    classifier = TimeClassifier(images.image_shape[0], images.num_classes)
    try:
        load_weights(path, classifier)
    except DamagedError:
        given = torch.from_numpy(run.labels().given)
        if len(given) != len(images.train):
            raise ValueError(
                f"a classifier of noisy images is trained on all {len(given)} images of run "
                f"{run.path}, and {len(images.train)} are there"
            ) from None
        classifier = train_time_classifier(
            LabelledImages(images.train, given).to(device),
            images.num_classes,
            transition=transition,
            schedule=SCHEDULES[config.diffusion.schedule],
            seed=config.seed,
            progress=report.stage("classifying noisy images"),
        )
        save_weights(path, classifier)
    return classifier.to(device).eval().requires_grad_(requires_grad=False)


GUIDES: dict[str, Callable[[Run, Config, Images | Subject, Report], Guide]] = {
    "classifier-free": _classifier_free,
    "classifier": _classifier,
    "auto": _auto,
}


def make_guide(run: Run, config: Config, images: Images | Subject, report: Report) -> Guide:
    """Load or train what the configured guidance needs besides the run's own model.

    Raises:
        ValueError: If the weaker run does not fit.
    """
    return GUIDES[config.sample.guidance](run, config, images, report)
