"""Images by a trained run: load its model and guidance, generate, write files."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from corruptions.tables import first_few, whole
from robustdiff.classifiers.noisy_image import TimeClassifier, train_time_classifier
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, LabelledImages, Subject, to_uint8
from robustdiff.data.rows import check_same_names
from robustdiff.device import check_compiler, keep_freed_memory, pick_device, set_precision
from robustdiff.diffusion.generate import Trajectory, generate, generate_trajectory
from robustdiff.diffusion.guidance import Guide, autoguidance, classifier_free, classifier_guidance
from robustdiff.diffusion.model import Model, bind
from robustdiff.diffusion.schedules import SCHEDULES
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import check_folder, write_atomic
from robustdiff.files.caches import keep_compiled
from robustdiff.files.weights import load_weights, save_weights
from robustdiff.jobs.dataset import load_run_data
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.reports.pictures import class_grid, image_grid, write_png
from robustdiff.runs.folder import PublishedRun, Run, open_run
from robustdiff.training.task import build_network

_CLASSIFIER_FILE = "time_classifier.safetensors"
_LONGEST_NAME = 40
_MOST_COLUMNS = 12
# A picture of more rows takes longer to write than to generate, and few programs show it.
_MOST_ROWS = 100


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
    device = pick_device(config.train.device)
    path = run.path / _CLASSIFIER_FILE
    classifier = TimeClassifier(images.image_shape[0], images.num_classes)
    try:
        load_weights(path, classifier)
    except DamagedError:
        given = torch.from_numpy(run.labels().given)
        if len(given) != len(images.train):
            raise ValueError(
                f"guidance by a classifier trains it on all {len(given)} images of run {run.path}, "
                f"and {len(images.train)} are there"
            ) from None
        classifier = train_time_classifier(
            LabelledImages(images.train, given).to(device),
            images.num_classes,
            transition=np.eye(images.num_classes),
            schedule=SCHEDULES[config.diffusion.schedule],
            seed=config.seed,
            progress=report.stage("classifying noisy images"),
        )
        save_weights(path, classifier)
    trained = classifier.to(device).eval().requires_grad_(requires_grad=False)
    return classifier_guidance(lambda x_t, t: trained(x_t.float(), t))


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


def sample_run(
    run: Run,
    config: Config,
    images: Images | Subject,
    labels: Tensor,
    seed: int,
    report: Report,
    workers: Workers = ALONE,
) -> Tensor:
    """Generate images with a run's averaged weights.

    Args:
        run: The run.
        config: Its configuration; the sample section may differ from the stored one.
        images: Its dataset, or what it is of, for shapes and classes.
        labels: (M,) int64 classes to generate.
        seed: Seed of the images.
        report: Receives progress.
        workers: Those that share the work; each gets all images.

    Returns:
        (M, C, H, W) uint8.

    Raises:
        ValueError: If the run's weights or its guidance cannot be used.
    """
    shape = images.image_shape
    mine = workers.share(torch.arange(len(labels)))
    generated = torch.zeros(len(labels), *shape, dtype=torch.uint8)
    generated[mine] = generate(
        load_model(run, config, images, compiled=config.sample.compile),
        labels.to(pick_device(config.train.device)),
        shape,
        sample=config.sample,
        seed=seed,
        numbers=mine,
        # The leader trains and saves the classifier of guidance; the others load it.
        guide=workers.leader_first(lambda: make_guide(run, config, images, report)),
        progress=report.stage("sampling"),
    )
    return workers.total(generated)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which images to generate and what to write.

    Attributes:
        classes: Numbers or names of the classes to generate, None for all.
        per_class: Images of each, at least 1.
        seed: Seed of the images.
        trajectory: Write the states of all sampling steps, too.
    """

    classes: Sequence[int | str] | None
    per_class: int
    seed: int
    trajectory: bool = False


def classes_wanted(classes: Sequence[int | str] | None, images: Images | Subject) -> list[int]:
    """Return the numbers of the classes to generate, all for None.

    Args:
        classes: Numbers or names; a text is a name where a class has it, else a number.
        images: The dataset.

    Raises:
        ValueError: If none is wanted, or the dataset has no such class.
    """
    if classes is None:
        return list(range(images.num_classes))
    if isinstance(classes, (str, int)) or len(classes) == 0:
        raise ValueError(f"classes must be numbers or names, at least one, got {classes!r}")
    names = {name: number for number, name in enumerate(images.class_names)}
    numbers = []
    for wanted in classes:
        text = str(wanted).strip()
        number = names.get(text) if isinstance(wanted, str) else None
        if number is None:
            number = -1 if (found := whole(text)) is None else found
        if not 0 <= number < images.num_classes:
            raise ValueError(
                f"{images.name} has classes 0 to {images.num_classes - 1}, "
                f"{first_few(images.class_names)}; got {text!r}"
            )
        numbers.append(number)
    return numbers


