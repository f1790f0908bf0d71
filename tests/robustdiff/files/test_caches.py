"""Where caches lie."""

import os
from pathlib import Path

from robustdiff.files.caches import cache_folder, keep_compiled


def test_what_is_compiled_is_kept_where_the_user_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    keep_compiled()
    assert Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).parent == cache_folder()
    assert cache_folder() == tmp_path / "robustdiff"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "mine")
    keep_compiled()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "mine"


def test_there_is_no_cache_without_a_home(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError)))
    keep_compiled()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
