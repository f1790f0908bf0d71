"""`robustdiff eval`: judge a run by one table or one JSON object."""

import json
from typing import Annotated, Any

import typer

from .console import make_report, plain, printable
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
    SamplerOption,
    SeedOption,
    SpacingOption,
    StepsOption,
    WeakOption,
    WeightOption,
    open_with,
)


def evaluate(
    run: RunArgument = None,
    num_samples: NumSamplesOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
    features: FeaturesOption = None,
    inception_weights: InceptionOption = None,
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
    """Measure a run: FID, IS, NLL, label accuracy, coverage, and what the scores found."""
    opened, config = open_with(run, locals())
    from robustdiff.jobs.evaluate import evaluate_run
    from robustdiff.parallel import joined

    with (
        joined(config.train.device) as workers,
        make_report(leader=workers.leader) as report,
    ):
        result = evaluate_run(
            opened,
            config,
            report,
            seed=seed,
            inception_weights=inception_weights,
            workers=workers,
        )
    if not workers.leader:
        return
    if as_json:
        print(json.dumps(result, allow_nan=False))
    else:
        _print_table(result)


def _print_table(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from robustdiff.metrics.catalogue import METRICS

    sample = result["sample"]
    title = (
        f"{plain(result['run'])}\n{result['num_samples']} samples, {sample['sampler']} "
        f"{sample['steps']} steps, w = {sample['guidance_weight']:g}"
    )
    table = Table("", "generated", "real, held out", title=title)
    for metric in METRICS:
        figures = (f"{result[key]:.3f}" for key in (metric.key, metric.real))
        table.add_row(f"{metric.title} ({metric.ideal})", *figures)
    console = Console()
    console.print(table)
    found = result["detection"]
    if found is not None:
        console.print(
            f"wrong labels found by the {result['curriculum']} score: AUROC {found['auroc']:.3f}, "
            f"average precision {found['average_precision']:.3f}, "
            f"precision at the true rate {found['precision_at_rate']:.3f} "
            f"(chance: {result['noise']:.3f})",
            highlight=False,
        )
    console.print(f"also in {printable(result['run'])}/metrics.json", highlight=False, markup=False)
