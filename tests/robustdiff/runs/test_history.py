"""metrics.jsonl: read, summed, and cut where a run resumes."""

import json

import pytest

from robustdiff.errors import DamagedError
from robustdiff.runs.folder import Run
from robustdiff.runs.history import append_entry, forget_after, read_history, seconds_spent

ENTRIES = [
    {"step": 0, "preparing_seconds": 3.0},
    {"step": 2, "loss": 1.0, "images_per_second": 10.0},
    {"step": 4, "loss": 0.5, "images_per_second": 5.0},
    {"step": 4, "round": 1, "scoring_seconds": 1.5},
    {"step": 6, "loss": 0.25, "images_per_second": 10.0},
    {"step": 6, "round": 2, "scoring_seconds": 2.5},
]


@pytest.fixture
def run(tmp_path):
    run = Run(tmp_path)
    for entry in ENTRIES:
        append_entry(run, entry)
    return run


def test_entries_come_back_and_half_a_line_is_skipped(run):
    with run.history_file.open("a") as file:
        file.write('[1]\n{"loss": 3}\n{"step": 8, "lo')
    assert read_history(run) == ENTRIES


def test_no_log_has_no_entries(tmp_path):
    assert read_history(Run(tmp_path)) == []
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DamagedError, match=r"metrics\.jsonl is not a file"):
        read_history(Run(tmp_path))


def test_the_time_of_every_part_is_summed(run):
    training = 2 * 10 / 10 + 2 * 10 / 5 + 2 * 10 / 10
    assert seconds_spent(run, batch_size=10) == (training, 4.0, 3.0)


@pytest.mark.parametrize(
    ("step", "rounds", "prepared", "kept"),
    [
        (6, 2, True, ENTRIES),
        # The checkpoint of a step may come before or after the scoring round of that step.
        (6, 1, True, ENTRIES[:5]),
        (4, 0, True, ENTRIES[:3]),
        (4, 1, True, ENTRIES[:4]),
        (0, 0, False, []),
    ],
)
def test_what_a_resumed_run_writes_again_is_forgotten(run, step, rounds, prepared, kept):
    forget_after(run, step=step, rounds=rounds, prepared=prepared)
    assert [json.loads(line) for line in run.history_file.read_text().splitlines()] == kept


def test_a_run_without_a_log_has_nothing_to_forget(tmp_path):
    forget_after(Run(tmp_path), step=0, rounds=0, prepared=False)
    assert not (tmp_path / "metrics.jsonl").exists()
