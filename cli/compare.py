"""`robustdiff compare`: runs side by side."""

from pathlib import Path
from typing import Annotated

import typer


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, or folders that hold runs.")],
    out: Annotated[
        Path | None, typer.Option(help="Also write compare.md, .csv, .json and .png here.")
    ] = None,
) -> None:
    """Compare evaluated runs: mean and 95 % interval over seeds, and the gap that was closed."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from robustdiff.compare import COLUMNS, GAP, cell, compare_runs, find_runs, write_comparison

    rows = compare_runs(find_runs(runs))
    columns = ("label accuracy", "class-wise FID", GAP, "AUROC")
    console = Console()
    for noise in dict.fromkeys(row.noise for row in rows):
        table = Table(box=SIMPLE, title=escape(noise), title_justify="left", title_style="bold")
        table.add_column("method", min_width=16)
        table.add_column("seeds")
        for name in columns:
            table.add_column(name, justify="right", min_width=12)
        for row in rows:
            if row.noise == noise:
                cells = [cell(row.values[name]) for name in columns]
                table.add_row(escape(row.method), str(len(row.seeds)), *cells)
        console.print(table)
    if out is not None:
        write_comparison(rows, out)
        console.print(
            f"{', '.join(COLUMNS)} and {GAP}: {out}/compare.md, .csv, .json and .png",
            highlight=False,
            soft_wrap=True,
        )
