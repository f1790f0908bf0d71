"""`robustdiff audit`: which labels look wrong."""

from typing import Annotated, Literal

import typer

from .console import make_report
from .sampling import DataDirOption, RunArgument, open_with


def audit(
    run: RunArgument = None,
    by: Annotated[
        Literal["run", "crossfit"],
        typer.Option(help="Judge by the run's own scores, if it made any, or by classifiers."),
    ] = "run",
    cleanlab: Annotated[
        bool, typer.Option("--cleanlab", help="Add cleanlab's verdict on the same probabilities.")
    ] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Report wrong labels: label_issues.csv and audit.html in the run's folder."""
    opened, config = open_with(run, {"data_dir": data_dir})
    from robustdiff.jobs.audit import audit_run
    from robustdiff.reports.audit import CSV_NAME, PAGE_NAME

    with make_report() as report:
        findings, summary = audit_run(opened, config, report, by=by, use_cleanlab=cleanlab)
    print(f"judged by: {findings.source}")
    print(
        f"{summary['issues']} of {len(findings.given)} labels look wrong, "
        f"estimated noise {summary['estimated_noise']:.1%}"
    )
    if cleanlab:
        print(f"cleanlab finds {summary['cleanlab_issues']}")
    print(f"{opened.path / CSV_NAME}\n{opened.path / PAGE_NAME}")
