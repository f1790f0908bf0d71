"""`robustdiff sample`: generate images from a run."""

from pathlib import Path
from typing import Annotated

import typer

from .console import make_report
from .flags import numbers
from .sampling import (
    ChurnOption,
    CompileOption,
    DataDirOption,
    DeviceOption,
    EtaOption,
    GuidanceOption,
    IntervalOption,
    OutsideOption,
    RescaleOption,
    RunArgument,
    SamplerOption,
    SeedOption,
    SpacingOption,
    StepsOption,
    WeakOption,
    WeightOption,
    open_with,
)


def sample(
    run: RunArgument = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write into; the run's samples/ by default."),
    ] = None,
    per_class: Annotated[int, typer.Option(min=1, help="Images of each class.")] = 10,
    classes: Annotated[
        str | None, typer.Option(help="Class numbers to generate, e.g. 3,5; all by default.")
    ] = None,
    trajectory: Annotated[
        bool, typer.Option("--trajectory", help="Also write the states on the way.")
    ] = False,
    sampler: SamplerOption = None,
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
    """Generate images: a grid with one column per class, an .npz, and a folder per class."""
    from robustdiff.parallel import refuse_company

    refuse_company("sample")
    opened, config = open_with(run, locals())
    from robustdiff.jobs.sample import Wanted, write_samples

    wanted = Wanted(
        classes=None if classes is None else numbers(classes, int, "--classes"),
        per_class=per_class,
        seed=seed,
        trajectory=trajectory,
    )
    with make_report() as report:
        folder = write_samples(opened, config, report, folder=out or opened.samples, wanted=wanted)
    print(folder / "samples.png")
