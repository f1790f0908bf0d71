"""What a run logged: metrics.jsonl, an object per step, round and preparation; and its grids."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import append_line, write_text
from robustdiff.runs.folder import Run


def append_entry(run: Run, entry: Mapping[str, float | None]) -> None:
    """Append an entry; it holds "step", the number of steps so far.

    Raises:
        OSError: If it cannot be written, naming the file.
    """
    append_line(run.history_file, json.dumps(entry))


def read_history(run: Run) -> list[dict[str, Any]]:
    """Return all entries; half a line, left by a process killed while writing, is skipped.

    Raises:
        DamagedError: If metrics.jsonl is something else than a file.
    """
    path = run.history_file
    if not path.exists():
        return []
    if not path.is_file():  # reading a pipe would wait for a writer
        raise DamagedError(f"log of run {run.path}: {path.name} is not a file")
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            entries.append(json.loads(line))
    return [entry for entry in entries if isinstance(entry, dict) and "step" in entry]


def seconds_spent(run: Run, batch_size: int) -> tuple[float, float, float]:
    """Return the time of all training steps, of all scoring rounds, and of the preparation.

    Args:
        run: The run.
        batch_size: Images of a training step.
    """
    entries = read_history(run)
    before, training = 0, 0.0
    for entry in entries:
        if "images_per_second" in entry:
            training += (entry["step"] - before) * batch_size / entry["images_per_second"]
            before = entry["step"]
    scoring, preparing = (
        sum(entry.get(name, 0.0) for entry in entries)
        for name in ("scoring_seconds", "preparing_seconds")
    )
    return training, scoring, preparing


def forget_after(run: Run, *, step: int, rounds: int, prepared: bool) -> list[dict[str, Any]]:
    """Drop the entries that a resumed run will write again, and return them.

    Args:
        run: The run.
        step: Steps made, by the checkpoint that it resumes from.
        rounds: Scoring rounds done by then.
        prepared: Whether the objective was prepared by then.
    """

    def stays(entry: dict[str, Any]) -> bool:
        if "preparing_seconds" in entry:
            return prepared
        # A checkpoint may come before or after the scoring round of its step.
        if "round" in entry:
            return bool(entry["round"] <= rounds)
        return bool(entry["step"] <= step)

    entries = read_history(run)
    if run.history_file.exists():
        lines = [json.dumps(entry) for entry in entries if stays(entry)]
        write_text(run.history_file, "".join(f"{line}\n" for line in lines))
    return [entry for entry in entries if not stays(entry)]


def sample_grids(run: Run, upto: float = math.inf) -> dict[int, Path]:
    """Return the grids of generated images up to a step, step -> file, in their order."""
    named = [(file.stem.removeprefix("step-"), file) for file in run.samples.glob("step-*.png")]
    return {int(n): file for n, file in sorted(named) if n.isdecimal() and int(n) <= upto}
