"""`robustdiff report`: one self-contained HTML page about a run."""

from pathlib import Path
from typing import Annotated

import typer

from .console import printable


def report(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Run folder; the newest run under runs/ by default."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write; report.html in the run's folder by default.")
    ] = None,
) -> None:
    """Write report.html: curves, samples, metrics beside those of real images, and the labels."""
    from robustdiff.files.atomic import check_file
    from robustdiff.jobs.report import report_run
    from robustdiff.runs.folder import open_run

    if out is not None:
        if not out.parent.is_dir():
            raise ValueError(f"--out is a file in a folder that exists, got {out}")
        check_file(out)
    print(printable(str(report_run(open_run(run), out))))
