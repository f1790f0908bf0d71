"""`robustdiff report`: the page of a run, with what a person decided about its labels."""

from pathlib import Path

from robustdiff.reports.run_page import write_report
from robustdiff.review.checked import read_checked
from robustdiff.runs.folder import Run


def report_run(run: Run, path: Path | None = None) -> Path:
    """Write the report of a run; see `write_report`.

    Args:
        run: The run; it may be unfinished, and need not be evaluated.
        path: Where; None for report.html in the run's folder.

    Returns:
        The file.

    Raises:
        ValueError: If it is a published model.
        DamagedError: If a file of the run is damaged.
        OSError: If the report cannot be written.
    """
    return write_report(run, path, checked=read_checked(run, run.labels().given))
