"""Images moved within their folder: killed anywhere, the moves can be finished and taken back."""

import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from correcting import make_folder, snapshot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robustdiff.exports.moving import (
    REMOVED,
    apply_moves,
    plan_moves,
    read_journal,
    undo_moves,
    write_journal,
)
from robustdiff.exports.places import Place

NAMES = ("ant", 'b "e" e', "<ü>\n犬")


def shuffled(root, seed):
    """Return places of all images: some move to other classes, some are removed."""
    rng, found = np.random.default_rng(seed), []
    for path in sorted(str(path.relative_to(root)) for path in root.rglob("*.png")):
        name = NAMES[rng.integers(3)]
        own, file = path.split("/")
        new = path if name == own else f"{name}/deep/{own}-{file}"
        found.append(Place(path, None if rng.random() < 0.2 else new))
    return found


class Killed(BaseException):
    """What a process does not survive."""


def killed_at(step, monkeypatch):
    """Let the system's calls that change names work for some steps, then none of them."""
    left = [step]

    def counted(real):
        def call(*args, **rest):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real(*args, **rest)

        return call

    for name in ("link", "unlink", "mkdir", "rmdir", "rename"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
        if name in ("unlink", "mkdir", "rmdir", "rename"):
            monkeypatch.setattr(Path, name, counted(getattr(Path, name)))
    return left


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("moving") / "photos", NAMES, each=4)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 99), step=st.integers(0, 60), back=st.integers(0, 60))
def test_moves_killed_anywhere_are_finished_or_taken_back(photos, tmp_path, seed, step, back):
    before = snapshot(photos)
    journal = plan_moves(photos, shuffled(photos, seed))
    with pytest.MonkeyPatch.context() as patch:
        killed_at(step, patch)
        with suppress(Killed):
            apply_moves(journal)
    half = sorted(c for c in snapshot(photos).values() if c is not None)
    assert set(half) == {c for c in before.values() if c is not None}
    if seed % 2:
        apply_moves(journal)
        found = snapshot(photos)
        for old, new in journal.moves:
            assert found[new] == before[old]
            assert old not in found
        assert len([c for c in found.values() if c is not None]) == 12
    with pytest.MonkeyPatch.context() as patch:
        killed_at(back, patch)
        with suppress(Killed):
            undo_moves(journal)
    undo_moves(journal)
    assert snapshot(photos) == before


def test_removed_images_are_hidden_and_come_back(photos, tmp_path):
    before = snapshot(photos)
    journal = plan_moves(photos, [Place("ant/0.png", None)])
    assert apply_moves(journal) == 1
    assert (photos / REMOVED / "ant/0.png").is_file()
    assert apply_moves(journal) == 0
    assert undo_moves(journal) == 1
    assert undo_moves(journal) == 0
    assert snapshot(photos) == before


def test_a_journal_comes_back_whatever_the_names_are(photos, tmp_path):
    journal = plan_moves(photos, shuffled(photos, 1))
    odd = journal._replace(moves=(*journal.moves, ("ant/\udcff.png", "ant/new\udcff.png")))
    write_journal(tmp_path / "moves.json", odd)
    assert read_journal(tmp_path / "moves.json") == odd
    with pytest.raises(ValueError, match="already exists"):
        write_journal(tmp_path / "moves.json", odd)


def test_nothing_is_overwritten(photos, tmp_path):
    before = snapshot(photos)
    journal = plan_moves(photos, [Place("ant/0.png", "ant/new.png"), Place("ant/1.png", None)])
    (photos / "ant/new.png").write_bytes(b"another")
    for act in (apply_moves, undo_moves):
        with pytest.raises(ValueError, match=r"has both .* nothing was moved"):
            act(journal)
    with pytest.raises(ValueError, match="already has 1 of the new files"):
        plan_moves(photos, [Place("ant/0.png", "ant/new.png")])
    assert (photos / "ant/new.png").read_bytes() == b"another"
    (photos / "ant/new.png").unlink()
    assert snapshot(photos) == before


def test_a_file_that_is_gone_is_named_before_anything_moves(photos):
    before = snapshot(photos)
    journal = plan_moves(photos, [Place("ant/0.png", None), Place("ant/9.png", None)])
    for act in (apply_moves, undo_moves):
        with pytest.raises(ValueError, match=r"ant/9.png is gone"):
            act(journal)
    assert snapshot(photos) == before


def moves(*pairs):
    content = {"format": "robustdiff-moves-1", "root": "/", "moves": pairs, "made": []}
    return json.dumps(content)


NOTHING = ["", "[]", "{}", "null", '{"format": "robustdiff-moves-1"}']


@pytest.mark.parametrize(
    "content", [*NOTHING, moves(["a", "b", "c"]), moves(["../a", "b"]), moves(["a", "/b"])]
)
def test_foreign_journals_are_refused(tmp_path, content):
    path = tmp_path / "moves.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"moves\.json (is damaged|names a path outside)"):
        read_journal(path)
    with pytest.raises(ValueError, match="there is no journal"):
        read_journal(tmp_path / "other.json")
