"""`robustdiff sample`: generate images from a run."""

from pathlib import Path
from typing import Annotated

import typer

from robustdiff.config.layers import Layer

from .console import make_report
from .flags import open_with, refuse_unused, with_options
from .options import PLACE, SAMPLING, RunArgument, SeedOption


@with_options
def sample(
    *,
    run: RunArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to; the run's samples/ by default."),
    ] = None,
    per_class: Annotated[
        int, typer.Option(min=1, help="Images of each class, at most a million.")
    ] = 10,
    classes: Annotated[
        str | None, typer.Option(help="Classes by number or name, e.g. 3,cat; all by default.")
    ] = None,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Also write the states on the way.")
    ] = False,
    sampling: Annotated[Layer, SAMPLING],
    place: Annotated[Layer, PLACE],
    seed: SeedOption = 0,
) -> None:
    """Generate images: a grid with one column per class, an .npz, and a folder per class."""
    opened, config = open_with(run, sampling, place)
    refuse_unused(config, sampling)
    from robustdiff.jobs.sample import Wanted, write_samples

    wanted = Wanted(
        classes=None if classes is None else classes.split(","),
        per_class=per_class,
        seed=seed,
        trajectory=trajectory,
    )
    with make_report() as report:
        folder = write_samples(opened, config, report, folder=out or opened.samples, wanted=wanted)
    print(folder / "samples.png")
