"""The front door for Python: train, sample, evaluate, audit and export without the command line.

    import robustdiff

    run = robustdiff.train("digits", {"noise.rate": 0.3, "curriculum.name": "pmi"})
    samples = robustdiff.sample(run, classes=[3, 5])
    figures = robustdiff.evaluate(run)

Nothing is printed, and nothing is written outside of the run's folder, which is a temporary one
unless `out` names it, and of the cache of decoded images. A `Report` of your own shows progress.
"""

import atexit
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import Tensor

from robustdiff.config.judging import in_place_of_evidence
from robustdiff.config.layers import Layer, choose, nested, resolve, to_plain
from robustdiff.config.presets import DEFAULT_PRESETS, preset
from robustdiff.config.roles import role_of
from robustdiff.config.sections import Config
from robustdiff.data.handed import MapDataset, kept_dataset
from robustdiff.device import pick_device
from robustdiff.jobs.audit import AUDIT_LAYER, audit_run
from robustdiff.jobs.audit import audit_images as audit_job
from robustdiff.jobs.evaluate import evaluate_run
from robustdiff.jobs.export import Export, export_run
from robustdiff.jobs.model import check_label_noise
from robustdiff.jobs.sample import check_per_class, labels_wanted, sample_run, subject_of
from robustdiff.jobs.train import resume_run, start_run
from robustdiff.progress import Report
from robustdiff.reports.audit import Findings
from robustdiff.rng import check_seed
from robustdiff.runs.folder import Run, open_run
from robustdiff.runs.making import check_place

Settings = Mapping[str, Any]
"""Dotted key -> value, e.g. {"noise.rate": 0.3}; the keys are the entries of `Config`."""


