"""The options that set configuration entries: a table in groups, config key -> option.

A command takes a group as one parameter; see `robustdiff.cli.flags.with_options`.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from robustdiff.config.names import (
    BadImage,
    CurriculumName,
    DatasetName,
    FeaturesName,
    GuidanceName,
    JudgeEffort,
    LabelsAsName,
    NoiseMode,
    ObjectiveName,
    SamplerName,
    SpacingName,
    SplitName,
    TreatmentName,
)

MODEL_PANEL, RUN_PANEL = "Model and training", "Run"
Group = dict[str, Any]
"""Config key -> Annotated[type or None, typer.Option], None meaning that it was not given."""


def _option(kind: Any, *flags: str, **rest: Any) -> Any:  # noqa: ANN401 types, and typer's arguments
    return Annotated[kind | None, typer.Option(*flags, **rest)]


def without(group: Group, *keys: str) -> Group:
    """Return a group without some of its keys."""
    return {name: option for name, option in group.items() if name not in keys}


def with_implied(given: dict[str, Any]) -> dict[str, Any]:
    """Return config key -> value with the entries that given ones imply; given ones win."""
    implied: dict[str, str | None] = {}
    if "noise.matrix" in given:
        implied["noise.type"] = "matrix"
    if "sample.weak" in given:
        implied["sample.guidance"] = "auto"
    # Of two kinds of evidence the given one takes the place of the other.
    if "judge.probabilities" in given:
        implied["judge.features"] = None
    if "judge.features" in given:
        implied["judge.probabilities"] = None
    return implied | given


_data = partial(_option, rich_help_panel="Data")
FOLDER: Group = {
    "data.image_size": _data(
        int, "--image-size", help="Side in pixels that images are resized to."
    ),
    "data.split": _data(
        SplitName,
        "--split",
        help="auto finds train and test folders; none takes every folder for a class.",
    ),
    "data.on_bad_image": _data(
        BadImage, "--on-bad-image", help="What to do about images that cannot be read."
    ),
    "data.copy": _data(
        bool,
        "--copy/--no-copy",
        help="Keep decoded images on disk, or decode them whenever they are used.",
    ),
}
COLUMNS: Group = {
    "data.image_column": _data(
        str, "--image-column", help="Column of the images, or of their files."
    ),
    "data.label_column": _data(
        str, "--label-column", help="Column of the labels; in shards their suffix or JSON key."
    ),
    "data.split_column": _data(
        str, "--split-column", help="Column that says train or test; split by default, if there."
    ),
    "data.class_names": _data(
        str, "--class-names", help="Classes in their order: cat,dog, or a .txt file, one a line."
    ),
    "data.image_root": _data(
        Path, "--image-root", help="Folder that a manifest's files are in; its own by default."
    ),
}
DATA: Group = {
    "data.dataset": _data(DatasetName, "--dataset", help="Images to train on."),
    "data.data_dir": _data(
        Path,
        "--data-dir",
        help="Folder of the dataset, in torchvision's layout; with --dataset folder, manifest, "
        "..., your images.",
    ),
    "data.download": _data(bool, "--download", help="Fetch a missing dataset."),
    **FOLDER,
    **COLUMNS,
}

_noise = partial(_option, rich_help_panel="Label noise")
CORRUPTION: Group = {
    "noise.rate": _noise(float, "--noise", help="Probability that a label changes, 0 to 1."),
    "noise.type": _noise(str, "--noise-type", help="symmetric, asymmetric, pairflip, matrix, ..."),
    "noise.mode": _noise(NoiseMode, "--noise-mode", help="How exactly the rate is met."),
    "noise.matrix": _noise(
        Path,
        "--noise-matrix",
        help="(K, K) row-stochastic matrix, .npy or .csv; implies --noise-type matrix.",
    ),
    "noise.class_map": _noise(
        str, "--class-map", help="For asymmetric noise: mnist, cifar10, ..., or a .json file."
    ),
}
LABELS: Group = {
    "noise.labels": _noise(
        Path,
        "--labels",
        help="Given labels from a file: `robustdiff corrupt`'s, .npy, .csv, CIFAR-N's .pt.",
    ),
    "noise.labels_key": _noise(
        str, "--labels-key", help="Which labels, of a file with several, such as worse_label."
    ),
    "noise.labels_as": _noise(
        LabelsAsName,
        "--labels-as",
        help="Whether words of the label file are names or numbers of classes.",
    ),
}
GIVEN_LABELS: Group = {**LABELS, **CORRUPTION}
NOISE: Group = {
    **without(CORRUPTION, "noise.mode"),
    **LABELS,
    "curriculum.name": _noise(
        CurriculumName, "--curriculum", help="Score by which samples are preferred."
    ),
    "curriculum.treatment": _noise(
        TreatmentName,
        "--treatment",
        help="What the score decides: which samples are drawn, or which labels they get.",
    ),
    "objective.name": _noise(
        ObjectiveName,
        "--objective",
        help="What the network is fitted to: the labels, or the classes behind them.",
    ),
}

_judge = partial(_option, rich_help_panel="Judge of labels")
JUDGE: Group = {
    "judge.effort": _judge(
        JudgeEffort, "--judge-effort", help="How much time classifiers of the images are given."
    ),
    "judge.folds": _judge(
        int, "--judge-folds", help="Parts, each judged by classifiers of the others, 2 to 5."
    ),
    "judge.rounds": _judge(
        int, "--judge-rounds", help="Trainings, from the second on cleaned labels, 1 to 4."
    ),
    "judge.flip": _judge(
        bool,
        "--judge-flip/--no-judge-flip",
        help="Mirror images while classifiers are trained; colour images are by default.",
    ),
    "judge.probabilities": _judge(
        Path,
        "--judge-probs",
        metavar="FILE",
        help="Class probabilities of yours (.npy, .npz or .csv), from classifiers that were not "
        "trained on the label in question.",
    ),
    "judge.features": _judge(
        Path,
        "--judge-features",
        metavar="FILE",
        help="Features of yours (.npy, .npz or .csv), a row for each image; or efficientnet-lite0.",
    ),
}

_model = partial(_option, rich_help_panel=MODEL_PANEL)
MODEL: Group = {
    "model.cen": _model(
        str,
        "--cen",
        help="Class embedding: pyramid, bottleneck, complete-bottleneck, uniform-16, add, "
        "adagn, cross-attention, or sizes such as 0,0,64.",
    ),
    "train.epochs": _model(int, "--epochs", help="Length in passes over the dataset."),
    "train.steps": _model(int, "--steps", help="Length in optimiser steps."),
}

_run = partial(_option, rich_help_panel=RUN_PANEL)
RUN: Group = {
    "seed": _run(int, "--seed", help="Seed of every random draw."),
    "train.device": _run(str, "--device", help="auto, cpu or cuda."),
    "train.precision": _run(str, "--precision", help="auto, fp32 or bf16."),
    "train.compile": _run(
        bool,
        "--compile/--no-compile",
        help="Compile the network first, for long trainings; needs a C++ compiler.",
    ),
    "train.log": _run(
        list[str],
        "--log",
        metavar="csv|jsonl|tensorboard|wandb|mlflow",
        help="Where the log goes; may be given several times. tensorboard by default.",
    ),
    "train.checkpoint_every": _run(int, "--checkpoint-every", help="Steps between checkpoints."),
    "train.checkpoint_minutes": _run(
        float, "--checkpoint-minutes", help="Most minutes between checkpoints."
    ),
}

JUDGING: Group = {key: RUN[key] for key in ("seed", "train.device", "train.precision")}

EVALUATION: Group = {
    "eval.num_samples": _option(
        int, "--num-samples", help="Images to generate, equal numbers per class."
    ),
    "eval.features": _option(
        FeaturesName,
        "--features",
        help="Feature space of FID, KID, density and coverage.",
    ),
    "eval.cas": _option(
        bool, "--cas/--no-cas", help="Test classifiers that learn from the generated images."
    ),
}

_sampling = partial(_option, rich_help_panel="Sampling")
SAMPLING: Group = {
    "sample.sampler": _sampling(SamplerName, "--sampler", help="Sampling algorithm."),
    "sample.steps": _sampling(int, "--steps", help="Sampling steps."),
    "sample.eta": _sampling(float, "--eta", help="Randomness of ddim, 0 to 1."),
    "sample.churn": _sampling(float, "--churn", help="Noise that edm adds back over its steps."),
    "sample.spacing": _sampling(
        SpacingName,
        "--spacing",
        help="Spacing of the steps; each sampler's own by default.",
    ),
    "sample.guidance": _sampling(
        GuidanceName,
        "--guidance",
        help="By the estimate without a label, a classifier's gradient, or a weaker run.",
    ),
    "sample.guidance_weight": _sampling(
        float, "--guidance-weight", "-w", help="The paper's w; 0 is no guidance."
    ),
    "sample.guidance_interval": _sampling(
        tuple[float, float],
        "--guidance-interval",
        metavar="LOW HIGH",
        help="Times between which guidance acts, 1 being pure noise.",
    ),
    "sample.guidance_outside": _sampling(
        str,
        "--guidance-outside",
        help="What the other steps see: null (no label) or given (label, no guidance).",
    ),
    "sample.guidance_rescale": _sampling(
        float,
        "--guidance-rescale",
        help="0 to 1: give guided outputs the spread of unguided ones.",
    ),
    "sample.guidance_every": _sampling(
        int,
        "--guidance-every",
        help="Guide every so many steps in full; those between reuse its difference.",
    ),
    "sample.undo_label_noise": _sampling(
        bool,
        "--undo-label-noise/--keep-label-noise",
        help="Generate clean classes by a model that took wrong labels as given; audit the run "
        "--by crossfit first.",
    ),
    "sample.compile": _sampling(
        bool,
        "--compile/--no-compile",
        help="Compile the network first, for many images or steps; needs a C++ compiler.",
    ),
    "sample.weak": _sampling(
        Path,
        "--weak",
        metavar="RUN",
        help="Weaker run to guide away from; implies --guidance auto.",
    ),
}

EXPORTED: Group = without(SAMPLING, "sample.compile", "sample.weak", "sample.undo_label_noise")

STORED_DATA: Group = {
    "data.data_dir": _option(
        Path, "--data-dir", help="Folder of the dataset; where training found it by default."
    ),
    "data.image_root": _option(
        Path, "--image-root", help="Folder of a manifest's files; that of training by default."
    ),
}
PLACE: Group = {
    **STORED_DATA,
    "train.device": _option(str, "--device", help="auto, cpu or cuda."),
}

# Options of several commands that set no configuration entry.
SourceOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        rich_help_panel="Data",
        help="Your images: a folder, a table of files (.csv, .jsonl, .parquet), or files that hold "
        "images (.parquet, .tar); the kind is found, see docs/data.md.",
    ),
]
RunArgument = Annotated[
    Path | None, typer.Argument(help="Run folder; the newest under runs/ by default.")
]
AuditedArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[RUN|FOLDER]",
        help="Run folder, folder of an audit, or folder of images that was audited; the newest "
        "run under runs/ by default.",
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of the generated images.")]
InceptionOption = Annotated[
    Path | None, typer.Option(help="File of the standard Inception weights.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
