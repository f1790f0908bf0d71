"""Images by a trained run: generate them, write files."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from corruptions.tables import first_few, whole
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, Subject, to_uint8
from robustdiff.device import pick_device
from robustdiff.diffusion.generate import Trajectory, generate, generate_trajectory
from robustdiff.files.atomic import check_folder, write_atomic
from robustdiff.jobs.dataset import load_run_data
from robustdiff.jobs.model import check_label_noise, generating_model, make_guide
from robustdiff.parallel import ALONE, Workers
from robustdiff.progress import Report
from robustdiff.reports.pictures import class_grid, image_grid, write_png
from robustdiff.runs.folder import PublishedRun, Run

_LONGEST_NAME = 40
_MOST_COLUMNS = 12
# A picture of more rows takes longer to write than to generate, and few programs show it.
_MOST_ROWS = 100
# What six digits in the name of a file can number.
_MOST_PER_CLASS = 1_000_000


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
        generating_model(run, config, images, report, workers),
        labels.to(pick_device(config.train.device)),
        shape,
        sample=config.sample,
        seed=seed,
        numbers=mine,
        # The leader trains and saves a classifier of guidance; the others load it.
        guide=workers.leader_first(lambda: make_guide(run, config, images, report)),
        progress=report.stage("sampling"),
    )
    return workers.total(generated)


def check_per_class(per_class: int) -> None:
    """Refuse numbers of images that cannot be made.

    Raises:
        ValueError: If it is below 1, or above a million.
    """
    if not 1 <= per_class <= _MOST_PER_CLASS:
        raise ValueError(f"per_class must be in [1, {_MOST_PER_CLASS}], got {per_class}")


def labels_wanted(
    classes: Sequence[int | str] | None,
    per_class: int,
    images: Images | Subject,
    *,
    bytes_a_pixel: int = 1,
) -> Tensor:
    """Return the labels of the images to generate, (M,) int64: every class in turn.

    Args:
        classes: See `classes_wanted`.
        per_class: Images of each.
        images: The dataset, or what it is of.
        bytes_a_pixel: What is kept of each image in memory, at least.

    Raises:
        ValueError: If a class does not exist, or so many images need more memory than there is.
    """
    numbers = classes_wanted(classes, images)
    each = len(numbers) * bytes_a_pixel * math.prod(images.image_shape)
    memory = _memory()
    if memory is not None and per_class * each > memory:
        raise ValueError(
            f"per_class {per_class} of {len(numbers)} classes needs {per_class * each / 1e9:.0f} "
            f"GB of memory, and this machine has {memory / 1e9:.0f} GB; the most is "
            f"{memory // each}"
        )
    return torch.tensor(numbers).repeat(per_class)


def _memory() -> int | None:
    """Return the bytes of memory of this machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which images to generate and what to write.

    Attributes:
        classes: Numbers or names of the classes to generate, None for all.
        per_class: Images of each, from 1 to a million.
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

    That is its dataset where a classifier for sampling learns from its images, and where an earlier
    version left no record of them.

    Raises:
        ValueError: If the dataset cannot be used.
    """
    subject = run.subject()
    learns = config.sample.guidance == "classifier" or config.sample.undo_label_noise
    if subject is not None and (isinstance(run, PublishedRun) or not learns):
        return subject
    return load_run_data(run, config, report).images


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
        ValueError: If a class does not exist, so many images cannot be made, the run's weights
            cannot be used, or there can be no such folder.
    """
    check_folder(folder)
    check_label_noise(run, config.sample)
    check_per_class(wanted.per_class)
    images = subject_of(run, config, report)
    # Of a trajectory every state and the estimate in every step stay, in float32.
    kept = 8 * config.sample.steps + 4 if wanted.trajectory else 1
    labels = labels_wanted(wanted.classes, wanted.per_class, images, bytes_a_pixel=kept)
    columns = len(labels) // wanted.per_class
    path = None
    if wanted.trajectory:
        path = generate_trajectory(
            generating_model(run, config, images, report),
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
    shown = generated[: _MOST_ROWS * columns]
    write_png(folder / "samples.png", class_grid(shown, columns))
    write_image_folder(folder / "images", generated, labels, images.class_names)
    if path is not None:
        _write_trajectory(folder, path, labels, columns)
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
