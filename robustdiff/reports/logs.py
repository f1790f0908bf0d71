"""Where the log of a run goes besides metrics.jsonl: a table, wandb, MLflow.

Every such log follows metrics.jsonl. It gets an entry once a checkpoint holds the step, because a
killed run makes the entries after its last checkpoint again. So a run that was killed and resumed
logs what an uninterrupted one logs, and a log that is named later begins at the first step.
"""

import csv
import importlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple

from robustdiff.config.sections import Config
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import write_text
from robustdiff.progress import Report
from robustdiff.runs.folder import Run
from robustdiff.runs.history import read_history

Entry = dict[str, Any]
Follow = Callable[[int], None]
"""Copies what is new in the history of a run that has made so many steps."""
TABLE_NAME, STATE_NAME = "metrics.csv", "logs.json"
GRIDS = "samples/one_column_per_class"
# Every entry of the history has one of these.
_MARKERS = ("loss", "round", "preparing_seconds")


@contextmanager
def _table(run: Run, config: Config, report: Report) -> Iterator[Follow]:
    """Write the history as metrics.csv, a row for each entry."""

    def follow(step: int) -> None:
        entries = read_history(run)
        columns = dict.fromkeys(["step", *(name for entry in entries for name in entry)])
        text = io.StringIO()
        writer = csv.DictWriter(text, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(entries)
        write_text(run.path / TABLE_NAME, text.getvalue())

    yield follow


class _Kind(NamedTuple):
    """A log that a package of its own writes; see `robustdiff.reports.wandb_log`.

    Attributes:
        package: The module that is imported, whose extra of robustdiff has the log's name.
        adapter: Our module with the functions `check()` and `following(run, config, report)`.
    """

    package: str
    adapter: str


# What writes each log; None for those that the recorder of a run writes itself, as things happen.
LOGS: dict[str, Callable[..., AbstractContextManager[Follow]] | _Kind | None] = {
    "jsonl": None,
    "tensorboard": None,
    "csv": _table,
    "wandb": _Kind("wandb", "robustdiff.reports.wandb_log"),
    "mlflow": _Kind("mlflow", "robustdiff.reports.mlflow_log"),
}


def check_logs(names: Iterable[str], *, connect: bool = True) -> None:
    """Refuse logs that cannot be written, before any work is done.

    Args:
        names: Keys of `LOGS`.
        connect: Whether to ask the logs' servers, too, which may make a local store.

    Raises:
        ValueError: If a package is missing, nobody is logged in, or a store does not answer.
    """
    for name in names:
        if isinstance(kind := LOGS[name], _Kind):
            try:
                importlib.import_module(kind.package)
            except ImportError as error:
                raise ValueError(
                    f"log {name!r} needs the package {kind.package}; "
                    f"get it with: pip install 'robustdiff[{name}]'"
                ) from error
            if connect:
                importlib.import_module(kind.adapter).check()


def following(
    names: Iterable[str], run: Run, config: Config, report: Report
) -> list[AbstractContextManager[Follow]]:
    """Return the logs that follow the history of a run, each to be entered.

    Args:
        names: Keys of `LOGS`; those that the recorder writes itself are left out.
        run: The run.
        config: Its configuration.
        report: Receives messages.
    """
    opened = []
    for name in dict.fromkeys(names):
        writer = LOGS[name]
        if isinstance(writer, _Kind):
            writer = importlib.import_module(writer.adapter).following
        if writer is not None:
            opened.append(writer(run, config, report))
    return opened


def marker(entry: Entry) -> str:
    """Return the value that tells the kind of an entry, by its full name; see `named`."""
    return f"{_group(entry)}/{next(name for name in _MARKERS if name in entry)}"


def named(entry: Entry) -> dict[str, float]:
    """Return the values of an entry under the names that wandb and MLflow group them by."""
    values = {name: value for name, value in entry.items() if name != "step" and value is not None}
    return {f"{_group(entry)}/{name}": value for name, value in values.items()}


def _group(entry: Entry) -> str:
    return "scores" if "round" in entry else "train"


def new_entries(run: Run, last: Mapping[str, int]) -> list[Entry]:
    """Return the entries of the history that a log lacks.

    Args:
        run: The run.
        last: Step of the newest entry that the log has of each kind; see `marker`.
    """
    return [entry for entry in read_history(run) if entry["step"] > last.get(marker(entry), -1)]


def read_state(run: Run, name: str) -> dict[str, Any]:
    """Return what logs.json holds about a log; {} if nothing.

    Raises:
        DamagedError: If logs.json cannot be read.
    """
    return _states(run).get(name, {})


def write_state(run: Run, name: str, state: Mapping[str, Any]) -> None:
    """Put what is to be known of a log when the run is resumed into logs.json."""
    states = _states(run) | {name: dict(state)}
    write_text(run.path / STATE_NAME, json.dumps(states, indent=2) + "\n")


def _states(run: Run) -> dict[str, dict[str, Any]]:
    path = run.path / STATE_NAME
    try:
        states = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise DamagedError(f"log of run {run.path}: {path.name} is damaged") from error
    if not isinstance(states, dict) or not all(isinstance(s, dict) for s in states.values()):
        raise DamagedError(f"log of run {run.path}: {path.name} is damaged")
    return states


def by_step(entries: Sequence[Entry]) -> dict[int, dict[str, Any]]:
    """Return the values of entries by their steps, in the order of the steps."""
    rows: dict[int, dict[str, Any]] = {}
    for entry in sorted(entries, key=lambda entry: entry["step"]):
        rows.setdefault(entry["step"], {}).update(named(entry))
    return rows


def tried(
    act: Callable[[], None], errors: tuple[type[Exception], ...], otherwise: str, report: Report
) -> bool:
    """Do what a log's failure must not keep training from; return whether it succeeded.

    Args:
        act: What to do.
        errors: What may go wrong; it becomes a message.
        otherwise: What follows from a failure, in words.
        report: Receives the message.
    """
    try:
        act()
    except errors as error:
        report.message(f"{' '.join(str(error).split())}; {otherwise}")
        return False
    return True
