"""`robustdiff correct`: corrected labels leave a run, and decisions made elsewhere come back."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from robustdiff.config.layers import Layer, flat
from robustdiff.config.sections import Config

from .console import make_report, printable
from .flags import open_with, with_options
from .options import STORED_DATA, AuditedArgument
from .review import audited

if TYPE_CHECKING:
    from robustdiff.labels.corrected import Corrected
    from robustdiff.progress import Report
    from robustdiff.runs.folder import Run

_MOVING = "Moving images within their own folder"
_STUDIO = "Label Studio"


@with_options
def correct(
    *,
    source: AuditedArgument = None,
    place: Annotated[Layer, STORED_DATA],
    to: Annotated[
        list[Path] | None,
        typer.Option(
            help="What to write, may be repeated: a record (.npz) or table (.csv) for --labels, "
            "tasks for Label Studio (.json), or else a new folder of images."
        ),
    ] = None,
    decided_only: Annotated[
        bool,
        typer.Option(
            "--decided-only", help="Correct by a person's decisions alone, not by the judge's."
        ),
    ] = False,
    link: Annotated[
        Literal["hard", "soft", "copy"],
        typer.Option(help="How a new folder gets the files; the originals are not touched."),
    ] = "hard",
    in_place: Annotated[
        bool,
        typer.Option(
            "--in-place",
            rich_help_panel=_MOVING,
            help="Move images to the folders of their corrected classes, by a journal.",
        ),
    ] = False,
    undo: Annotated[
        Path | None,
        typer.Option(
            metavar="JOURNAL", rich_help_panel=_MOVING, help="Take the moves of a journal back."
        ),
    ] = None,
    finish: Annotated[
        Path | None,
        typer.Option(
            metavar="JOURNAL",
            rich_help_panel=_MOVING,
            help="Do the moves of a journal that were interrupted.",
        ),
    ] = None,
    worst: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_STUDIO,
            help="Tasks for .json, those first whose decision is likeliest to change a label; "
            "all undecided labels that the judge corrects by default.",
        ),
    ] = None,
    from_label_studio: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_STUDIO,
            help="Record the decisions of an export (JSON) of such tasks first.",
        ),
    ] = None,
) -> None:
    """Write corrected labels: a person's decisions first, then the judge's."""
    _check_words(to, in_place, undo, finish, from_label_studio)
    with make_report() as report:
        if undo is not None or finish is not None:
            _of_journal(undo, finish, place, report)
            return
        run, config = open_with(audited(source), place)
        from robustdiff.jobs.annotations import import_annotations
        from robustdiff.jobs.correct import check_targets, check_unmoved, corrected_labels

        if to:
            check_unmoved(run, config)
        check_targets(to or [], config, link=link, in_place=in_place)
        if from_label_studio is not None:
            count, replaced = import_annotations(run, from_label_studio, report)
            said = f"{count} new decisions, {replaced} of them in place of others"
            print(f"{said}, in {printable(str(run.decisions_file))}")
        if not (to or in_place):
            return
        corrected = corrected_labels(run, config, decided_only=decided_only)
        _print_counts(corrected)
        for path in to or []:
            _write(path, run, config, corrected, link, worst, report)
        if in_place:
            _move(run, config, corrected, report)


def _check_words(
    to: list[Path] | None,
    in_place: bool,
    undo: Path | None,
    finish: Path | None,
    annotations: Path | None,
) -> None:
    asked = [bool(to or in_place or annotations), undo is not None, finish is not None]
    if sum(asked) != 1:
        raise ValueError(
            "give --to, --in-place or --from-label-studio, or --undo or --finish alone"
        )
    if to and in_place:
        raise ValueError(
            f"--in-place moves the images that --to {to[0]} would name or link to; give one of them"
        )


def _of_journal(undo: Path | None, finish: Path | None, place: Layer, report: "Report") -> None:
    from robustdiff.jobs.correct import finish_moves, take_back_moves

    given = flat(place)
    if "data.image_root" in given:
        raise ValueError("--image-root is for manifests, and moved images lie in class folders")
    found = given.get("data.data_dir")
    root = None if found is None else Path(found)
    if undo is not None:
        journal, count = take_back_moves(undo, report, root)
        print(f"{count} images moved back in {printable(str(journal.root))}")
    elif finish is not None:
        journal, count = finish_moves(finish, report, root)
        print(f"{count} images moved in {printable(str(journal.root))}")


def _print_counts(corrected: "Corrected") -> None:
    by = corrected.decided_by
    changed = corrected.labels != corrected.before.given
    person = sum(word == "person" for word in by)
    relabelled = sum(word == "person" and bool(new) for word, new in zip(by, changed, strict=True))
    print(
        f"{len(by)} labels: {person} checked by a person, {relabelled} of them changed; "
        f"{sum(word == 'judge' for word in by)} changed by the judge; "
        f"{sum(word == 'removed' for word in by)} images removed"
    )


def _write(
    path: Path,
    run: "Run",
    config: Config,
    corrected: "Corrected",
    link: str,
    worst: int | None,
    report: "Report",
) -> None:
    from robustdiff.jobs.correct import (
        kind_of_target,
        make_tree,
        write_label_studio,
        write_labels,
    )

    kind = kind_of_target(path)
    if kind == "labels":
        write_labels(path, config, corrected)
    elif kind == "tasks":
        print(printable(str(write_label_studio(path, config, corrected, worst))))
    else:
        count = make_tree(run, config, corrected, path, link, report)
        print(f"{count} images ({link})")
    print(printable(str(path)))


def _move(run: "Run", config: Config, corrected: "Corrected", report: "Report") -> None:
    from robustdiff.jobs.correct import move_in_place

    journal, count = move_in_place(run, config, corrected, report)
    where = shlex.quote(printable(str(journal)))
    print(f"{count} images moved; take it back with: robustdiff correct --undo {where}")
