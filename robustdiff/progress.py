"""What long work tells its caller; the command line renders it."""

from typing import Protocol


class Report(Protocol):
    """Receives messages and progress; implementations decide how to show them."""

    def message(self, text: str) -> None:
        """Show one line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Show how far a task is; called often, so showing may skip calls."""


class Silent:
    """A report that shows nothing."""

    def message(self, text: str) -> None:
        """Ignore the line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore the progress."""
