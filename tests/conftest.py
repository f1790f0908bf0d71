import shutil
import signal

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    # The networks of the tests are too small to share out; threads would only wait for each other.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _interruptible():
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def audited(tmp_path_factory):
    """A folder of images with hostile class names, and its audit; for reading only."""
    from reviewing import make_audit

    place = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
        return make_audit(place)


@pytest.fixture
def audit(audited, tmp_path, monkeypatch):
    """The folder of an audit of one's own."""
    photos, found = audited
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos.parent / "cache"))
    return shutil.copytree(found, tmp_path / "audit")
