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


def linked(root, name, target):
    """Put a link in place of an image."""
    (root / name).unlink()
    (root / name).symlink_to(target)


NEW_FOLDER = r"nothing was moved; a new folder is made by --to NEWFOLDER --link copy"


@pytest.mark.parametrize(
    ("target", "new", "says"),
    [
        (".kept.png", "bee/0-from-ant.png", "once it is moved"),
        ("../ant/.kept.png", "bee/deep/0.png", "once it is moved"),
        ("../../kept.png", None, "once it is moved"),
        ("../bee/1.png", "ant/0.png", "once that is moved"),
        ("../bee/3.png", "ant/0.png", "once that is moved"),
    ],
)
def test_an_image_that_is_a_link_and_would_lead_elsewhere_is_named(tmp_path, target, new, says):
    root = make_folder(tmp_path / "photos", ("ant", "bee"), each=4)
    for kept in (root / "ant/.kept.png", tmp_path / "kept.png"):
        kept.write_bytes((root / "ant/0.png").read_bytes())
    linked(root, "bee/3.png", "../bee/1.png")
    linked(root, "ant/0.png", target)
    before = snapshot(root)
    with pytest.raises(ValueError, match=rf"ant/0.png is a link to .*{says}; {NEW_FOLDER}"):
        plan_moves(root, [Place("ant/0.png", new), Place("bee/1.png", "ant/1-from-bee.png")])
    assert snapshot(root) == before


def test_links_that_lead_to_the_same_file_from_their_new_places_are_moved(tmp_path):
    root = make_folder(tmp_path / "photos", ("ant", "bee"), each=4)
    content = (root / "ant/0.png").read_bytes()
    (tmp_path / "kept.png").write_bytes(content)
    linked(root, "ant/0.png", "../../kept.png")
    linked(root, "ant/1.png", tmp_path / "kept.png")
    moves = [Place("ant/0.png", "bee/0-from-ant.png"), Place("ant/1.png", None)]
    assert apply_moves(plan_moves(root, moves)) == 2
    for name in ("bee/0-from-ant.png", f"{REMOVED}/ant/1.png"):
        assert (root / name).is_symlink()
        assert (root / name).read_bytes() == content


@pytest.mark.parametrize("new", ["ant/0-from-far.png", None])
def test_a_move_to_another_file_system_is_named_before_anything_moves(tmp_path, monkeypatch, new):
    root = make_folder(tmp_path / "photos", ("ant", "far"), each=4)
    far, real = (root / "far").resolve(), Path.stat

    def stat(path, **rest):
        found = real(path, **rest)
        if not path.is_relative_to(far):
            return found
        return os.stat_result((*found[:2], found.st_dev + 1, *found[3:10]))

    monkeypatch.setattr(Path, "stat", stat)
    before = snapshot(root)
    with pytest.raises(ValueError, match=rf"far/0.png cannot be moved to .*system; {NEW_FOLDER}"):
        plan_moves(root, [Place("ant/0.png", "ant/x.png"), Place("far/0.png", new)])
    assert snapshot(root) == before
    assert plan_moves(root, [Place("far/0.png", "far/x.png")]).moves == (
        ("far/0.png", "far/x.png"),
    )
