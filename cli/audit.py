"""`robustdiff audit`: find labels that look wrong."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdiff.config.layers import Layer

from .console import make_report
from .flags import open_with, with_options
from .options import STORED_DATA, RunArgument


@with_options
def audit(
    *,
    run: RunArgument = None,
    by: Annotated[
        Literal["run", "crossfit"],
        typer.Option(
            help="Find wrong labels by the run's scores, if it has any, or by classifiers."
        ),
    ] = "run",
    judge_probs: Annotated[
        Path | None,
        typer.Option(
            help="Find them by class probabilities of yours (.npy or .npz, a row per image), from "
            "classifiers that were not trained on the label in question."
        ),
    ] = None,
    cleanlab: Annotated[
        bool,
        typer.Option("--cleanlab", help="Add what cleanlab finds with the same probabilities."),
    ] = False,
    place: Annotated[Layer, STORED_DATA],
) -> None:
    """Report wrong labels: label_issues.csv and audit.html in the run's folder."""
    opened, config = open_with(run, place)
    from robustdiff.jobs.audit import audit_run
    from robustdiff.reports.audit import CSV_NAME, PAGE_NAME, estimate_in_words

    with make_report() as report:
        findings, summary = audit_run(
            opened, config, report, by=by, probabilities=judge_probs, use_cleanlab=cleanlab
        )
    print(f"judged by: {findings.source}")
    print(
        f"{summary['issues']} of {len(findings.given)} labels look wrong, "
        f"{estimate_in_words(findings.trust.noise)}"
    )
    if cleanlab:
        print(f"cleanlab finds {summary['cleanlab_issues']}")
    print(f"{opened.path / CSV_NAME}\n{opened.path / PAGE_NAME}")
    for doubt in summary["doubts"]:
        print(f"in doubt: {doubt}")
