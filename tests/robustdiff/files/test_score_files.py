"""Score files: written once a round, read where they are whole, removed when none needs them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from robustdiff.errors import DamagedError
from robustdiff.files.atomic import sha256
from robustdiff.files.checkpoint import load_checkpoint, save_checkpoint, save_scores
from robustdiff.files.score_files import (
    ScoreFile,
    as_arrays,
    join,
    scores_everywhere,
    split,
    write_where_unseen,
)
from robustdiff.parallel import ALONE, Workers

ELSEWHERE = Workers(rank=8, size=16, place=0)


def scores(number):
    return {"evidence": torch.full((4000,), float(number)), "trust.right": torch.ones(4000)}


def save(folder, step, number, held=None, **rest):
    """Save a checkpoint of a step after so many rounds."""
    file = save_scores(folder, scores(number) if number else {}, number, held)
    save_checkpoint(folder, {"step": step}, step, scores=file, **rest)
    return file


def names(folder, pattern):
    return sorted(int(path.stem.split("-")[1]) for path in folder.glob(pattern))


def test_a_state_taken_apart_and_joined_is_the_same():
    shared = torch.arange(6)
    state = {"rounds": 3, "a": {"b": {"classes": shared, "count": 2}, "c": None}, "d": shared}
    plain, tensors = split(state)
    assert plain == {"rounds": 3, "a": {"b": {"count": 2}, "c": None}}
    assert set(tensors) == {"a.b.classes", "d"}
    arrays = as_arrays(tensors)
    assert arrays["d"] is arrays["a.b.classes"]
    join(plain, arrays)
    assert plain["a"]["b"]["classes"] is plain["d"]
    assert plain["d"].tolist() == shared.tolist()


def test_the_second_checkpoint_of_a_round_writes_no_scores(tmp_path):
    held = save(tmp_path, 1, 1)
    path = tmp_path / held.name
    before = path.stat()
    assert save(tmp_path, 2, 1, held) is held
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert all((tmp_path / f"step-0000000{step}.pt").stat().st_size < 4000 for step in (1, 2))
    found = load_checkpoint(tmp_path)
    assert (found.state, found.scores) == ({"step": 2}, held)
    np.testing.assert_array_equal(found.arrays["evidence"], np.full(4000, 1.0, np.float32))
    assert save(tmp_path, 3, 2, held).name == "scores-00000002.pt"


def test_a_score_file_that_somebody_removed_is_written_again(tmp_path):
    held = save(tmp_path, 1, 1)
    (tmp_path / held.name).unlink()
    assert save(tmp_path, 2, 1, held) == held
    assert load_checkpoint(tmp_path).state == {"step": 2}


def test_without_scores_there_is_no_file(tmp_path):
    assert save(tmp_path, 1, 0) is None
    assert sorted(os.listdir(tmp_path)) == ["step-00000001.json", "step-00000001.pt"]
    assert load_checkpoint(tmp_path) == ({"step": 1}, None, {})


def test_a_score_file_goes_with_the_last_checkpoint_that_refers_to_it(tmp_path):
    held = None
    for step, number in enumerate([1, 1, 2, 2, 2, 3, 3, 3], start=1):
        held = save(tmp_path, step, number, held, kept_step=2)
    # The newest two, the newest of the round before, and the one that was to be kept.
    assert names(tmp_path, "step-*.pt") == [2, 5, 7, 8]
    assert names(tmp_path, "scores-*.pt") == [1, 2, 3]
    save(tmp_path, 9, 4, held)
    assert names(tmp_path, "step-*.pt") == [8, 9]
    assert names(tmp_path, "scores-*.pt") == [3, 4]


def test_a_damaged_checkpoint_takes_no_place_of_one_that_is_kept_against_damage(tmp_path):
    held = None
    for step, number in enumerate([1, 2, 2], start=1):
        held = save(tmp_path, step, number, held)
    (tmp_path / "step-00000002.json").write_text("{")
    save(tmp_path, 4, 2, held)
    assert names(tmp_path, "step-*.pt") == [1, 3, 4]
    assert names(tmp_path, "scores-*.pt") == [1, 2]


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "flipped": flip,
    "cut": lambda path: os.truncate(path, 5000),
    "missing": Path.unlink,
    "of other scores": lambda path: save_scores(path.parent, scores(7), 2, None),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_score_file_costs_the_checkpoints_of_its_round_alone(tmp_path, how):
    save(tmp_path, 1, 1)
    held = save(tmp_path, 2, 2)
    save(tmp_path, 3, 2, held)
    save(tmp_path, 4, 2, held)
    DAMAGE[how](tmp_path / held.name)
    with pytest.warns(UserWarning, match="cannot be used: its scores.*using step-00000001.pt") as w:
        found = load_checkpoint(tmp_path)
    assert len(w) == 2
    assert found.state == {"step": 1}
    assert found.arrays["evidence"][0] == 1
    (tmp_path / "step-00000001.pt").unlink()
    with pytest.raises(DamagedError, match=r"step-00000004\.pt cannot be used: its scores"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "content", [{"scores": {"round": "x", "sha256": ""}}, {"scores": {}}, {"scores": 5}, {}]
)
def test_a_checkpoint_of_another_content_is_passed_over(tmp_path, content):
    save(tmp_path, 1, 0)
    save(tmp_path, 2, 0)
    path = tmp_path / "step-00000002.pt"
    kept = {"state": {"step": 2}} if content else {}
    torch.save({"format": "robustdiff-checkpoint-1", **kept, **content}, path)
    path.with_suffix(".json").write_text(json.dumps({"sha256": sha256(path)}))
    with pytest.warns(UserWarning, match=r"is not a robustdiff checkpoint: .*using step-00000001"):
        assert load_checkpoint(tmp_path).state == {"step": 1}


def test_a_checkpoint_that_will_not_do_needs_no_scores(tmp_path):
    save(tmp_path, 1, 1)
    (tmp_path / save(tmp_path, 2, 2).name).unlink()
    assert load_checkpoint(tmp_path, lambda state: state["step"] < 2).state == {"step": 1}


def test_a_host_that_does_not_see_the_file_writes_the_same(tmp_path):
    leaders, own = tmp_path / "leader", tmp_path / "other" / "run" / "checkpoints"
    file = save(leaders, 1, 1)
    write_where_unseen(own, file, scores(1), {file.name}, ELSEWHERE)
    assert (own / file.name).read_bytes() == (leaders / file.name).read_bytes()
    before = (own / file.name).stat()
    write_where_unseen(own, file, scores(1), {file.name}, ELSEWHERE)
    assert (own / file.name).stat().st_ino == before.st_ino
    second = save(leaders, 2, 2)
    write_where_unseen(own, second, scores(2), {second.name}, ELSEWHERE)
    assert os.listdir(own) == [second.name]


def test_a_host_with_other_scores_or_a_full_disk_keeps_none(tmp_path, monkeypatch):
    file = save(tmp_path / "leader", 1, 1)
    with pytest.warns(UserWarning, match="has other scores than the first one"):
        write_where_unseen(tmp_path / "own", file, scores(2), {file.name}, ELSEWHERE)
    (tmp_path / "file").write_text("")
    with pytest.warns(UserWarning, match="no .*scores-00000001.pt on this host"):
        write_where_unseen(tmp_path / "file", file, scores(1), {file.name}, ELSEWHERE)
    assert os.listdir(tmp_path / "own") == []


@pytest.mark.parametrize("workers", [ALONE, Workers(0, 2, place=0), Workers(9, 16, place=1)])
def test_the_leader_and_later_processes_of_a_host_write_nothing(tmp_path, workers):
    write_where_unseen(tmp_path / "own", ScoreFile(1, "0"), scores(1), set(), workers)
    assert not (tmp_path / "own").exists()


def test_a_single_process_has_what_it_has_read(tmp_path):
    arrays = as_arrays(scores(1))
    assert scores_everywhere(tmp_path, ScoreFile(1, "0"), arrays, ALONE) is arrays


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no peak to read")
def test_writing_and_hashing_hold_no_second_copy(tmp_path):
    def memory(name):
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    large = {"evidence": torch.ones(16_000_000)}
    save_scores(tmp_path, {"evidence": torch.ones(10)}, 1, None)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    save_scores(tmp_path, large, 2, None)
    assert memory("VmHWM") - before < 16_000  # KiB, of 62,500
