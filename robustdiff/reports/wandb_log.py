"""The log of a run in Weights & Biases, online or offline, as `WANDB_MODE` says."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import wandb

from robustdiff.config.layers import to_plain
from robustdiff.config.sections import Config
from robustdiff.progress import Report
from robustdiff.reports.logs import (
    GRIDS,
    Follow,
    by_step,
    marker,
    new_entries,
    read_state,
    tried,
    write_state,
)
from robustdiff.runs.folder import Run
from robustdiff.runs.history import sample_grids

# Its own process answers with errors that are no wandb.Error.
_ERRORS = (Exception,)
_SERVICE = "WANDB_SERVICE"
_OTHERWISE = "wandb gets the entries when the run is resumed"


def check() -> None:
    """Refuse to log online where nobody is logged in.

    Raises:
        ValueError: If so.
    """
    _leave_inherited_service()
    online = wandb.setup().settings.mode == "online"
    if online and not wandb.login(prompt=False):
        raise ValueError(
            "log 'wandb' needs a login; run: wandb login, or set WANDB_MODE=offline to log to "
            "files alone"
        )


@contextmanager
def following(run: Run, config: Config, report: Report) -> Iterator[Follow]:
    """Open the run's log, a resumed run's own, and close it in the end.

    Args:
        run: The run; its folder gets a folder wandb.
        config: Its configuration.
        report: Receives the log's address.

    Raises:
        OSError: If wandb cannot begin.
    """
    state = {"id": secrets.token_hex(4), "last": {}} | read_state(run, "wandb")
    write_state(run, "wandb", state)
    try:
        log = wandb.init(
            id=state["id"],
            resume="allow",
            project=os.environ.get("WANDB_PROJECT", "robustdiff"),
            name=run.path.name,
            dir=str(run.path),
            config=to_plain(config),
            settings=wandb.Settings(silent=True, console="off"),
        )
    except _ERRORS as error:
        raise OSError(f"wandb cannot log: {error}") from error
    report.message(f"wandb: {log.settings.sync_dir if log.offline else log.url}")
    sent = dict(state["last"])
    # Another process writes what is logged, in its own time, and a row once a later one comes. What
    # the checkpoint before the last one logged is there by now; a killed run logs the rest again.
    marks = [dict(sent), dict(sent)]

    def follow(step: int) -> None:
        write_state(run, "wandb", state | {"last": marks[0]})
        if tried(lambda: _log(log, run, step, sent), _ERRORS, _OTHERWISE, report):
            marks[:] = [marks[1], dict(sent)]

    failed = True
    try:
        yield follow
        failed = False
    finally:  # `with log` would print a traceback
        if tried(lambda: log.finish(exit_code=int(failed)), _ERRORS, _OTHERWISE, report):
            write_state(run, "wandb", state | {"last": sent})


def _leave_inherited_service() -> None:
    """Let wandb start a process of its own, not use that of the program which started this one.

    There a killed run stays in use, so that it could not be resumed; and it may be gone.
    """
    token = os.environ.get(_SERVICE, "").split("-")  # format, process, address
    if len(token) > 1 and token[1] != str(os.getpid()):
        del os.environ[_SERVICE]


def _log(log: wandb.Run, run: Run, step: int, sent: dict[str, int]) -> None:
    """Log a row for each step that has new entries or a new grid, and note them in `sent`."""
    entries = new_entries(run, sent)
    rows: dict[int, dict[str, Any]] = by_step(entries)
    grids = {n: file for n, file in sample_grids(run, step).items() if n > sent.get(GRIDS, -1)}
    for made, file in grids.items():
        rows.setdefault(made, {})[GRIDS] = wandb.Image(str(file))
    for number in sorted(rows):
        log.log(rows[number], step=number)
    sent |= {marker(entry): entry["step"] for entry in entries}
    if grids:
        sent[GRIDS] = max(grids)
