"""`robustdiff corrupt`: make the labels of any dataset wrong."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from robustdiff.config.names import BadImage, NoiseMode

from .console import make_report, plain, printable
from .flags import flag_layer

if TYPE_CHECKING:
    from corruptions import NoisyLabels

_FLAGS = {
    "noise": "noise.rate",
    "noise_type": "noise.type",
    "noise_mode": "noise.mode",
    "noise_matrix": "noise.matrix",
    "class_map": "noise.class_map",
    "image_size": "data.image_size",
    "on_bad_image": "data.on_bad_image",
}
_MOST_COLUMNS = 12
_MOST_ROWS = 20
_SHORT_NAME = 5


def corrupt(
    labels: Annotated[
        Path, typer.Argument(help="Label file (.npy, .csv, .npz, .pt) or folder of class folders.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    noise: Annotated[float, typer.Option(help="Noise rate, 0 to 1.")] = 0.2,
    noise_type: Annotated[
        str, typer.Option(help="symmetric, asymmetric, pairflip, matrix, ...")
    ] = "symmetric",
    noise_mode: Annotated[NoiseMode, typer.Option(help="How many labels flip.")] = "exact",
    noise_matrix: Annotated[
        Path | None,
        typer.Option(help="(K, K) row-stochastic matrix, .npy or .csv; implies type matrix."),
    ] = None,
    class_map: Annotated[
        str | None, typer.Option(help="For asymmetric noise: mnist, cifar10, ..., or a .json file.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Column of a .csv, or labels of a file with several.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Number of classes.")] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Images of a label file (.npy), for instance-dependent noise."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side in pixels of a folder's images.")
    ] = None,
    on_bad_image: Annotated[
        BadImage | None,
        typer.Option(help="What to do about files of a folder that cannot be read."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
) -> None:
    """Make labels wrong, and write them down with the record of how."""
    flags = locals()
    if noise_matrix is not None:
        flags["noise_type"] = "matrix"
    from robustdiff.config.layers import resolve
    from robustdiff.jobs.corrupt import corrupt_source, open_source, write_labels

    config = resolve(flag_layer(_FLAGS, flags))
    with make_report() as report:
        source = open_source(
            labels,
            key=key,
            num_classes=classes,
            features=features,
            folder=config.data,
            report=report,
        )
        noisy = corrupt_source(source, config.noise, seed=seed)
        write_labels(out, source, noisy)
    _print_table(noisy, source.class_names, out)


def _print_table(labels: "NoisyLabels", names: tuple[str, ...], out: Path) -> None:
    import numpy as np
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    realised = labels.realised
    if len(names) <= _MOST_COLUMNS:
        table = Table(box=SIMPLE, padding=(0, 1, 0, 0), title="share of each clean class")
        table.add_column("clean \\ given")
        short = all(len(name) <= _SHORT_NAME for name in names)
        for number, name in enumerate(names):
            table.add_column(plain(name) if short else str(number), justify="right")
        for number, (name, row) in enumerate(zip(names, realised, strict=True)):
            first = plain(name if short else f"{number} {name}")
            table.add_row(first, *(f"{value:.3f}" if value else "·" for value in row))
    else:
        table = Table("clean", "given", "share of the clean class", box=SIMPLE)
        away = np.where(np.eye(len(names), dtype=bool), 0, realised)
        largest = np.argsort(-away, axis=None, kind="stable")[:_MOST_ROWS]
        for flat in largest[away.flat[largest] > 0]:
            clean, given = np.unravel_index(flat, away.shape)
            table.add_row(plain(names[clean]), plain(names[given]), f"{away[clean, given]:.3f}")
    console.print(table)
    where = shlex.quote(printable(str(out)))
    console.print(
        f"{labels.noise_type}: {printable(labels.convention)}\n"
        f"{int(labels.flipped.sum())} of {len(labels.given)} labels are wrong: "
        f"{labels.realised_rate:.4f}, expected {labels.expected_rate:.4f}, "
        f"asked for {labels.rate:g} ({labels.mode}, seed {labels.seed})\n"
        f"sha256 {labels.sha256}\n"
        f"written to {where}/labels.npz, labels.csv and transition.png; "
        f"train from it with: robustdiff train --labels {where}/labels.npz",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
