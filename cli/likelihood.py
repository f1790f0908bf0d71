"""`robustdiff likelihood`: how likely a run's model finds held-out images."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from robustdiff.config.layers import Layer

from .console import make_report, plain, printable
from .flags import open_with, with_options
from .options import PLACE, JsonOption, RunArgument

if TYPE_CHECKING:
    from rich.table import Table


@with_options
def likelihood(
    *,
    run: RunArgument = None,
    num_images: Annotated[
        int | None, typer.Option(help="Held-out images; at most 500 by default.")
    ] = None,
    levels: Annotated[
        int, typer.Option(help="Noise levels tried on each image, at most 10,000.")
    ] = 32,
    as_json: JsonOption = False,
    place: Annotated[Layer, PLACE],
    seed: Annotated[int, typer.Option(min=0, help="Seed of images and noise.")] = 0,
) -> None:
    """Bound the likelihood of held-out images in bits per dimension, with and without labels."""
    opened, config = open_with(run, place)
    from robustdiff.jobs.likelihood import likelihood_run

    with make_report() as report:
        result = likelihood_run(
            opened, config, report, num_images=num_images, num_levels=levels, seed=seed
        )
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        "held-out images",
        "under",
        "bits per dimension, at most",
        "bits per image that the label gains",
        title=f"{plain(result['run'])}\n{result['num_images']} images, mean and standard error",
    )
    _add_rows(table, "all", result)
    if "given_label_wrong" in result:
        _add_rows(table, "given label wrong", result["given_label_wrong"])
    console = Console()
    console.print(table)
    where = f"also in {printable(result['run'])}/likelihood.json"
    console.print(where, highlight=False, markup=False)


def _add_rows(table: "Table", which: str, part: dict[str, Any]) -> None:
    for name, figures in part["bits_per_dim"].items():
        gain = part["label_gain_bits"].get(name)
        table.add_row(which, name, _shown(figures), "" if gain is None else _shown(gain))


def _shown(figures: dict[str, float]) -> str:
    return f"{figures['mean']:.3f} ± {figures['standard_error']:.3f}"
