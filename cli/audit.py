"""`robustdiff audit`: find labels that look wrong, of a run or of images without one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robustdiff.config.judging import in_place_of_evidence
from robustdiff.config.layers import Layer, flat, nested, resolve
from robustdiff.config.sections import Config

from .console import make_report
from .flags import of_images, one_source, open_with, with_options
from .options import DATA, GIVEN_LABELS, JUDGE, JUDGING, RUN_PANEL, SourceOption

if TYPE_CHECKING:
    from robustdiff.runs.folder import Run

AUDITS = Path("audits")
# What may be said of a run, which has its own images and labels.
_OF_RUNS = ("data.data_dir", "train.device", "train.precision")


@with_options
def audit(
    *,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN|FOLDER]",
            help="Run folder, or folder of images with one folder a class, or other images, as "
            "with --data; the newest run under runs/ by default.",
        ),
    ] = None,
    images: SourceOption = None,
    data: Annotated[Layer, DATA],
    labels: Annotated[Layer, GIVEN_LABELS],
    by: Annotated[
        Literal["run", "crossfit"],
        typer.Option(
            help="run: what training or an earlier audit found, where there is such. crossfit: "
            "judge anew, with what a person decided, by the evidence in use or by classifiers."
        ),
    ] = "run",
    judge: Annotated[Layer, JUDGE],
    cleanlab: Annotated[
        bool,
        typer.Option("--cleanlab", help="Add what cleanlab finds with the same probabilities."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=RUN_PANEL,
            help="Folder to make for images without a run; audits/NAME by default.",
        ),
    ] = None,
    judging: Annotated[Layer, JUDGING],
) -> None:
    """Report wrong labels: label_issues.csv, label_issues.json and audit.html.

    Of a run the reports go to its folder. Images without a run are judged alone, all of a folder,
    without training a model; the same command goes on where it was interrupted.
    """
    judge = nested(in_place_of_evidence(flat(judge)))
    asked = [data, labels, judge, judging]
    source = one_source(source, images)
    wanted = _without_run(source, out, asked)
    opened, config = (None, wanted) if wanted is not None else _of_run(source, asked)
    from robustdiff.jobs.audit import audit_images, audit_run
    from robustdiff.reports.audit import CSV_NAME, PAGE_NAME, SUMMARY_NAME, estimate_in_words

    by = "crossfit" if judge and opened is not None else by
    with make_report() as report:
        if opened is None:
            path = AUDITS / (config.data.dataset if source is None else name_of(source))
            path = path if out is None else out
            opened, findings, summary = audit_images(
                config, path, report, by=by, use_cleanlab=cleanlab
            )
        else:
            findings, summary = audit_run(opened, config, report, by=by, use_cleanlab=cleanlab)
    print(f"judged by: {findings.source}")
    print(
        f"{summary['issues']} of {len(findings.given)} labels look wrong, "
        f"{estimate_in_words(findings.trust.noise)}"
    )
    counts = [f"{count} {kind}" for kind, count in summary["image_issues"].items()]
    print(f"images: {', '.join(counts)}")
    if cleanlab:
        print(f"cleanlab finds {summary['cleanlab_issues']}")
    for file in (CSV_NAME, SUMMARY_NAME, PAGE_NAME):
        print(opened.path / file)
    if "listing" in summary:
        print(summary["listing"])
    for doubt in summary["doubts"]:
        print(f"in doubt: {doubt}")


def _without_run(source: Path | None, out: Path | None, asked: list[Layer]) -> Config | None:
    """Return the configuration of an audit of images without a run; None where a run is meant."""
    from robustdiff.runs.folder import is_run

    named = "dataset" in asked[0].get("data", {})
    is_source = source is not None and source.exists() and not is_run(source)
    if not (is_source or named or out is not None):
        return None
    if source is not None and (named or not is_source):
        raise ValueError(
            f"--dataset and --out are for images without a run, and {source} "
            f"{'holds images already' if is_source else 'is no folder or file of images'}"
        )
    from robustdiff.jobs.audit import AUDIT_LAYER

    place = of_images(source) if source is not None else {}
    return resolve(AUDIT_LAYER, place, *asked)


def name_of(source: Path) -> str:
    """Return what the audit of images is called, by their folder or file."""
    resolved = source.resolve()
    return resolved.name if resolved.is_dir() else resolved.stem


def _of_run(source: Path | None, asked: list[Layer]) -> tuple["Run", Config]:
    data, labels, judge, judging = asked
    given = flat(data) | flat(labels) | flat(judging)
    if other := [key for key in given if key not in _OF_RUNS]:
        raise ValueError(
            f"a run has its own images and labels, so {', '.join(other)} cannot be given; "
            "they are for a folder of images, or with --dataset"
        )
    return open_with(source, judge, data, judging)
