"""`robustdiff review`: a local web page where a person decides about suspect labels."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from robustdiff.config.layers import Layer

from .audit import AUDITS, name_of
from .console import make_report, printable
from .flags import open_with, with_options
from .options import STORED_DATA, AuditedArgument

_PANEL = "Page"


@with_options
def review(
    *,
    source: AuditedArgument = None,
    place: Annotated[Layer, STORED_DATA],
    order: Annotated[
        Literal["gain", "quality"],
        typer.Option(
            rich_help_panel=_PANEL,
            help="First the labels whose decision is likeliest to change one, or the worst.",
        ),
    ] = "gain",
    port: Annotated[
        int,
        typer.Option(
            min=0,
            max=65535,
            rich_help_panel=_PANEL,
            help="Port of the page on this machine; 0 for one that is free.",
        ),
    ] = 0,
    show: Annotated[
        bool, typer.Option("--open", rich_help_panel=_PANEL, help="Open the page in a browser.")
    ] = False,
) -> None:
    """Decide about suspect labels on a web page that only this machine can see.

    Every decision is written to decisions.sqlite in the run's folder before the page shows it.
    Ctrl-C ends the review; the same command goes on with it.
    """
    opened, config = open_with(audited(source), place)
    import secrets
    import webbrowser

    from robustdiff.jobs.review import open_review
    from robustdiff.review.server import ADDRESS, listen, make_app, serve

    with listen(port) as listening:
        with make_report() as report:
            found = open_review(opened, config, report, order)
        found.queue.refresh()
        counts, token = found.queue.progress(), secrets.token_urlsafe(32)
        taken = listening.getsockname()[1]
        address = f"http://{ADDRESS}:{taken}/?token={token}"
        print(
            f"{counts['suspects']} of {counts['labels']} labels are suspect, "
            f"{counts['decided']} are decided"
        )
        print(f"open {address}", flush=True)
        if show:
            webbrowser.open(address)
        serve(make_app(found, token, taken), listening)
    found.queue.refresh()
    decided = found.queue.progress()["decided"]
    found.queue.decisions.close()
    print(f"{decided} are decided, in {printable(str(opened.decisions_file))}")


def audited(source: Path | None) -> Path | None:
    """Return the run that is meant; for images the one that its audit has made."""
    from robustdiff.runs.folder import Run, is_run

    if source is None or not source.exists() or is_run(source):
        return source
    audit = AUDITS / name_of(source)
    if not Run(audit).config_file.exists():
        raise ValueError(
            f"{source} is neither a run nor images that were audited: there is no "
            f"{audit}; make it with: robustdiff audit {shlex.quote(str(source))}"
        )
    stored = Run(audit).config().data.data_dir
    if Path(stored).expanduser().resolve() != source.resolve():
        raise ValueError(
            f"{audit} is the audit of {stored}, not of {source}; name the folder of its own audit"
        )
    return audit
