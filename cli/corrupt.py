"""`robustdiff corrupt`: make labels of any dataset wrong."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustdiff.config.layers import Layer, flat, resolve
from robustdiff.config.names import LabelsAsName

from .console import make_report, plain, printable
from .flags import of_images, with_options
from .options import CORRUPTION, FOLDER

if TYPE_CHECKING:
    from rich.table import Table

    from corruptions import NoisyLabels

_DEFAULTS: Layer = {"noise": {"rate": 0.2, "type": "symmetric", "mode": "exact"}}
_MOST_COLUMNS = 12
_MOST_ROWS = 20
_SHORT_NAME = 5


@with_options
def corrupt(
    *,
    labels: Annotated[
        Path, typer.Argument(help="Label file (.npy, .csv, .npz, .pt) or folder of class folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    noise: Annotated[Layer, CORRUPTION] = _DEFAULTS,
    key: Annotated[
        str | None, typer.Option(help="Column of a .csv, or labels of a file with several.")
    ] = None,
    labels_as: Annotated[
        LabelsAsName,
        typer.Option(help="Whether words of the file are names or numbers of classes."),
    ] = "auto",
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Images of a label file (.npy), for instance-dependent noise."),
    ] = None,
    folder: Annotated[Layer, FOLDER],
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
) -> None:
    """Make labels wrong, and write them with a record of the noise."""
    from robustdiff.jobs.corrupt import (
        check_free,
        corrupt_source,
        holds_images,
        open_source,
        write_labels,
    )

    check_free(out)
    images = labels if holds_images(labels.expanduser()) else None
    if images is not None:
        named = None if labels_as == "auto" else labels_as
        _refuse({"--key": key, "--labels-as": named, "--features": features}, "label files", labels)
        config = resolve(noise, of_images(images.expanduser()), folder)
    else:
        given = {_flag(key, value): value for key, value in flat(folder).items()}
        _refuse(given, "images", labels)
        config = resolve(noise)
        if features is not None and not config.noise.type.startswith("instance-dependent"):
            raise ValueError(
                f"--features goes with instance-dependent noise, got noise type "
                f"{config.noise.type!r}"
            )
    with make_report() as report:
        source = open_source(
            labels,
            key=key,
            num_classes=classes,
            features=features,
            folder=config.data,
            report=report,
            labels_as=labels_as,
        )
        noisy = corrupt_source(source, config.noise, seed=seed)
        write_labels(out, source, noisy)
    _print_table(noisy, source.class_names, out, _training(out / "labels.npz", images, folder))


def _flag(key: str, value: object) -> str:
    negated = "no-" if value is False else ""
    return f"--{negated}{key.removeprefix('data.').replace('_', '-')}"


def _refuse(options: dict[str, object], what: str, labels: Path) -> None:
    """Refuse options that are for another kind of source than what lies at a path."""
    given = [flag for flag, value in options.items() if value is not None]
    if given:
        verb = "is" if len(given) == 1 else "are"
        raise ValueError(f"{', '.join(given)} {verb} for {what}, which {labels} is not")


def _training(record: Path, images: Path | None, folder: Layer) -> str:
    """Say how to train from a record, with images of one's own read as they were here."""
    labels = ["--labels", str(record)]
    if images is None:
        command = shlex.join(["robustdiff", "train", *labels])
        return f"{printable(command)} and the images of these labels, by --data or --dataset"
    words = ["robustdiff", "train", str(images)]
    for key, value in flat(folder).items():
        words += [_flag(key, value)] if isinstance(value, bool) else [_flag(key, value), str(value)]
    return printable(shlex.join([*words, *labels]))


def _print_table(labels: "NoisyLabels", names: tuple[str, ...], out: Path, training: str) -> None:
    from rich.console import Console

    console = Console()
    few = len(names) <= _MOST_COLUMNS
    console.print(_matrix(labels, names) if few else _largest(labels, names))
    where = shlex.quote(printable(str(out)))
    console.print(
        f"{labels.noise_type}: {printable(labels.convention)}\n"
        f"{int(labels.flipped.sum())} of {len(labels.given)} labels are wrong: "
        f"{labels.realised_rate:.4f}, expected {labels.expected_rate:.4f}, "
        f"asked for {labels.rate:g} ({labels.mode}, seed {labels.seed})\n"
        f"sha256 {labels.sha256}\n"
        f"written to {where}/labels.npz, labels.csv and transition.png; "
        f"train from it with: {training}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def _matrix(labels: "NoisyLabels", names: tuple[str, ...]) -> "Table":
    """Return the share of every given class in every clean class, for few classes."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(box=SIMPLE, padding=(0, 1, 0, 0), title="share of each clean class")
    table.add_column("clean \\ given")
    short = all(len(name) <= _SHORT_NAME for name in names)
    for number, name in enumerate(names):
        table.add_column(plain(name) if short else str(number), justify="right")
    for number, (name, row) in enumerate(zip(names, labels.realised, strict=True)):
        first = plain(name if short else f"{number} {name}")
        table.add_row(first, *(f"{value:.3f}" if value else "·" for value in row))
    return table


def _largest(labels: "NoisyLabels", names: tuple[str, ...]) -> "Table":
    """Return the largest shares of wrong labels, for many classes."""
    import numpy as np
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table("clean", "given", "share of the clean class", box=SIMPLE)
    wrong = np.where(np.eye(len(names), dtype=bool), 0, labels.realised)
    largest = np.argsort(-wrong, axis=None, kind="stable")[:_MOST_ROWS]
    for place in largest[wrong.flat[largest] > 0]:
        clean, given = np.unravel_index(place, wrong.shape)
        table.add_row(plain(names[clean]), plain(names[given]), f"{wrong[clean, given]:.3f}")
    return table
