"""Where caches lie: what can be made again, kept for the next start."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return the folder of all caches; None if this user has no home folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(home) if home else Path.home() / ".cache") / "robustdiff"
    except RuntimeError:
        return None


def keep_compiled() -> None:
    """Let torch.compile keep its work there, unless TORCHINDUCTOR_CACHE_DIR names another folder.

    torch's own default is a temporary folder, which a restart of the machine may empty.
    """
    base = cache_folder()
    if base is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(base / "compiled"))
