"""`robustdiff sweep`: evaluate a run under varied guidance or numbers of steps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdiff.config.layers import Layer, choose

from .console import make_report, printable
from .flags import numbers, open_with, with_options
from .options import EVALUATION, PLACE, SAMPLING, InceptionOption, RunArgument, SeedOption, without

# What is varied -> its key in section sample.
_VARIED = {"guidance": "guidance_weight", "steps": "steps"}
_DEFAULT_VALUES = {"guidance": "0,0.25,0.5,1,2,4,8", "steps": "5,10,20,50"}


@with_options
def sweep(
    *,
    run: RunArgument = None,
    over: Annotated[
        Literal["guidance", "steps"],
        typer.Option(help="What is varied: the guidance weight, or the steps of several samplers."),
    ] = "guidance",
    values: Annotated[
        str | None,
        typer.Option(help="Comma-separated values; weights 0 to 8, or 5 to 50 steps, by default."),
    ] = None,
    samplers: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated samplers; the run's, or all if steps are varied, by default."
        ),
    ] = None,
    evaluation: Annotated[Layer, EVALUATION],
    inception_weights: InceptionOption = None,
    sampling: Annotated[Layer, without(SAMPLING, "sample.sampler")],
    place: Annotated[Layer, PLACE],
    seed: SeedOption = 0,
) -> None:
    """Evaluate a run at many settings: sweep-OVER.csv and a plot; resumes, skips what is done."""
    if (value := sampling.get("sample", {}).get(_VARIED[over])) is not None:
        flag = f"--{_VARIED[over].replace('_', '-')}"
        raise ValueError(f"--over {over} takes its values from --values, got {flag} {value}")
    opened, config = open_with(run, evaluation, sampling, place)
    from robustdiff.diffusion.samplers import SAMPLERS
    from robustdiff.jobs.sweep import settings_to_try
    from robustdiff.jobs.sweep import sweep as run_sweep

    default = config.sample.sampler if over == "guidance" else ",".join(SAMPLERS)
    samplers = default if samplers is None else samplers
    names = [choose(name, SAMPLERS, "sampler") for name in samplers.split(",")]
    values = _DEFAULT_VALUES[over] if values is None else values
    settings = settings_to_try(config.sample, over, numbers(values, float, "--values"), names)
    with make_report() as report:
        rows = run_sweep(
            opened, config, report,
            over=over, settings=settings, seed=seed, inception_weights=inception_weights,
        )  # fmt: skip
    _print_table(rows, opened.path / f"sweep-{over}.png")


def _print_table(rows: list[dict[str, str]], plot: Path) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from robustdiff.jobs.sweep import SHOWN

    # Fits into 80 columns.
    titles = (metric.title.replace(" ", "\n") for metric in SHOWN)
    table = Table("sampler", "calls", "w", *titles, box=box.SIMPLE, padding=0)
    for row in rows:
        figures = (f"{float(row[metric.key]):.3f}" for metric in SHOWN)
        table.add_row(row["sampler"], row["denoiser_calls"], row["guidance_weight"], *figures)
    table.add_section()
    table.add_row("real", "", "", *(f"{float(rows[0][metric.real]):.3f}" for metric in SHOWN))
    console = Console()
    console.print(table)
    where = printable(f"also in {plot.with_suffix('.csv')}, drawn in {plot}")
    console.print(where, highlight=False, markup=False)
