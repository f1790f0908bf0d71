"""`robustdiff compare`: a table of evaluated runs."""

from pathlib import Path
from typing import Annotated

import typer

from .console import make_report, plain, printable


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write compare.html, .md, .csv, .json and .png here.")
    ] = None,
) -> None:
    """Compare evaluated runs: mean and 95 % interval over seeds, and the gap closed."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from robustdiff.files.atomic import check_folder
    from robustdiff.reports.compare import (
        ALL,
        GAP,
        by_noise,
        compare_runs,
        evaluators_in_words,
        find_runs,
        write_comparison,
    )
    from robustdiff.reports.compare_page import write_compare_page
    from robustdiff.reports.intervals import cell

    if out is not None:
        check_folder(out)
    found = find_runs(runs)
    with make_report() as report:
        rows = compare_runs(found, report)
    columns = ("label accuracy", "class-wise FID", GAP, "AUROC")
    console = Console()
    for noise, part in by_noise(rows).items():
        table = Table(
            title=plain(noise), title_justify="left", title_style="bold",
            box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        table.add_column("method (seeds)", min_width=19)
        for name in columns:
            table.add_column(name.replace(" ", "\n"), justify="right", no_wrap=True)
        for row in part:
            # Narrow enough for a terminal of 80 columns.
            cells = [cell(row.values[name]).replace(" ", "") for name in columns]
            table.add_row(f"{plain(row.method)} ({len(row.seeds)})", *cells)
        console.print(table)
        for line in evaluators_in_words(part):
            console.print(line, highlight=False, soft_wrap=True)
    if out is not None:
        write_comparison(rows, out)
        write_compare_page(rows, found, out)
        where = printable(str(out))
        console.print(
            f"all {len(ALL)} columns: {where}/compare.csv, .json; also .html, .md and .png",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
