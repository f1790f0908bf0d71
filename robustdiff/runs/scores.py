"""scores.npz: the newest score of each sample, and what the scores say about the labels."""

import hashlib
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from corruptions import NoisyLabels
from curricula import Trust
from curricula.sparse import SparseClasses
from curricula.types import Doubles
from robustdiff.errors import DamagedError
from robustdiff.files.atomic import write_atomic
from robustdiff.metrics.detection import detection
from robustdiff.runs.folder import Run
from robustdiff.runs.history import read_history
from robustdiff.runs.many import is_many, sampled

# Fields of Trust that scores.npz holds where the score knows the classes.
_CLASS_PARTS = ("classes", "image_classes", "transition")


class StoredScores(NamedTuple):
    """Content of scores.npz.

    Attributes:
        scores: (N,) floats, high = trusted.
        trust: What they say about the labels.
    """

    scores: NDArray[np.floating]
    trust: Trust


def save_scores(
    run: Run,
    scores: NDArray[np.floating],
    trust: Trust,
    label_used: NDArray[np.bool_],
    *,
    anew: bool = False,
) -> None:
    """Write scores.npz atomically, or judged.npz.

    Of many samples it holds neither numbers nor ranks, which follow from the rest.

    Args:
        run: The run.
        scores: (N,) floats, high = trusted.
        trust: What they say about the labels.
        label_used: (N,) bool, whether training uses the given label.
        anew: Whether an audit has judged the labels anew; the scores of training then stay.
    """
    content: dict[str, NDArray[Any]] = {
        "score": scores,
        "label_right": trust.right,
        "estimated_noise": np.array(trust.noise),
        "label_used": label_used,
    }
    if not is_many(len(scores)):
        content |= {"index": np.arange(len(scores)), "label_score": label_score(scores)}
    for name in _CLASS_PARTS:
        value = getattr(trust, name)
        if isinstance(value, SparseClasses):
            content |= {f"{name}.{part}": np.asarray(held) for part, held in value.plain().items()}
        elif value is not None:
            content[name] = value.astype(np.float32)
    if trust.doubts:
        content["doubts"] = np.array(trust.doubts)
    if trust.temperature is not None:
        content["temperature"] = np.array(trust.temperature)
    path = run.judged_file if anew else run.scores_file
    write_atomic(path, lambda file: np.savez(file, **content))  # type: ignore[arg-type]


def load_judged(run: Run) -> StoredScores | None:
    """Return what the newest report is about: an audit that judged the labels anew, or training."""
    return load_scores(run, anew=run.judged_file.exists())


def estimated_transition(run: Run) -> Doubles | None:
    """Return how likely label j is given to class i, (K, K), by the newest report on the labels.

    None if nothing has estimated it, or there was no evidence to do so.
    """
    path = run.judged_file if run.judged_file.exists() else run.scores_file
    if not path.exists():
        return None
    # What is said of each sample stays unread: there may be millions.
    content = _entries(run, path, ("estimated_noise", "transition"))
    try:
        known = not math.isnan(content["estimated_noise"])
    except (KeyError, TypeError) as error:
        raise _damaged(run, path) from error
    return content.get("transition") if known else None


def transition_digest(transition: Doubles) -> str:
    """Return the SHA-256 of a transition matrix, for what depends on it."""
    return hashlib.sha256(np.ascontiguousarray(transition, np.float64).tobytes()).hexdigest()


def load_scores(run: Run, *, anew: bool = False) -> StoredScores | None:
    """Read scores.npz, or judged.npz; its zip archive has a checksum for every array.

    Returns:
        Its content; None if the run has made no scores.

    Raises:
        DamagedError: If it is damaged or something else.
    """
    path = run.judged_file if anew else run.scores_file
    if not path.exists():
        return None
    content = _entries(run, path)
    try:
        scores, right = content["score"], content["label_right"]
        if scores.ndim != 1 or right.shape != scores.shape:
            raise ValueError("not one score a sample")
        noise = float(content["estimated_noise"])
        temperature = float(content["temperature"]) if "temperature" in content else None
        doubts = tuple(map(str, content.get("doubts", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(run, path) from error
    if temperature is None:
        temperature = _logged_temperature(run)
    known: dict[str, Any] = {name: content[name] for name in _CLASS_PARTS if name in content}
    for name in _CLASS_PARTS:
        if f"{name}.count" in content:
            parts = ("values", "classes", "rest", "count")
            known[name] = SparseClasses.of({part: content[f"{name}.{part}"] for part in parts})
    trust = Trust(right, noise, **known, temperature=temperature, doubts=doubts)
    return StoredScores(scores, trust)


def _entries(run: Run, path: Path, names: Collection[str] | None = None) -> dict[str, Any]:
    """Read those entries of an archive of scores that are there, all if none are named."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive if names is None or name in names}
    except Exception as error:  # damaged archives fail in many ways
        raise _damaged(run, path) from error


def _damaged(run: Run, path: Path) -> DamagedError:
    return DamagedError(f"scores of run {run.path}: {path.name} is damaged")


def _logged_temperature(run: Run) -> float | None:
    """Return the newest temperature of the log; earlier versions kept it there alone."""
    logged = [entry["temperature"] for entry in read_history(run) if "temperature" in entry]
    return logged[-1] if logged else None


def detect(
    scores: NDArray[np.floating],
    labels: NoisyLabels,
    flagged: NDArray[np.bool_] | None = None,
) -> dict[str, float] | None:
    """Return how well scores, (N,) high = trusted, find the wrong labels; see `detection`.

    Many scores are judged by some of them, see `robustdiff.runs.many`.
    """
    rows, flipped = sampled(len(scores)), labels.flipped
    flags = None if flagged is None else torch.from_numpy(flagged[rows])
    return detection(torch.from_numpy(scores[rows]), torch.from_numpy(flipped[rows]), flags)


def label_score(scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the rank of each score divided by N, (N,) in (0, 1]; lower is more suspect."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks / len(scores)
