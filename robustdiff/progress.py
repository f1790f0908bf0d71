"""How long work tells its caller how far it is; the command line shows it."""

from collections.abc import Callable
from functools import partial

Progress = Callable[[int, int], None]
"""Called with (units done, units in all), again and again."""


def silent(done: int, total: int) -> None:
    """Show no progress."""


def part_of(progress: Progress, number: int, count: int) -> Progress:
    """Return what reports one of several equally long pieces of work as a part of all.

    Args:
        progress: Of all.
        number: Which piece, from 0.
        count: How many there are.
    """
    return lambda done, total: progress(number * total + done, count * total)


class Report:
    """Receives messages and progress and shows nothing; subclasses decide how to show them."""

    def message(self, text: str) -> None:
        """Show one line."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Show how far a task is; called often, so a subclass may skip calls."""

    def stage(self, task: str) -> Progress:
        """Return what shows the progress of one task, a function of (done, total)."""
        return partial(self.progress, task)
