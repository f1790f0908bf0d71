"""`robustdiff train`: train a model from a preset, a file and options, or resume a run."""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from robustdiff.config.judging import in_place_of_evidence
from robustdiff.config.layers import (
    Layer,
    flat,
    nested,
    parse_setting,
    read_layer,
    resolve,
    to_plain,
)
from robustdiff.config.presets import DEFAULT_PRESETS, preset
from robustdiff.config.sections import Config

from .console import PlainReport, RichReport, make_report
from .flags import of_images, one_source, with_options
from .options import DATA, JUDGE, MODEL, MODEL_PANEL, NOISE, RUN, RUN_PANEL, SourceOption

_model = partial(typer.Option, rich_help_panel=MODEL_PANEL)
# What a dataset that comes with the package makes no use of.
_OF_FILES = ("data.data_dir", "data.image_size", "data.split", "data.on_bad_image")
_run = partial(typer.Option, rich_help_panel=RUN_PANEL)


@with_options
def train(
    *,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[FOLDER|RUN]",
            help="Folder of images with one folder a class, or other images, as with --data; or a "
            "run, whose settings are taken, of an audit its images and labels.",
        ),
    ] = None,
    images: SourceOption = None,
    data: Annotated[Layer, DATA],
    noise: Annotated[Layer, NOISE],
    judge: Annotated[Layer, JUDGE],
    preset_name: Annotated[
        str | None, _model("--preset", help="Shipped settings; see `robustdiff presets`.")
    ] = None,
    config: Annotated[Path | None, _model(help="TOML file, or a run's config.json.")] = None,
    set_: Annotated[
        list[str] | None,
        _model("--set", metavar="SECTION.KEY=VALUE", help="Any setting."),
    ] = None,
    model: Annotated[Layer, MODEL],
    out: Annotated[Path | None, _run(help="Run folder to make.")] = None,
    run: Annotated[Layer, RUN],
    resume: Annotated[
        Path | None, _run(metavar="RUN|latest", help="Continue an interrupted run.")
    ] = None,
    shard: Annotated[
        bool,
        _run(
            "--shard",
            help="Under torchrun: spread weights and optimiser over the processes (FSDP2).",
        ),
    ] = False,
    dry_run: Annotated[
        bool, _run("--dry-run", help="Check everything, train one step, write nothing.")
    ] = False,
) -> None:
    """Train a class-conditional diffusion model on labels of which some may be wrong."""
    file = [] if config is None else [read_layer(config)]
    source = one_source(source, images)
    if source is not None:
        if config is not None or resume is not None or "dataset" in data.get("data", {}):
            raise ValueError(f"{source} takes the place of --config, --resume and --dataset")
        file = [_of_source(source, has_labels="labels" in noise.get("noise", {}))]
    settings = [*(parse_setting(text) for text in set_ or []), data, noise, judge, model, run]
    asked = {key: value for layer in settings for key, value in flat(layer).items()}
    judging = {key: value for key, value in asked.items() if key.startswith("judge.")}
    settings.append(nested(in_place_of_evidence(judging)))
    if preset_name is not None and source is not None and "model" in file[0]:
        raise ValueError(
            f"{source} is a run, whose settings would replace all of --preset {preset_name}; "
            "give its images with --data, or settings with --set"
        )
    if resume is not None:
        if out is not None or dry_run:
            raise ValueError("--resume goes on in the run's own folder, without --out or --dry-run")
        named = [] if preset_name is None else [preset(preset_name)]
        device = run.get("train", {}).get("device", "auto")
        _resume(resume, [*named, *file, *settings], device, shard=shard)
        return
    stands_alone = bool(file) and "model" in file[0]
    dataset = (file[0] if source and not stands_alone else data).get("data", {}).get("dataset")
    base = _base_preset(preset_name, dataset, has_file=bool(file))
    if any(_names_evidence(layer) for layer in (*file, *settings)):
        base.append({"curriculum": {"name": "crossfit"}})
    resolved = resolve(*base, *file, *settings)
    _refuse_unused(resolved, asked)
    _start(resolved, out, dry_run=dry_run, shard=shard)


def _refuse_unused(config: Config, asked: Mapping[str, Any]) -> None:
    """Refuse what was asked for and would change nothing, where something else was meant."""
    of_files = [key for key in _OF_FILES if key in asked]
    if of_files and config.data.dataset == "digits":
        raise ValueError(
            f"{of_files[0]} goes with a dataset in files, and digits come with the package; give "
            f"images of your own with --data, or name a --dataset, got {asked[of_files[0]]!r}"
        )
    noise = config.noise
    drawn = noise.matrix is None and noise.labels is None
    if "noise.type" in asked and "noise.rate" not in asked and drawn and noise.rate == 0:
        raise ValueError(
            f"noise type {noise.type!r} goes with a share of wrong labels, got none; give --noise"
        )


def _of_source(source: Path, *, has_labels: bool) -> Layer:
    """Return what a folder of images or a run says; labels from a file win over the run's own."""
    from robustdiff.runs.folder import Run

    config = Run(source).config_file
    if not config.exists():
        if not source.exists():
            raise ValueError(f"{source} is neither a folder of images nor a run")
        return of_images(source)
    found = dict(to_plain(Run(source).config()))
    if has_labels:
        found.pop("noise", None)
    if not found.get("data", {}).get("whole"):
        return found
    # Of an audit nothing is left to hold out, and its curriculum is its judge.
    kept: dict[str, Any] = {"data": {**found["data"], "whole": False}}
    return kept | ({"noise": found["noise"]} if "noise" in found else {})


def _names_evidence(layer: Layer) -> bool:
    judge = layer.get("judge", {})
    return isinstance(judge, dict) and any(judge.get(k) for k in ("probabilities", "features"))


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
    from robustdiff.runs.making import check_place

    with (
        joined(config.train.device, shard=shard) as workers,
        make_report(leader=workers.leader) as report,
    ):
        if dry_run:
            workers.from_leader(lambda: check_place(out))
            try_out(config, report, workers)
            return
        run = workers.from_leader(lambda: None if out is None else restarted_run(out, config))
        if run is None:
            run = start_run(config, out, report, workers)
        else:
            resume_run(run, config, report, workers)
        _done(run.path, report)


def _resume(path: Path, changes: list[Layer], device: str, *, shard: bool) -> None:
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
