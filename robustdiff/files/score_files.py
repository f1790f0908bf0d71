"""Score files: arrays that change once a scoring round, written once for all its checkpoints.

A checkpoint holds the digest of its score file, so it is never taken up with other scores than
its own. Hosts that do not see the leader's file keep one of their own, equal to the last byte.
"""

import warnings
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256, write_atomic
from robustdiff.parallel import Workers

# Arrays by where they belong in nested dicts, such as "trust.right".
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ScoreFile:
    """A file of scores as a checkpoint knows it.

    Attributes:
        round: Scoring rounds done when it was written; names the file.
        sha256: Digest, hexadecimal digits.
    """

    round: int
    sha256: str

    @property
    def name(self) -> str:
        """Name of the file in the folder of checkpoints."""
        return f"scores-{self.round:08d}.pt"


def split(state: dict[str, Any], at: str = "") -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Take nested dicts apart.

    Args:
        state: Nested dicts of tensors and plain values.
        at: What the names of the tensors begin with.

    Returns:
        The dicts without their tensors, and the tensors by their place, keys joined by dots.
    """
    plain: dict[str, Any] = {}
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            plain[name], inner = split(value, f"{at}{name}.")
            tensors |= inner
        elif isinstance(value, Tensor):
            tensors[at + name] = value
        else:
            plain[name] = value
    return plain, tensors


def join(plain: dict[str, Any], arrays: Arrays) -> None:
    """Put arrays into the dicts that `split` took them from."""
    for name, array in arrays.items():
        *path, last = name.split(".")
        part = plain
        for key in path:
            part = part[key]
        part[last] = array


def as_arrays(tensors: dict[str, Tensor]) -> Arrays:
    """Return tensors on the CPU as arrays of the same memory; a tensor held twice is one array."""
    known = {id(tensor): tensor.numpy() for tensor in tensors.values()}
    return {name: known[id(tensor)] for name, tensor in tensors.items()}


def write_scores(folder: Path, number: int, tensors: dict[str, Tensor]) -> ScoreFile:
    """Write a score file atomically; no second copy of the tensors is made.

    Args:
        folder: Of the checkpoints.
        number: Scoring rounds done.
        tensors: On the CPU, by name.

    Raises:
        OSError: If it cannot be written.
    """
    made: list[ScoreFile] = []
    write_atomic(
        folder / ScoreFile(number, "").name,
        lambda file: torch.save(tensors, file),
        written=lambda path: made.append(ScoreFile(number, sha256(path))),
    )
    return made[0]


def read_scores(folder: Path, file: ScoreFile) -> Arrays:
    """Read a score file.

    Raises:
        DamagedError: If it is missing, or not the one that was written.
    """
    path = folder / file.name
    try:
        found = sha256(path)
    except OSError as error:
        raise DamagedError(f"its scores cannot be read: {error}") from error
    if found != file.sha256:
        raise DamagedError(
            f"its scores, {path}, are damaged: their SHA-256 is not the recorded one"
        )
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return as_arrays(tensors)
    except Exception as error:  # what holds no tensors fails in many ways
        raise DamagedError(f"its scores, {path}, cannot be read as tensors") from error


def forget_scores(folder: Path, kept: set[str]) -> None:
    """Remove the score files but for those of these names."""
    for path in folder.glob("scores-*.pt"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def write_where_unseen(
    folder: Path, file: ScoreFile, tensors: dict[str, Tensor], kept: set[str], workers: Workers
) -> None:
    """Write the leader's score file on hosts that do not see it, in their first process.

    What cannot be written there, or would differ from the leader's, is left out: who resumes gets
    it from the leader then.

    Args:
        folder: Of the checkpoints, by the leader's path; made if missing.
        file: What the leader has written.
        tensors: What it holds, as this process has it.
        kept: Names of the score files that checkpoints refer to; others are removed.
        workers: All of them, of which each may call this or not.
    """
    if workers.leader or workers.place != 0:
        return
    path = folder / file.name

    def check(temporary: Path) -> None:
        # The leader's file may be there and be seen late; then its like takes its place.
        if sha256(temporary) != file.sha256:
            raise DamagedError(f"process {workers.rank} has other scores than the first one")

    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(path, lambda stream: torch.save(tensors, stream), written=check)
            forget_scores(folder, kept)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"no {path} on this host: {error}", stacklevel=2)


def scores_everywhere(
    folder: Path, file: ScoreFile | None, arrays: Arrays | None, workers: Workers
) -> Arrays:
    """Return the arrays of a score file in all processes; those of a host share them.

    The first process of a host reads the file where it sees it, and gets the arrays from the leader
    where it does not, or where it is damaged. All processes must call this.

    Args:
        folder: Of the checkpoints, by the leader's path.
        file: What to read; None for arrays that lie in no score file.
        arrays: Those of the leader; None in the others.
        workers: All of them.
    """
    reads = workers.place in (0, None)
    if arrays is None and file is not None and reads:
        with suppress(DamagedError):
            arrays = read_scores(folder, file)
    found = workers.filled(arrays, wanted=reads)
    return workers.on_host(lambda: found or {})
