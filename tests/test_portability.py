"""What only POSIX has is not needed: nothing imports it, and runs are made without it."""

import ast
import os
import signal
from pathlib import Path

import pytest
from commands import TINY, call

from robustdiff.exports import moving

ROOT = Path(__file__).parent.parent
POSIX_ONLY = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
TREES = {
    path: ast.parse(path.read_text(encoding="utf-8"))
    for folder in ("cli", "corruptions", "curricula", "robustdiff")
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def test_no_module_imports_what_only_posix_has():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & POSIX_ONLY, path


def test_texts_are_read_as_utf_8_whatever_the_system_prefers():
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                named = {word.arg for word in node.keywords}
                assert node.func.attr != "read_text" or "encoding" in named, (path, node.lineno)


def test_a_run_is_trained_without_hangups_and_without_opening_folders(tmp_path, monkeypatch):
    monkeypatch.delattr(signal, "SIGHUP")
    monkeypatch.delattr(os, "O_DIRECTORY")
    assert call("train", *TINY, "--steps=2", f"--out={tmp_path / 'run'}") == 0
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_images_move_by_renaming_where_that_never_replaces(tmp_path, monkeypatch):
    monkeypatch.setattr(moving, "_RENAMING_NEVER_REPLACES", True)
    monkeypatch.delattr(os, "link")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "a" / "1.png").write_text("one")
    journal = moving.Journal(tmp_path, (("a/1.png", "b/1.png"),), ())
    assert moving.apply_moves(journal) == 1
    assert (tmp_path / "b" / "1.png").read_text() == "one"
    assert not (tmp_path / "a" / "1.png").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up"])
def test_a_journal_that_leaves_its_folder_is_refused(tmp_path, path):
    file = tmp_path / "journal.json"
    moving.write_journal(file, moving.Journal(tmp_path, (("a", path),), ()))
    with pytest.raises(ValueError, match="outside of the folder"):
        moving.read_journal(file)
