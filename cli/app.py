"""The `robustdiff` command: its commands, and errors as one line and an exit code."""

import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, cast

import typer

from robustdiff import __version__

from . import audit as audit_command
from . import compare as compare_command
from . import correct as correct_command
from . import corrupt as corrupt_command
from . import eval as eval_command
from . import export as export_command
from . import likelihood as likelihood_command
from . import presets as presets_command
from . import report as report_command
from . import review as review_command
from . import sample as sample_command
from . import study as study_command
from . import sweep as sweep_command
from . import train as train_command
from .console import printable

app = typer.Typer(
    name="robustdiff",
    help="Train class-conditional diffusion models when some labels are wrong, "
    "and find those labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
# Commands that several processes of torchrun may be given at once. Others would do the same work
# several times, and write the same files.
_TOGETHER = ("train", "eval", "study", "presets")
# typer's error for wrong words; its name is private.
_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])


def _print_version(*, asked: bool) -> None:
    if asked:
        print(f"robustdiff {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    command = context.invoked_subcommand
    started = {"RANK", "WORLD_SIZE"} <= os.environ.keys()
    if started and command is not None and command not in _TOGETHER:
        from robustdiff.parallel import refuse_company

        refuse_company(command)


app.command()(train_command.train)
app.command(name="eval")(eval_command.evaluate)
app.command()(sample_command.sample)
app.command()(sweep_command.sweep)
app.command()(likelihood_command.likelihood)
app.command()(audit_command.audit)
app.command()(report_command.report)
app.command()(review_command.review)
app.command()(correct_command.correct)
app.command()(corrupt_command.corrupt)
app.command()(study_command.study)
app.command()(export_command.export)
app.command()(compare_command.compare)
app.command()(presets_command.presets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0 when done, 2 for a mistake in what was asked, 1 for a failure on the way, and
    128 + signal when told to stop.

    Args:
        arguments: Words of the command line, None for the process's own.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # names in any script must not end the work
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _run(arguments)
    except Exception:
        if not _was_one_of_several():
            raise
        traceback.print_exc()
        code = 1
    if _was_one_of_several():
        _leave_at_once(code)
    raise SystemExit(code)


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command, print an expected error as one line, and return the exit code."""
    warnings.formatwarning = _one_line
    words = None if arguments is None else list(arguments)
    try:
        with _stopped_by_sigterm() as received:
            code = app(words, prog_name="robustdiff", standalone_mode=False) or 0
        if code == 128 + signal.SIGINT:  # what typer makes of KeyboardInterrupt
            return _say("stopped", 128 + (received or [signal.SIGINT])[0])
        return code
    except _UsageError as error:
        return _say(_usage(error), 2)
    except ValueError as error:
        return _say(str(error), 2)
    except (RuntimeError, OSError) as error:
        # A stopped run and a damaged file are expected; anything else keeps its traceback.
        from robustdiff.errors import (
            DamagedError,
            DivergedError,
            InterruptedRunError,
            LeaderError,
            PeerError,
        )

        if isinstance(error, LeaderError):
            return 1  # the leader printed the error
        if isinstance(error, InterruptedRunError):
            return _say(str(error), 128 + error.signal)
        if isinstance(error, DamagedError | DivergedError | PeerError | OSError):
            return _say(str(error), 1)
        raise


@contextmanager
def _stopped_by_sigterm() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on SIGTERM as on SIGINT, so that a command closes its files.

    The training loop has handlers of its own, which save first.
    """
    received: list[int] = []
    # Only the main thread may set a handler, and a handler that is set already stays.
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield received
        return

    def stop(number: int, frame: object) -> None:
        received.append(number)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _was_one_of_several() -> bool:
    parallel = sys.modules.get("robustdiff.parallel")  # loaded by the commands that need it
    return parallel is not None and parallel.has_been_member()


def _leave_at_once(code: int) -> None:
    """End the process without finalising Python.

    DistributedDataParallel keeps the threads of its group alive when the group is destroyed. One of
    them may ask for Python's lock, to free the tensors of the last collective, while Python is
    finalising: Python ends that thread, and C++ answers by ending the process with SIGABRT. The
    commands have closed their files by now; what is left is to flush what was printed.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        code = code or 1
    os._exit(code)


def _usage(error: Any) -> str:  # noqa: ANN401 see _UsageError
    """Say in one line what was wrong, what is allowed, and what came."""
    message = " ".join(error.format_message().split()).replace("Value error, ", "").rstrip(".")
    details: list[dict[str, Any]] = getattr(error.__cause__, "errors", list)()
    came = repr(details[0]["input"]) if details else ""
    if came not in message:
        message += f", got {came}"
    if message.startswith("No such command"):
        message += f"; choose from {', '.join(error.ctx.command.commands)}"
    command = error.ctx.command_path if error.ctx else "robustdiff"
    return f"{message}; see {command} --help" if message else ""


def _say(message: str, code: int) -> int:
    if message:
        print(f"robustdiff: {printable(' '.join(message.splitlines()))}", file=sys.stderr)
    return code


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"robustdiff: warning: {printable(' '.join(str(message).splitlines()))}\n"
