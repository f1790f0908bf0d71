import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest
from deciding import CLASSES, SAMPLES, make_run
from hypothesis import given, settings
from hypothesis import strategies as st

from robustdiff.errors import DamagedError, LockedError
from robustdiff.review import decisions as module
from robustdiff.review.checked import read_checked
from robustdiff.review.decisions import ACTIONS, Decision, Decisions, read_decisions


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


DECISION = st.builds(
    lambda sample, action, label: Decision(sample, action, label if action == "relabel" else None),
    st.integers(0, SAMPLES - 1),
    st.sampled_from(ACTIONS),
    st.integers(0, CLASSES - 1),
)
UNDO, REOPEN = "undo", "reopen"


@settings(max_examples=40, deadline=None)
@given(st.lists(DECISION | st.sampled_from([UNDO, REOPEN]), max_size=25))
def test_any_sequence_equals_a_plain_list(steps):
    with tempfile.TemporaryDirectory() as folder:
        run, model = make_run(Path(folder)), []
        store = Decisions(run)
        for step in steps:
            if step == REOPEN:
                store.close()
                store = Decisions(run)
            elif step == UNDO:
                assert store.undo() == (model.pop() if model else None)
            else:
                store.record(step)
                model.append(step)
            assert store.latest() == {one.sample: one for one in model}
        store.close()


def test_decisions_are_read_without_writing(run, monkeypatch):
    with Decisions(run) as store:
        store.record(Decision(3, "relabel", 1))
        store.record(Decision(4, "remove"))
        store.undo()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.iterdir()}
    seen, real = [], sqlite3.connect

    def connect(*words, **rest):
        database = real(*words, **rest)
        # Making a file beside it would fail in such a folder.
        seen.append({path.name for path in run.path.iterdir()})
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            database.execute("DELETE FROM log")
        database.execute("SELECT * FROM log").fetchall()
        seen.append({path.name for path in run.path.iterdir()})
        return database

    monkeypatch.setattr(module.sqlite3, "connect", connect)
    assert read_decisions(run) == {3: Decision(3, "relabel", 1)}
    assert read_checked(run, run.labels().given).classes[3] == 1
    assert seen == [{path.name for path in before}] * 4
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in run.path.iterdir()}
    assert after == before


def test_decisions_are_read_while_others_are_made(run, monkeypatch):
    (run.decisions_file).touch()  # a review was killed before its tables were written
    assert read_decisions(run) == {}
    with Decisions(run) as store:
        store.record(Decision(3, "keep"))
        assert read_decisions(run) == {3: Decision(3, "keep")}
        with store._writing():
            assert read_decisions(run) == {3: Decision(3, "keep")}
    # One is made between looking at the file and reading it.
    real = module._connect

    def late(uri):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_connect", real)
            with Decisions(run) as store:
                store.record(Decision(4, "unsure"))
        monkeypatch.setattr(module, "_connect", real)
        return real(uri)

    monkeypatch.setattr(module, "_connect", late)
    assert read_decisions(run) == {3: Decision(3, "keep"), 4: Decision(4, "unsure")}


def test_the_log_grows_and_names_what_was_taken_back(run):
    with Decisions(run) as store:
        first = store.record(Decision(3, "relabel", 1))
        second = store.record(Decision(3, "remove"))
        assert store.undo() == Decision(3, "remove")
        assert store.latest() == {3: Decision(3, "relabel", 1)}
        log = store.history()
    assert [(one.number, one.undoes) for one in log] == [
        (first, None),
        (second, None),
        (second + 1, second),
    ]
    assert log[0].time <= log[1].time <= log[2].time
    with Decisions(run) as store:
        assert store.history() == log
        assert store.history(after=second) == log[2:]


@pytest.mark.parametrize(
    ("decision", "said"),
    [
        (Decision(12, "keep"), "samples are 0 to 11, got 12"),
        (Decision(-1, "keep"), "samples are 0 to 11, got -1"),
        (Decision(0, "move"), "actions are keep, relabel, remove, unsure, got 'move'"),
        (Decision(0, "relabel"), "classes are 0 to 3, got None"),
        (Decision(0, "relabel", 4), "classes are 0 to 3, got 4"),
        (Decision(0, "keep", 1), "only relabel has a label, got 1 for keep"),
    ],
)
def test_a_decision_that_cannot_be_is_refused(run, decision, said):
    with Decisions(run) as store:
        with pytest.raises(ValueError, match=said):
            store.record(decision)
        assert store.history() == []


def test_the_file_of_other_labels_is_refused(run, tmp_path):
    Decisions(run).close()
    for other in (
        make_run(tmp_path / "longer", samples=13),
        make_run(tmp_path / "wider", classes=5),
        make_run(tmp_path / "another", seed=1),
    ):
        other.decisions_file.write_bytes(run.decisions_file.read_bytes())
        with pytest.raises(DamagedError, match="is about other labels: 12 samples of 4 classes"):
            Decisions(other)


def test_a_file_that_is_damaged_or_something_else_is_refused_and_left(run):
    run.decisions_file.write_bytes(b"not a database " * 500)
    with pytest.raises(DamagedError, match=r"decisions\.sqlite is damaged"):
        Decisions(run)
    assert run.decisions_file.read_bytes().startswith(b"not a database")
    run.decisions_file.unlink()
    with sqlite3.connect(run.decisions_file) as database:
        database.execute("CREATE TABLE log (number)")
    database.close()
    with pytest.raises(DamagedError, match="does not hold decisions of version 1"):
        Decisions(run)
    run.decisions_file.unlink()
    Decisions(run).close()
    with sqlite3.connect(run.decisions_file) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(DamagedError, match="does not hold decisions of version 1"):
        Decisions(run)


def test_a_file_without_its_table_is_damaged(run):
    with Decisions(run) as store:
        store._database.execute("DROP TABLE log")
        with pytest.raises(DamagedError, match="no such table"):
            store.latest()


def test_a_file_that_cannot_be_written_is_one_line(run):
    run.decisions_file.mkdir()
    with pytest.raises(OSError, match=r"cannot use .*decisions\.sqlite"):
        Decisions(run)


def test_a_file_that_is_held_for_too_long_is_one_line(run, monkeypatch):
    monkeypatch.setattr(module, "_PATIENCE", 0.1)
    with Decisions(run) as store:
        other = sqlite3.connect(run.decisions_file)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LockedError, match="another process holds"):
            store.record(Decision(0, "keep"))
        other.close()
        store.record(Decision(0, "keep"))


def test_threads_and_objects_lose_nothing(run):
    stores = [Decisions(run), Decisions(run)]

    def work(store, start):
        for i in range(20):
            store.record(Decision((start + i) % SAMPLES, "keep"))

    threads = [threading.Thread(target=work, args=(stores[i % 2], i)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores[0].history()) == 120
    for _ in range(120):
        assert stores[1].undo() is not None
    assert stores[0].latest() == {}
    for store in stores:
        store.close()
