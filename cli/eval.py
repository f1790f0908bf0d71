"""`robustdiff eval`: the metrics of a run, as a table or as JSON."""

import json
from typing import Annotated, Any

from robustdiff.config.layers import Layer

from .console import make_report, plain, printable
from .flags import open_with, refuse_unused, with_options
from .options import (
    EVALUATION,
    PLACE,
    SAMPLING,
    InceptionOption,
    JsonOption,
    RunArgument,
    SeedOption,
)


@with_options
def evaluate(
    *,
    run: RunArgument = None,
    evaluation: Annotated[Layer, EVALUATION],
    inception_weights: InceptionOption = None,
    as_json: JsonOption = False,
    sampling: Annotated[Layer, SAMPLING],
    place: Annotated[Layer, PLACE],
    seed: SeedOption = 0,
) -> None:
    """Evaluate a run: FID, IS, NLL, label accuracy, coverage, and how scores find wrong labels."""
    opened, config = open_with(run, evaluation, sampling, place)
    refuse_unused(config, sampling)
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

    from robustdiff.metrics.catalogue import (
        FURTHER,
        METRICS,
        copies_in_words,
        evaluator_in_words,
        guidance_in_words,
    )

    sample = result["sample"]
    title = (
        f"{plain(result['run'])}\n{result['num_samples']} samples, {sample['sampler']} "
        f"{sample['steps']} steps, w = {sample['guidance_weight']:g}"
        f"{plain(guidance_in_words(sample))}"
    )
    table = Table("", "generated", "95 % interval", "real, held out", title=title)
    for metric in (*METRICS, *FURTHER):
        if metric.key in result:
            values = (result[key] for key in (metric.key, metric.real))
            own, real = ("too few images" if value is None else f"{value:.3f}" for value in values)
            ends = result.get(f"{metric.key}_interval")
            between = "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
            table.add_row(f"{metric.title} ({metric.ideal})", own, between, real)
    console = Console()
    console.print(table)
    trust = evaluator_in_words(result["label_accuracy_real"], result["evaluator_corrected"])
    console.print(trust, highlight=False, soft_wrap=True)
    if (copied := copies_in_words(result)) is not None:
        console.print(copied, highlight=False, soft_wrap=True)
    found = result["detection"]
    if found is not None:
        console.print(
            f"wrong labels found by the {result['curriculum']} score: AUROC {found['auroc']:.3f}, "
            f"average precision {found['average_precision']:.3f}, "
            f"precision at the true rate {found['precision_at_rate']:.3f} "
            f"(chance: {result['noise']:.3f})",
            highlight=False,
        )
    if found is not None and "flag_f1" in found:
        console.print(
            f"labels called wrong: precision {found['flag_precision']:.3f}, "
            f"recall {found['flag_recall']:.3f}, F1 {found['flag_f1']:.3f}",
            highlight=False,
        )
    console.print(f"also in {printable(result['run'])}/metrics.json", highlight=False, markup=False)
