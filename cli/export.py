"""`robustdiff export`: the model of a run leaves as a folder that needs no robustdiff."""

from pathlib import Path
from typing import Annotated

import typer

from robustdiff.config.layers import Layer

from .console import make_report, printable
from .flags import open_with, refuse_unused, with_options
from .options import EXPORTED, STORED_DATA, RunArgument


@with_options
def export(
    *,
    run: RunArgument = None,
    to: Annotated[
        Path | None,
        typer.Option(help="Folder to make; by default export/ in the run's folder."),
    ] = None,
    format: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[diffusers|torch|onnx]",
            help="diffusers: a pipeline; torch, onnx: a file of the guided step with a script that "
            "samples by it. May be repeated; diffusers by default.",
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option(
            "--license",
            metavar="ID",
            help="Licence of the weights, e.g. mit or cc-by-4.0; the card says if none was given.",
        ),
    ] = None,
    sampling: Annotated[Layer, EXPORTED],
    place: Annotated[Layer, STORED_DATA],
) -> None:
    """Write a run's model as a folder for diffusers, torch or ONNX, with code, card and samples.

    What is given of sampler, steps and guidance becomes the default of the exported model.
    """
    # A run that was guided by a weaker one leaves it behind with that guidance.
    asked = sampling.get("sample", {}).get("guidance", "auto")
    alone: Layer = {} if asked == "auto" else {"sample": {"weak": None}}
    opened, config = open_with(run, alone, sampling, place)
    refuse_unused(config, sampling)
    from robustdiff.jobs.export import Export, export_run

    with make_report() as report:
        wanted = Export(to=to, formats=tuple(format or ["diffusers"]), licence=licence)
        folder = export_run(opened, config, report, wanted)
    print(printable(str(folder)))
