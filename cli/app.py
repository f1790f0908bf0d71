"""The `robustdiff` command: wires the commands together and turns errors into one line."""

import sys
import warnings
from collections.abc import Sequence

import typer

from . import audit as audit_command
from . import compare as compare_command
from . import corrupt as corrupt_command
from . import eval as eval_command
from . import presets as presets_command
from . import sample as sample_command
from . import study as study_command
from . import train as train_command

app = typer.Typer(
    name="robustdiff",
    help="Train class-conditional diffusion models when some labels are wrong, "
    "and find those labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(train_command.train)
app.command(name="eval")(eval_command.evaluate)
app.command()(sample_command.sample)
app.command()(audit_command.audit)
app.command()(corrupt_command.corrupt)
app.command()(study_command.study)
app.command()(compare_command.compare)
app.command()(presets_command.presets)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0 when done, 2 for a mistake in what was asked, 1 for a failure on the way, and
    128 + signal when told to stop.

    Args:
        arguments: Words of the command line, None for the process's own.
    """
    warnings.formatwarning = _one_line
    try:
        app(None if arguments is None else list(arguments))
    except ValueError as error:
        _leave(error, 2)
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
            raise SystemExit(1) from None  # the leader has said it
        if isinstance(error, InterruptedRunError):
            _leave(error, 128 + error.signal)
        if isinstance(error, DamagedError | DivergedError | PeerError | OSError):
            _leave(error, 1)
        raise


def _leave(error: Exception, code: int) -> None:
    print(f"robustdiff: {error}", file=sys.stderr)
    raise SystemExit(code)


def _one_line(message: Warning | str, *_: object, **__: object) -> str:
    return f"robustdiff: warning: {message}\n"
