"""metrics.jsonl: one JSON object per logged step, scoring round and preparation."""

import json
from collections.abc import Mapping
from contextlib import suppress
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


def forget_after(run: Run, *, step: int, rounds: int, prepared: bool) -> None:
    """Drop the entries that a resumed run will write again.

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

    if run.history_file.exists():
        lines = [json.dumps(entry) for entry in read_history(run) if stays(entry)]
        write_text(run.history_file, "".join(f"{line}\n" for line in lines))
