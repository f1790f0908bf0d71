"""Checkpoints: tensors and plain numbers only, written atomically, verified before use.

Each `step-N.pt` has a `step-N.json` with its SHA-256. If either is damaged, the checkpoint before
is used.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256, write_atomic, write_text

_KEPT = 2
_FORMAT = "robustdiff-checkpoint-1"


def save_checkpoint(
    folder: Path, state: dict[str, Any], step: int, *, kept_step: int | None = None
) -> None:
    """Write a checkpoint, and delete all but the newest two up to this step.

    Args:
        folder: The run's checkpoint folder; made if missing.
        state: Nested dicts of tensors and plain numbers.
        step: Step of the state, names the file.
        kept_step: A checkpoint that is kept besides these two.

    Raises:
        OSError: If it cannot be written; the earlier checkpoints are unchanged then.
    """
    folder.mkdir(exist_ok=True)
    path = _file(folder, step)

    def record(temporary: Path) -> None:
        # Before the renaming: a process killed here leaves a digest without a file, not a file
        # without a digest.
        write_text(_digest_file(path), json.dumps({"sha256": sha256(temporary)}) + "\n")

    content = {"format": _FORMAT, "state": state}
    try:
        write_atomic(path, lambda file: torch.save(content, file), written=record)
    except (OSError, RuntimeError) as error:
        # On a full disk torch fails once more while it closes the archive, and hides the cause.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        earlier = "; the earlier ones are whole" if _files(folder) else ""
        raise OSError(f"cannot write checkpoint {path}: {cause.strerror}{earlier}") from error
    # Those of later steps are damaged, or of steps that a resumed run makes anew.
    kept = [old for old in _files(folder) if old <= path][:_KEPT]
    kept += [] if kept_step is None else [_file(folder, kept_step)]
    for old in folder.glob("step-*"):
        if old.with_suffix(".pt") not in kept:
            old.unlink()


def load_checkpoint(
    folder: Path, usable: Callable[[dict[str, Any]], bool] = lambda state: True
) -> dict[str, Any] | None:
    """Load the newest checkpoint that is whole; damaged ones are skipped with a warning.

    Args:
        folder: The run's checkpoint folder.
        usable: Whether a saved state will do; others are passed over.

    Returns:
        The saved state, on the CPU; None if there is none.

    Raises:
        DamagedError: If there are checkpoints, and none can be used.
    """
    problems: list[str] = []
    for path in _files(folder):
        try:
            state = _read(path)
        except DamagedError as error:
            problems.append(str(error))
            continue
        if not usable(state):
            continue
        for problem in problems:
            warnings.warn(f"{problem}; using {path.name} instead", stacklevel=2)
        return state
    if problems:
        raise DamagedError(problems[0])
    return None


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints, newest first."""
    return sorted(folder.glob("step-*.pt"), reverse=True)


def _file(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}.pt"


def _digest_file(path: Path) -> Path:
    return path.with_suffix(".json")


def _read(path: Path) -> dict[str, Any]:
    try:
        recorded = json.loads(_digest_file(path).read_text(encoding="utf-8"))["sha256"]
        found = sha256(path)
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
    state: dict[str, Any] = content["state"]
    return state