def subject_of(run: Run, config: Config, report: Report) -> Images | Subject:
    """Return what a run's model makes images of.

    That is its dataset where guidance learns from its images, and where an earlier version left no
    record of them.

    Raises:
        ValueError: If the dataset cannot be used.
    """
    subject = run.subject()
    learns = config.sample.guidance == "classifier" and not isinstance(run, PublishedRun)
    return load_run_data(run, config, report).images if subject is None or learns else subject


def write_samples(
    run: Run, config: Config, report: Report, *, folder: Path, wanted: Wanted
) -> Path:
    """Generate images and write them in three forms.

    `samples.png` is a grid with one column per class, up to 100 rows; `samples.npz` holds images
    (M, C, H, W) uint8 and labels (M,) int64; `images/<class>/<number>.png` is torchvision's
    ImageFolder, see `folder_name`. With a trajectory there are `trajectory.npz` and
    `trajectory.png`, too.

    Args:
        run: The run.
        config: Its configuration; the sample section may differ from the stored one.
        report: Receives progress.
        folder: Made if missing; files of the same names are replaced.
        wanted: Which images to generate and what to write.

    Returns:
        The folder.

    Raises:
        ValueError: If a class does not exist, the run's weights cannot be used, or there can be no
            such folder.
    """
    check_folder(folder)
    images = subject_of(run, config, report)
    classes = classes_wanted(wanted.classes, images)
    labels = torch.tensor(classes).repeat(wanted.per_class)
    path = None
    if wanted.trajectory:
        path = generate_trajectory(
            load_model(run, config, images, compiled=config.sample.compile),
            labels.to(pick_device(config.train.device)),
            images.image_shape,
            sample=config.sample,
            seed=wanted.seed,
            guide=make_guide(run, config, images, report),
            progress=report.stage("sampling"),
        )
        generated = to_uint8(path.x_t[:, -1])
    else:
        generated = sample_run(run, config, images, labels, wanted.seed, report)
    folder.mkdir(parents=True, exist_ok=True)
    _write_npz(folder / "samples.npz", images=generated, labels=labels)
    shown = generated[: _MOST_ROWS * len(classes)]
    write_png(folder / "samples.png", class_grid(shown, len(classes)))
    write_image_folder(folder / "images", generated, labels, images.class_names)
    if path is not None:
        _write_trajectory(folder, path, labels, len(classes))
    return folder


def _write_npz(path: Path, **tensors: Tensor) -> None:
    content = {name: tensor.numpy() for name, tensor in tensors.items()}
    write_atomic(path, lambda file: np.savez(file, **content))  # type: ignore[arg-type]


def folder_name(number: int, name: str, num_classes: int) -> str:
    """Return a folder name for a class, safe whatever the class is called.

    The number comes first, with as many digits as the last class has, so that names differ and
    sort like the classes. Of the class's own name, letters, digits, "_" and "-" stay.
    """
    digits = len(str(num_classes - 1))
    return f"{number:0{digits}d}-{re.sub(r'[^-_a-zA-Z0-9]+', '_', name)[:_LONGEST_NAME]}"


def write_image_folder(
    folder: Path, images: Tensor, labels: Tensor, class_names: Sequence[str]
) -> None:
    """Write single images in torchvision's ImageFolder layout, one folder for each class.

    Images that an earlier call left in the folders of these classes are removed.

    Args:
        folder: Made if missing.
        images: (M, C, H, W) uint8, C 1 or 3.
        labels: (M,) int64.
        class_names: K names.
    """
    for label in sorted(set(labels.tolist())):
        place = folder / folder_name(label, class_names[label], len(class_names))
        place.mkdir(parents=True, exist_ok=True)
        for old in place.glob("[0-9]" * 6 + ".png"):
            old.unlink()
        for k, image in enumerate(images[labels == label]):
            pixels = image[0] if len(image) == 1 else image.permute(1, 2, 0)
            Image.fromarray(pixels.numpy()).save(place / f"{k:06d}.png")


def _write_trajectory(folder: Path, path: Trajectory, labels: Tensor, num_shown: int) -> None:
    """Write all states, and a strip of the first image of each class.

    `trajectory.npz` holds x_t (M, S + 1, C, H, W) float32 from noise to image, x_0 (M, S, C, H, W)
    uint8, the estimate made in each step, t (S + 1,) and labels (M,). In `trajectory.png` each
    image takes two rows, x_t above and the estimate below, at up to 12 of the times.
    """
    x_0 = to_uint8(path.x_0)
    _write_npz(folder / "trajectory.npz", x_t=path.x_t, x_0=x_0, t=path.t, labels=labels)
    steps = path.x_0.shape[1]
    shown = torch.linspace(0, steps - 1, min(steps, _MOST_COLUMNS)).round().long()
    rows = torch.stack([to_uint8(path.x_t[:num_shown, shown]), x_0[:num_shown, shown]], dim=1)
    captions = [f"t {t:.2f}" for t in path.t[shown].tolist()] * (2 * num_shown)
    grid = image_grid(rows.flatten(0, 2), len(shown), captions=captions)
    write_png(folder / "trajectory.png", grid)
