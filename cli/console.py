"""Progress on stderr: a rich bar on a terminal, a plain line every few seconds otherwise."""

import os
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from robustdiff.progress import Report

_SECONDS_BETWEEN_LINES = 5.0


def printable(text: str) -> str:
    """Escape what a terminal would interpret, such as escape sequences in the name of a file."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def plain(text: str) -> str:
    """Escape markup and escape sequences, so that rich prints text as it is."""
    return escape(printable(text))


class PlainReport(Report):
    """One line to stderr per message, and per task every few seconds and at its end."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def __enter__(self) -> Self:
        """Return the report."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing; lines are printed at once."""

    def message(self, text: str) -> None:
        """Print the line."""
        try:
            print(printable(text), file=sys.stderr, flush=True)
        except OSError:  # nobody reads on; the work is worth more than its lines
            sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 open until the process ends

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Print how far the task is, if the last line is old enough or the task is done."""
        now = time.monotonic()
        if done < total and now - self._shown_at < _SECONDS_BETWEEN_LINES:
            return
        self._shown_at = now
        self.message(f"{task} {done}/{total}{f'  {note}' if note else ''}")


class RichReport(Report):
    """A live bar per task on stderr, with messages above it."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        """Start the live display."""
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the live display."""
        self._progress.stop()

    def message(self, text: str) -> None:
        """Print the line above the bars."""
        self._progress.console.print(printable(text), markup=False, highlight=False)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the task's bar; `done` at its first call is where it starts."""
        if task not in self._tasks:
            self._tasks[task] = self._progress.add_task(task, total=total, note=note)
        self._progress.update(self._tasks[task], completed=done, total=total, note=note)


class QuietReport(PlainReport):
    """Print nothing; for processes that are not the leader."""

    def message(self, text: str) -> None:
        """Drop the line."""


def make_report(*, leader: bool = True) -> PlainReport | RichReport:
    """Return the report that suits stderr; of several processes only the leader prints."""
    if not leader:
        return QuietReport()
    console = Console(stderr=True)
    return RichReport(console) if console.is_terminal else PlainReport()
