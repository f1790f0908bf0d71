"""Checkpoints: tensors and plain numbers only, written atomically, verified before use."""

import json
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from robustdiff.errors import DamagedError
from robustdiff.files import sha256, write_atomic, write_text

_KEPT = 2
_MANIFEST = "manifest.json"
_FORMAT = "robustdiff-checkpoint-1"


def save_checkpoint(folder: Path, state: dict[str, Any], step: int) -> None:
    """Write a checkpoint and forget all but the newest two.

    Args:
        folder: The run's checkpoint folder; made if missing.
        state: Nested dicts of tensors and plain numbers.
        step: Step of the state, names the file.
    """
    folder.mkdir(exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    write_atomic(path, lambda file: torch.save({"format": _FORMAT, "state": state}, file))
    digests = _manifest(folder) | {path.name: sha256(path)}
    kept = dict(sorted(digests.items())[-_KEPT:])
    write_text(folder / _MANIFEST, json.dumps(kept, indent=2) + "\n")
    for old in folder.glob("step-*.pt"):
        if old.name not in kept:
            old.unlink()


def load_checkpoint(folder: Path) -> dict[str, Any]:
    """Load the newest checkpoint that is whole; damaged ones are skipped with a warning.

    Args:
        folder: The run's checkpoint folder.

    Returns:
        The saved state, on the CPU.

    Raises:
        DamagedError: If there is no checkpoint, or none can be used.
    """
    files = sorted(folder.glob("step-*.pt"), reverse=True)
    if not files:
        raise DamagedError(f"there is no checkpoint in {folder}")
    problems = []
    for path in files:
        try:
            state = _read(path, _manifest(folder).get(path.name))
        except DamagedError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; using {path.name} instead", stacklevel=2)
        return state
    raise DamagedError(problems[0])


def _manifest(folder: Path) -> dict[str, str]:
    path = folder / _MANIFEST
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise DamagedError(f"checkpoint manifest {path} is not valid: {error}") from error


def _read(path: Path, digest: str | None) -> dict[str, Any]:
    if digest is None or sha256(path) != digest:
        raise DamagedError(f"checkpoint {path} is damaged: its SHA-256 is not the recorded one")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise DamagedError(f"checkpoint {path} cannot be read as tensors") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise DamagedError(f"{path} is not a robustdiff checkpoint")
    state: dict[str, Any] = content["state"]
    return state
