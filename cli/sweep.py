"""`robustdiff sweep`: judge a run under varied guidance or numbers of steps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from .console import make_report, printable
from .flags import numbers
from .sampling import (
    ChurnOption,
    CompileOption,
    DataDirOption,
    DeviceOption,
    EtaOption,
    FeaturesOption,
    GuidanceOption,
    InceptionOption,
    IntervalOption,
    NumSamplesOption,
    OutsideOption,
    RescaleOption,
    RunArgument,
    SeedOption,
    SpacingOption,
    StepsOption,
    WeakOption,
    WeightOption,
    open_with,
)

_DEFAULT_VALUES = {"guidance": "0,0.25,0.5,1,2,4,8", "steps": "5,10,20,50"}
_ALL_SAMPLERS = "ancestral,ddim,dpm-solver++,heun,edm"


def sweep(
    run: RunArgument = None,
    over: Annotated[
        Literal["guidance", "steps"],
        typer.Option(help="What is varied: the guidance weight, or the steps of several samplers."),
    ] = "guidance",
    values: Annotated[
        str | None,
        typer.Option(help="Comma-separated values; 0 to 8, or 5 to 50 steps, by default."),
    ] = None,
    samplers: Annotated[
        str | None,
        typer.Option(help="Comma-separated; the run's, or all if steps are varied, by default."),
    ] = None,
    num_samples: NumSamplesOption = None,
    features: FeaturesOption = None,
    inception_weights: InceptionOption = None,
    steps: StepsOption = None,
    eta: EtaOption = None,
    churn: ChurnOption = None,
    spacing: SpacingOption = None,
    guidance: GuidanceOption = None,
    guidance_weight: WeightOption = None,
    guidance_interval: IntervalOption = None,
    guidance_outside: OutsideOption = None,
    guidance_rescale: RescaleOption = None,
    compiled: CompileOption = None,
    weak: WeakOption = None,
    data_dir: DataDirOption = None,
    device: DeviceOption = None,
    seed: SeedOption = 0,
) -> None:
    """Judge a run at many settings: sweep-OVER.csv and a plot; goes on where it was stopped."""
    from robustdiff.parallel import refuse_company

    refuse_company("sweep")
    for swept, flag, value in (
        ("guidance", "--guidance-weight", guidance_weight),
        ("steps", "--steps", steps),
    ):
        if over == swept and value is not None:
            raise ValueError(f"--over {over} takes its values from --values, got {flag} {value}")
    opened, config = open_with(run, locals())
    from robustdiff.config.layers import choose
    from robustdiff.diffusion.samplers import SAMPLERS
    from robustdiff.jobs.sweep import settings_to_try
    from robustdiff.jobs.sweep import sweep as run_sweep

    own = config.sample.sampler if over == "guidance" else _ALL_SAMPLERS
    names = [choose(name, SAMPLERS, "sampler") for name in (samplers or own).split(",")]
    settings = settings_to_try(
        config.sample, over, numbers(values or _DEFAULT_VALUES[over], float, "--values"), names
    )
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
