"""`robustdiff audit`: find labels that look wrong."""

from typing import Annotated, Literal

import typer

from robustdiff.config.layers import Layer

from .console import make_report
from .flags import open_with, with_options
from .options import JUDGE, STORED_DATA, RunArgument


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
    judge: Annotated[Layer, JUDGE],
    cleanlab: Annotated[
        bool,
        typer.Option("--cleanlab", help="Add what cleanlab finds with the same probabilities."),
    ] = False,
    place: Annotated[Layer, STORED_DATA],
) -> None:
    """Report wrong labels: label_issues.csv and audit.html in the run's folder."""
    opened, config = open_with(run, judge, place)
    from robustdiff.jobs.audit import audit_run
    from robustdiff.reports.audit import CSV_NAME, PAGE_NAME, estimate_in_words

    with make_report() as report:
        findings, summary = audit_run(
            opened, config, report, by="crossfit" if judge else by, use_cleanlab=cleanlab
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
