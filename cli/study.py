"""`robustdiff study`: a grid of runs from one file."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .console import make_report, printable


def study(
    file: Annotated[Path, typer.Argument(help="TOML file: seeds, noise.NAME, method.NAME.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the runs; runs/<name of the file> by default.")
    ] = None,
    part: Annotated[
        str,
        typer.Option(metavar="I/N", help="Only every N-th run, from the I-th on; for job arrays."),
    ] = "1/1",
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder of the dataset, for all runs.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be done.")] = False,
) -> None:
    """Train and evaluate a grid of noise x method x seed; resumes, and skips what is done."""
    first, count = _part(part)
    from robustdiff.files.atomic import check_folder
    from robustdiff.jobs.study import plan, read_study, run_study

    folder = out or Path("runs") / file.stem
    check_folder(folder)
    cells = read_study(file, data_dir)[first - 1 :: count]
    if dry_run:
        for line in plan(cells, folder):
            print(printable(line))
        return
    with make_report() as report:
        failed, elsewhere = run_study(cells, folder, report)
    for path in elsewhere:
        print(f"in work elsewhere: {printable(str(folder / path))}")
    if failed:
        raise OSError(f"{len(failed)} of {len(cells)} runs failed, the first is {failed[0]}")
    done = f"{len(cells) - len(elsewhere)} of {len(cells)} runs done" if elsewhere else "done"
    print(f"{done}: compare with: robustdiff compare {shlex.quote(str(folder))}")


def _part(text: str) -> tuple[int, int]:
    first, slash, count = text.partition("/")
    if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise ValueError(f"--part takes I/N with 1 <= I <= N, such as 2/8, got {text!r}")
    return int(first), int(count)
