"""`robustdiff train`: train a model, from a preset, a file and flags, or resume one."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from robustdiff.config.layers import Layer, parse_setting, read_layer, resolve
from robustdiff.config.names import (
    BadImage,
    CurriculumName,
    DatasetName,
    ObjectiveName,
    TreatmentName,
)
from robustdiff.config.presets import DEFAULT_PRESETS, preset
from robustdiff.config.sections import Config

from .console import PlainReport, RichReport, make_report
from .flags import flag_layer

_DATA, _NOISE, _MODEL, _RUN = "Data", "Label noise", "Model and training", "Run"

# Which configuration entry each flag sets.
_FLAGS = {
    "dataset": "data.dataset",
    "data_dir": "data.data_dir",
    "download": "data.download",
    "image_size": "data.image_size",
    "on_bad_image": "data.on_bad_image",
    "noise": "noise.rate",
    "noise_type": "noise.type",
    "noise_matrix": "noise.matrix",
    "class_map": "noise.class_map",
    "labels": "noise.labels",
    "labels_key": "noise.labels_key",
    "curriculum": "curriculum.name",
    "treatment": "curriculum.treatment",
    "objective": "objective.name",
    "cen": "model.cen",
    "epochs": "train.epochs",
    "steps": "train.steps",
    "seed": "seed",
    "checkpoint_every": "train.checkpoint_every",
    "checkpoint_minutes": "train.checkpoint_minutes",
    "device": "train.device",
    "precision": "train.precision",
}


def train(
    dataset: Annotated[
        DatasetName | None, typer.Option(help="Images to train on.", rich_help_panel=_DATA)
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder in torchvision's layout; for dataset folder, one folder a class.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    download: Annotated[
        bool | None,
        typer.Option("--download", help="Fetch a missing dataset.", rich_help_panel=_DATA),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(help="Side in pixels that images are resized to.", rich_help_panel=_DATA),
    ] = None,
    on_bad_image: Annotated[
        BadImage | None,
        typer.Option(
            help="What to do about files of a folder that cannot be read.", rich_help_panel=_DATA
        ),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(help="Probability that a label changes, 0 to 1.", rich_help_panel=_NOISE),
    ] = None,
    noise_type: Annotated[
        str | None,
        typer.Option(help="symmetric, asymmetric, pairflip, matrix, ...", rich_help_panel=_NOISE),
    ] = None,
    noise_matrix: Annotated[
        Path | None,
        typer.Option(
            help="(K, K) row-stochastic matrix, .npy or .csv; implies --noise-type matrix.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    class_map: Annotated[
        str | None,
        typer.Option(
            help="For asymmetric noise: mnist, cifar10, ..., or a .json file.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Given labels from a file: `robustdiff corrupt`'s, .npy, .csv, CIFAR-N's .pt.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    labels_key: Annotated[
        str | None,
        typer.Option(help="Which labels of the file, such as worse_label.", rich_help_panel=_NOISE),
    ] = None,
    curriculum: Annotated[
        CurriculumName | None,
        typer.Option(help="Which samples to prefer.", rich_help_panel=_NOISE),
    ] = None,
    treatment: Annotated[
        TreatmentName | None,
        typer.Option(
            help="What the score does: draw samples by it, drop suspects' labels, or nothing.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    objective: Annotated[
        ObjectiveName | None,
        typer.Option(
            help="What the network is fitted to: the labels, or the classes behind them.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    cen: Annotated[
        str | None,
        typer.Option(
            help="Class embedding: pyramid, bottleneck, complete-bottleneck, uniform-16, add, "
            "adagn, cross-attention, or sizes such as 0,0,64.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    preset_name: Annotated[
        str | None,
        typer.Option(
            "--preset", help="Shipped settings; see `robustdiff presets`.", rich_help_panel=_MODEL
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file, or a run's config.json.", rich_help_panel=_MODEL),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Any setting.", rich_help_panel=_MODEL
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Length in passes.", rich_help_panel=_MODEL)
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Length in optimiser steps.", rich_help_panel=_MODEL)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Root of every random draw.", rich_help_panel=_RUN)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder to make.", rich_help_panel=_RUN)
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", rich_help_panel=_RUN)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="auto, fp32 or bf16.", rich_help_panel=_RUN)
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=_RUN)
    ] = None,
    checkpoint_minutes: Annotated[
        float | None,
        typer.Option(help="Most minutes between checkpoints.", rich_help_panel=_RUN),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|latest", help="Continue an interrupted run.", rich_help_panel=_RUN
        ),
    ] = None,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard",
            help="Under torchrun: spread weights and optimiser over the processes (FSDP2).",
            rich_help_panel=_RUN,
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check everything, train one step, write nothing.",
            rich_help_panel=_RUN,
        ),
    ] = False,
) -> None:
    """Train a class-conditional diffusion model on labels of which some may be wrong."""
    given = locals()
    flags = {name: given[name] for name in _FLAGS if given[name] is not None}
    if noise_matrix is not None:
        flags.setdefault("noise_type", "matrix")
    file = [] if config is None else [read_layer(config)]
    settings = [*(parse_setting(text) for text in set_ or []), flag_layer(_FLAGS, flags)]
    if resume is not None:
        if out is not None or dry_run:
            raise ValueError("--resume goes on in the run's own folder, without --out or --dry-run")
        named = [] if preset_name is None else [preset(preset_name)]
        _resume(resume, [*named, *file, *settings], flags.get("device", "auto"), shard=shard)
        return
    base = _base_preset(preset_name, flags.get("dataset"), has_file=bool(file))
    _start(resolve(*base, *file, *settings), out, dry_run=dry_run, shard=shard)


def _base_preset(name: str | None, dataset: str | None, *, has_file: bool) -> list[Layer]:
    if name is not None:
        return [preset(name)]
    if has_file and dataset is None:
        return []  # a file stands on its own
    return [preset(DEFAULT_PRESETS[dataset or "digits"])]


def _start(config: Config, out: Path | None, *, dry_run: bool, shard: bool) -> None:
    from robustdiff.jobs.train import dry_run as try_out
    from robustdiff.jobs.train import restarted_run, resume_run, start_run
    from robustdiff.parallel import joined

    with (
        joined(config.train.device, shard=shard) as workers,
        make_report(leader=workers.leader) as report,
    ):
        if dry_run:
            try_out(config, report, workers)
            return
        run = workers.from_leader(lambda: None if out is None else restarted_run(out, config))
        if run is None:
            run = start_run(config, out, report, workers)
        else:
            resume_run(run, config, report, workers)
        _done(run.path, report)


def _resume(path: Path, changes: list[Layer], device: str, *, shard: bool) -> None:
    from robustdiff.config.layers import to_plain
    from robustdiff.jobs.train import resume_run
    from robustdiff.parallel import joined
    from robustdiff.runs.folder import open_run

    with joined(device, shard=shard) as workers:
        run = workers.from_leader(lambda: open_run(path))
        config = workers.from_leader(lambda: resolve(to_plain(run.config()), *changes))
        with make_report(leader=workers.leader) as report:
            resume_run(run, config, report, workers)
            _done(run.path, report)


def _done(path: Path, report: PlainReport | RichReport) -> None:
    report.message(f"done: {path}\nevaluate with: robustdiff eval {shlex.quote(str(path))}")
