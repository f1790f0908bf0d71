"""`robustdiff export`: the model of a run leaves as a folder that needs no robustdiff."""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from curricula import CURRICULA
from robustdiff import __version__
from robustdiff.config.layers import to_plain
from robustdiff.config.sections import Config
from robustdiff.data.arrays import Images, Subject
from robustdiff.diffusion.generate import generate
from robustdiff.diffusion.model import Model, bind
from robustdiff.diffusion.nets.unet import UNet
from robustdiff.files.atomic import check_folder, new_folder, sha256, write_text
from robustdiff.files.checkpoint import steps_made
from robustdiff.jobs.dataset import load_run_data
from robustdiff.labels.given import known_noise
from robustdiff.progress import Report
from robustdiff.published.card import GRID, Described, model_card
from robustdiff.published.diffusers_folder import write_pipeline
from robustdiff.published.step import STEP_FORMATS, check_step, write_step
from robustdiff.reports.pictures import class_grid, spread, write_png
from robustdiff.runs.evaluations import Metrics, evaluations
from robustdiff.runs.folder import PublishedRun, Run
from robustdiff.runs.scores import StoredScores, detect, load_scores
from robustdiff.training.task import build_network, total_steps

FORMATS = ("diffusers", *STEP_FORMATS)
_GRID_ROWS = 4
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What to write.

    Attributes:
        to: The folder to make; None is `export` in the run's folder.
        formats: Of `FORMATS`.
        licence: Identifier of the licence of the weights, such as "mit"; None if none is stated.
    """

    to: Path | None = None
    formats: Sequence[str] = ("diffusers",)
    licence: str | None = None


def export_run(run: Run, config: Config, report: Report, export: Export) -> Path:
    """Write a run's model as a folder: weights, code, card and samples.

    Args:
        run: The run.
        config: Its configuration; section `sample` becomes the default of the exported model.
        report: Receives progress.
        export: What to write.

    Returns:
        The folder.

    Raises:
        ValueError: If the folder exists, a format or the licence is none, or the guidance or the
            sampler cannot be exported; before any work.
        DamagedError: If the run's weights cannot be used.
    """
    target = export.to or run.path / "export"
    _check(run, config, export, target)
    data = load_run_data(run, config, report)
    subject = Subject(
        name=config.data.dataset,
        image_shape=data.images.image_shape,
        class_names=data.images.class_names,
    )
    network = _network(run, config, data.images)
    schedule, prediction = config.diffusion.schedule, config.diffusion.prediction
    model = bind(network, schedule, prediction, null_class=subject.num_classes, dtype=torch.float32)
    card = model_card(_described(run, config, subject, export))
    grid = _grid(model, config, subject, report)
    with new_folder(target) as folder:
        write_png(folder / GRID, grid)
        write_text(folder / "README.md", card)
        if "diffusers" in export.formats:
            write_pipeline(folder, network, subject, config)
            facts = json.dumps(_facts(run, config, subject), indent=2)
            write_text(PublishedRun(folder).config_file, f"{facts}\n")
        for name in [one for one in STEP_FORMATS if one in export.formats]:
            report.message(f"exporting the guided step as {name}")
            write_step(folder, name, network, model, subject, config.sample)
    return target


def _check(run: Run, config: Config, export: Export, target: Path) -> None:
    if os.path.lexists(target):
        raise ValueError(f"{target} already exists; choose another --to")
    check_folder(target)
    unknown = [name for name in export.formats if name not in FORMATS]
    if unknown or not export.formats:
        raise ValueError(
            f"format must be one or more of {', '.join(FORMATS)}, "
            f"got {', '.join(unknown) or 'none'}"
        )
    if export.licence is not None and _LICENCE.fullmatch(export.licence) is None:
        raise ValueError(
            "licence must be an identifier of small letters, digits, '.', '+' and '-', such as mit "
            f"or cc-by-4.0, got {export.licence!r}"
        )
    if config.sample.guidance != "classifier-free":
        raise ValueError(
            "an exported model has its own network alone, so sample.guidance must be "
            f"classifier-free, got {config.sample.guidance}; give --guidance classifier-free"
        )
    if config.sample.undo_label_noise:
        raise ValueError(
            "undoing label noise takes a run's images, which an exported model leaves behind; "
            "export it without sample.undo_label_noise"
        )
    for name in [one for one in STEP_FORMATS if one in export.formats]:
        check_step(name, config.sample)
    run.labels()
    run.check_trained()


def _network(run: Run, config: Config, images: Images) -> UNet:
    """Return the averaged network, in float32 on the CPU."""
    network = build_network(config.model, images.image_shape, images.num_classes, config.seed)
    run.load_weights(network)
    network.to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(requires_grad=False)


def _described(run: Run, config: Config, subject: Subject, export: Export) -> Described:
    labels, stored = run.labels(), load_scores(run)
    judged = CURRICULA[config.curriculum.name].source not in ("none", "random")
    known = known_noise(config.data, labels) is not None
    return Described(
        title=run.path.resolve().name,
        config=config,
        subject=subject,
        labels=labels,
        trust=stored.trust if stored is not None and judged else None,
        detected=_detected(stored, run) if known else None,
        metrics=_metrics(run),
        licence=export.licence,
        formats=export.formats,
        length=_length(run, config, len(labels.given)),
    )


def _length(run: Run, config: Config, num_samples: int) -> str:
    steps = total_steps(config, num_samples)
    made = steps_made(run.checkpoints, steps)
    if made < steps:
        return f"{made} of {steps} steps"
    return f"{config.train.steps} steps" if config.train.steps else f"{config.train.epochs} epochs"


def _detected(stored: StoredScores | None, run: Run) -> dict[str, float] | None:
    return None if stored is None else detect(stored.scores, run.labels())


def _metrics(run: Run) -> Metrics | None:
    """Return the newest evaluation of the weights as they are; an earlier version's is none.

    Nor is one that the exported model cannot make: under other guidance than by the network itself,
    or with the noise of the labels undone.
    """
    digest, needed = sha256(run.weights_file), {"sample", "num_samples", "evaluator_corrected"}
    mine = [
        one.metrics
        for one in evaluations(run)
        if one.metrics.get("weights_sha256") == digest
        and one.metrics.get("transition_sha256") is None
        and needed <= one.metrics.keys()
        and one.metrics["sample"].get("guidance") == "classifier-free"
    ]
    return mine[-1] if mine else None


def _grid(model: Model, config: Config, subject: Subject, report: Report) -> torch.Tensor:
    """Return a grid of images with one column for each class, as many as fit."""
    classes = torch.tensor(spread(subject.num_classes))
    images = generate(
        model,
        classes.repeat(_GRID_ROWS),
        subject.image_shape,
        sample=config.sample,
        seed=0,
        progress=report.stage("sampling"),
    )
    return class_grid(images, len(classes))


def _facts(run: Run, config: Config, subject: Subject) -> dict[str, Any]:
    """Return what robustdiff reads of the model; paths of this machine are not in it."""
    labels, plain = run.labels(), to_plain(config)
    plain["data"]["data_dir"] = type(config.data)().data_dir
    plain["data"]["image_root"] = None
    if config.data.class_names is not None:  # perhaps a file
        plain["data"]["class_names"] = ",".join(subject.class_names)
    for section, name in (
        ("noise", "labels"),
        ("noise", "matrix"),
        ("noise", "class_map"),
        ("objective", "matrix"),
        ("judge", "probabilities"),
        ("judge", "features"),
    ):
        if plain[section][name] is not None:
            plain[section][name] = Path(plain[section][name]).name
    return {
        "robustdiff": __version__,
        "image_shape": list(subject.image_shape),
        "class_names": list(subject.class_names),
        "noise": known_noise(config.data, labels),
        "noise_type": labels.noise_type,
        "config": plain,
    }
