"""Checkpoints: tensors and plain numbers only, written atomically, verified before use.

Each `step-N.pt` has a `step-N.json` with its SHA-256, and holds that of the score file that it
refers to. If any of the three is damaged, the checkpoint before is used.
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256, write_atomic, write_text
from robustdiff.files.score_files import (
    Arrays,
    ScoreFile,
    forget_scores,
    read_scores,
    write_scores,
)

_KEPT = 2
_UNREADABLE = "?"
_FORMAT = "robustdiff-checkpoint-1"


class Checkpoint(NamedTuple):
    """A checkpoint as it was saved, on the CPU.

    Attributes:
        state: Nested dicts of tensors and plain values.
        scores: The score file that it refers to; None if there is none.
        arrays: Content of that file.
    """

    state: dict[str, Any]
    scores: ScoreFile | None
    arrays: Arrays


def save_scores(
    folder: Path, tensors: dict[str, Tensor], number: int, held: ScoreFile | None
) -> ScoreFile | None:
    """Write the score file of a round, unless it is there.

    Args:
        folder: The run's checkpoint folder; made if missing.
        tensors: What changes once a round, by name.
        number: Scoring rounds done.
        held: The newest score file that this process has written, or has gone on from.

    Returns:
        What the next checkpoint refers to; None if there are no tensors.

    Raises:
        OSError: If it cannot be written; the earlier checkpoints are unchanged then.
    """
    if not tensors:
        return None
    if held is not None and held.round == number and (folder / held.name).exists():
        return held
    with _writing(folder, "scores", folder / ScoreFile(number, "").name):
        return write_scores(folder, number, tensors)


def save_checkpoint(
    folder: Path,
    state: dict[str, Any],
    step: int,
    *,
    scores: ScoreFile | None = None,
    kept_step: int | None = None,
) -> set[str]:
    """Write a checkpoint, and delete the earlier ones but for a few.

    The newest two up to this step are kept, and the newest one that refers to another score file
    than this one, or to none, so that damage to one score file leaves a checkpoint. Score files go
    with the last checkpoint that refers to them.

    Args:
        folder: The run's checkpoint folder; made if missing.
        state: Nested dicts of tensors and plain numbers.
        step: Step of the state, names the file.
        scores: The score file that belongs to the state.
        kept_step: A checkpoint that is kept besides these.

    Returns:
        Names of the score files that checkpoints refer to.

    Raises:
        OSError: If it cannot be written; the earlier checkpoints are unchanged then.
    """
    path = _file(folder, step)
    name = {} if scores is None else {"scores": scores.name}

    def record(temporary: Path) -> None:
        # Before the renaming: a process killed here leaves a digest without a file, not a file
        # without a digest.
        digest = {"sha256": sha256(temporary)} | name
        write_text(_digest_file(path), json.dumps(digest) + "\n")

    content = {"format": _FORMAT, "state": state}
    content |= {} if scores is None else {"scores": asdict(scores)}
    with _writing(folder, "checkpoint", path):
        write_atomic(path, lambda file: torch.save(content, file), written=record)
    # Those of later steps are damaged, or of steps that a resumed run makes anew.
    earlier = [old for old in _files(folder) if old <= path]
    others = [old for old in earlier if _scores_of(old) not in (_scores_of(path), _UNREADABLE)]
    kept = {*earlier[:_KEPT], *others[:1]}
    kept |= set() if kept_step is None else {_file(folder, kept_step)}
    for old in folder.glob("step-*"):
        if old.with_suffix(".pt") not in kept:
            old.unlink()
    referred = {found for old in kept if (found := _scores_of(old)) is not None}
    forget_scores(folder, referred)
    return referred


@contextmanager
def _writing(folder: Path, what: str, path: Path) -> Iterator[None]:
    """Make the folder, and say what could not be written, and what that leaves."""
    folder.mkdir(exist_ok=True)
    try:
        yield
    except (OSError, RuntimeError) as error:
        # On a full disk torch fails once more while it closes the archive, and hides the cause.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        earlier = "; the earlier ones are whole" if _files(folder) else ""
        raise OSError(f"cannot write {what} {path}: {cause.strerror}{earlier}") from error


def load_checkpoint(
    folder: Path, usable: Callable[[dict[str, Any]], bool] = lambda state: True
) -> Checkpoint | None:
    """Load the newest checkpoint that is whole; damaged ones are skipped with a warning.

    Args:
        folder: The run's checkpoint folder.
        usable: Whether a saved state will do; others are passed over.

    Returns:
        The checkpoint; None if there is none.

    Raises:
        DamagedError: If there are checkpoints, and none can be used.
    """
    problems: list[str] = []
    for path in _files(folder):
        try:
            state, scores = _read(path)
            if not usable(state):
                continue
            arrays = {} if scores is None else _scores_for(path, scores)
        except DamagedError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; using {path.name} instead", stacklevel=2)
        return Checkpoint(state, scores, arrays)
    if problems:
        raise DamagedError(problems[0])
    return None


def steps_made(folder: Path, planned: int) -> int:
    """Return the step of the newest checkpoint, by its name, of which the run's weights are.

    Args:
        folder: The run's checkpoint folder.
        planned: The run's length, and what is returned where there are no checkpoints: who has
            removed all of them has no use for more steps.
    """
    steps = [path.stem.removeprefix("step-") for path in _files(folder)]
    return next((int(step) for step in steps if step.isdecimal()), planned)


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _scores_of(path: Path) -> str | None:
    """Return the name of the score file that a checkpoint refers to, None if it has none.

    `_UNREADABLE` where that is not to be known, because the checkpoint is damaged or gone.
    """
    try:
        name: str | None = json.loads(_digest_file(path).read_text(encoding="utf-8")).get("scores")
    except (OSError, ValueError, AttributeError):
        return _UNREADABLE
    return name


def _scores_for(path: Path, scores: ScoreFile) -> Arrays:
    try:
        return read_scores(path.parent, scores)
    except DamagedError as error:
        raise DamagedError(f"checkpoint {path} cannot be used: {error}") from error


def _read(path: Path) -> tuple[dict[str, Any], ScoreFile | None]:
    try:
        beside = json.loads(_digest_file(path).read_text(encoding="utf-8"))
        recorded, found = beside["sha256"], sha256(path)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"checkpoint {path} cannot be verified: {error}") from error
    if found != recorded:
        raise DamagedError(f"checkpoint {path} is damaged: its SHA-256 is not the recorded one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what is no checkpoint fails in many ways
        raise DamagedError(f"checkpoint {path} cannot be read as tensors") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DamagedError(f"{path} is not a robustdiff checkpoint")
    known = content.get("scores")
    try:
        scores = None if known is None else ScoreFile(int(known["round"]), str(known["sha256"]))
        state: dict[str, Any] = content["state"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"{path} is not a robustdiff checkpoint: {error!r}") from error
    if beside.get("scores") != (None if scores is None else scores.name):
        raise DamagedError(f"checkpoint {path} is damaged: {_digest_file(path)} has other scores")
    return state, scores