class Samples(NamedTuple):
    """Generated images.

    Attributes:
        images: (M, C, H, W) uint8 on the CPU.
        labels: (M,) int64, the classes that were asked for.
        class_names: K names.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def train(
    config: Config | str | None = None,
    settings: Settings | None = None,
    *,
    dataset: MapDataset | None = None,
    test_dataset: MapDataset | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
) -> Run:
    """Train a model.

    Args:
        config: The configuration, or the name of a preset; None for "digits", or of a dataset for
            "folder-small".
        settings: Changes to it.
        dataset: Images and labels of your own, any map-style dataset of (image, label), see
            `save_dataset`. They are kept in the cache of decoded images, for what follows.
        test_dataset: Its held-out part; None to hold out a fifth of every class.
        out: Folder of the run, made if missing; None for a temporary one, which is removed when
            Python ends.
        report: Receives messages and progress; None for silence.

    Returns:
        The finished run.

    Raises:
        ValueError: If a setting is wrong, the dataset is not there, or `out` holds something.
        robustdiff.errors.DivergedError: If the loss is not finite.
        robustdiff.errors.InterruptedRunError: If a signal asked to stop; `resume` goes on.

    Examples:
        >>> import robustdiff
        >>> short = {"train.steps": 2, "model.channels": [8], "sample.steps": 2}
        >>> run = robustdiff.train("digits", {"noise.rate": 0.3, **short})
        >>> float(run.labels().flipped.mean().round(1))
        0.3
    """
    if config is None:
        config = DEFAULT_PRESETS["digits" if dataset is None else "arrays"]
    if dataset is None and test_dataset is not None:
        raise ValueError("test_dataset is the held-out part of dataset, and no dataset was given")
    base: Layer = preset(config) if isinstance(config, str) else to_plain(config)
    layers = [base, _layer(in_place_of_evidence(dict(settings or {})))]
    folder = _temporary_folder() if out is None else Path(out)
    if dataset is not None:
        check_place(folder)
        layers.append(_kept(dataset, test_dataset, layers))
    resolved = resolve(*layers)
    return start_run(resolved, folder, report or Report())


def resume(
    run: Run | str | Path, settings: Settings | None = None, *, report: Report | None = None
) -> Run:
    """Continue an interrupted run, or make a finished one longer.

    Args:
        run: The run or its folder.
        settings: Changes to its configuration: its length, where it runs, what it shows and saves.
        report: Receives messages and progress; None for silence.

    Returns:
        The finished run.

    Raises:
        ValueError: If there is no such run, or a setting may not change.
    """
    opened = load_run(run)
    config = resolve(to_plain(opened.config()), _layer(settings))
    resume_run(opened, config, report or Report())
    return opened


def load_run(path: Run | str | Path) -> Run:
    """Open a run's folder, or a published model; "latest" is the newest run under runs/.

    Returns:
        The run: `config()` and `labels()` read what it holds, `path` is its folder.

    Raises:
        ValueError: If there is none.
    """
    return path if isinstance(path, Run) else open_run(Path(path))


def sample(
    run: Run | str | Path,
    settings: Settings | None = None,
    *,
    classes: Sequence[int | str] | None = None,
    per_class: int = 10,
    seed: int = 0,
    report: Report | None = None,
) -> Samples:
    """Generate images with a run's averaged weights; nothing is written.

    Args:
        run: The run or its folder.
        settings: Changes to its configuration, such as {"sample.guidance_weight": 2.0}.
        classes: Numbers or names of the classes to generate, None for all.
        per_class: Images of each, from 1 to a million.
        seed: Image k is a function of (seed, k, its class).
        report: Receives messages and progress; None for silence.

    Returns:
        Images, one class after the other in every round: classes 3, 5 give labels 3, 5, 3, 5, ...

    Raises:
        ValueError: If per_class or the seed is out of range, a class does not exist, or the run
            cannot be used.

    Examples:
        >>> import robustdiff
        >>> short = {"train.steps": 2, "model.channels": [8], "sample.steps": 2}
        >>> samples = robustdiff.sample(robustdiff.train("digits", short), classes=[3], per_class=2)
        >>> tuple(samples.images.shape), samples.labels.tolist()
        ((2, 1, 8, 8), [3, 3])
    """
    check_per_class(per_class)
    check_seed(seed)
    opened, report = load_run(run), report or Report()
    config = _config(opened, settings)
    check_label_noise(opened, config.sample)
    images = subject_of(opened, config, report)
    labels = labels_wanted(classes, per_class, images)
    generated = sample_run(opened, config, images, labels, seed, report)
    return Samples(generated, labels, images.class_names)


def evaluate(
    run: Run | str | Path,
    settings: Settings | None = None,
    *,
    seed: int = 0,
    inception_weights: str | Path | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """Compare a run's images with real ones, and its scores with the truth where it is known.

    Args:
        run: The run or its folder; its metrics.json is written.
        settings: Changes to its configuration, such as {"eval.num_samples": 500}.
        seed: Seed of the generated images.
        inception_weights: File of Inception weights, for {"eval.features": "inception"}.
        report: Receives messages and progress; None for silence.

    Returns:
        The content of metrics.json; `METRICS` and `FURTHER` of
        `robustdiff.metrics.catalogue` name the figures.

    Raises:
        ValueError: If the run, its dataset, the seed or the Inception weights cannot be used.
    """
    check_seed(seed)
    opened = load_run(run)
    return evaluate_run(
        opened,
        _config(opened, settings),
        report or Report(),
        seed=seed,
        inception_weights=inception_weights,
    )


def audit(
    run: Run | str | Path,
    settings: Settings | None = None,
    *,
    by: Literal["run", "crossfit"] = "run",
    report: Report | None = None,
) -> Findings:
    """Find the labels of a run that look wrong; write label_issues.csv and audit.html beside it.

    Args:
        run: The run or its folder.
        settings: Changes to its configuration, such as {"data.data_dir": "elsewhere"}; those of
            section judge, such as {"judge.probabilities": "p.npy"}, judge the labels anew; those of
            classifiers, such as {"judge.folds": 3}, by classifiers.
        by: "run" takes what training found; "crossfit" judges anew, by evidence where the run was
            judged by some, as does "run" where the run's curriculum judges no labels.
        report: Receives messages and progress; None for silence.

    Returns:
        The findings: `issue` (N,) bool, `trust.right` (N,) probabilities, `predicted` (N,) int64,
        and `images`, which images fit no class or are there twice.

    Raises:
        ValueError: If the run or its dataset cannot be used, or there is no such `by`.
    """
    choose(by, ("run", "crossfit"), "way to audit")
    opened = load_run(run)
    changes = in_place_of_evidence(dict(settings or {}))
    judge = [key for key in changes if key.startswith("judge.")]
    config = _config(opened, changes, free=judge)
    return audit_run(opened, config, report or Report(), by="crossfit" if judge else by)[0]


def audit_images(
    settings: Settings | None = None,
    *,
    dataset: MapDataset | None = None,
    out: str | Path | None = None,
    report: Report | None = None,
) -> Findings:
    """Find the labels of images that look wrong, without training a model on them.

    Args:
        settings: Names the images, their labels and how they are judged: {"data.dataset":
            "folder", "data.data_dir": "photos", "judge.effort": "quick"}. All images of a folder
            are judged.
        dataset: Images and labels in place of those that the settings name, see `save_dataset`.
        out: Folder of the reports, made if missing. An interrupted audit goes on there. None for a
            temporary one, which is removed when Python ends.
        report: Receives messages and progress; None for silence.

    Returns:
        The findings, as `audit` returns them, in the order of the dataset.

    Raises:
        ValueError: If the images, their labels or evidence about them cannot be used, or another
            audit was made in `out`.
        robustdiff.errors.TakenError: If `out` holds something else.
    """
    folder = _temporary_folder() if out is None else Path(out)
    layers = [AUDIT_LAYER, _layer(in_place_of_evidence(dict(settings or {})))]
    if dataset is not None:
        if not Run(folder).config_file.exists():
            check_place(folder, trained=False)
        layers.append(_kept(dataset, None, layers))
    return audit_job(resolve(*layers), folder, report or Report())[1]


def _kept(dataset: MapDataset, test_dataset: MapDataset | None, layers: Sequence[Layer]) -> Layer:
    """Keep a dataset where runs find it again, and return the settings that name it."""
    config = resolve(*layers, {"data": {"dataset": "arrays"}})
    pick_device(config.train.device)
    if any("dataset" in layer.get("data", {}) for layer in layers[1:]):
        raise ValueError("dataset= takes the place of the setting data.dataset; give one of them")
    place = kept_dataset(dataset, test_dataset, config.data.image_size)
    return {"data": {"dataset": "arrays", "data_dir": str(place)}}


def export(
    run: Run | str | Path,
    settings: Settings | None = None,
    *,
    to: str | Path | None = None,
    formats: Sequence[str] = ("diffusers",),
    licence: str | None = None,
    report: Report | None = None,
) -> Path:
    """Write a run's model as a folder that needs no robustdiff, with a card; see docs/export.md.

    Args:
        run: The run or its folder.
        settings: Changes to its configuration, such as {"sample.guidance_weight": 2.0}.
        to: The folder to make; None is `export` in the run's folder.
        formats: "diffusers" for a pipeline, "torch" and "onnx" for a file of the guided step.
        licence: Identifier of the licence of the weights, such as "mit"; None states none.
        report: Receives messages and progress; None for silence.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder exists, or the model cannot be exported so.
    """
    opened = load_run(run)
    wanted = Export(to=None if to is None else Path(to), formats=tuple(formats), licence=licence)
    return export_run(opened, _config(opened, settings), report or Report(), wanted)


def _config(run: Run, settings: Settings | None, free: Sequence[str] = ()) -> Config:
    """Return a run's configuration with changes that leave the run itself as it is."""
    for key in settings or ():
        if key not in free and role_of(key) in ("training", "seed", "length"):
            raise ValueError(
                f"{key} belongs to the training of run {run.path}; settings here are those of "
                "sampling and evaluation, data.data_dir and train.device"
            )
    return resolve(to_plain(run.config()), _layer(settings))


def _layer(settings: Settings | None) -> Layer:
    return nested(
        {k: str(v) if isinstance(v, Path) else v for k, v in dict(settings or {}).items()}
    )


def _temporary_folder() -> Path:
    parent = tempfile.mkdtemp(prefix="robustdiff-")
    atexit.register(shutil.rmtree, parent, ignore_errors=True)
    return Path(parent) / "run"  # what is kept beside a run stays in the parent
