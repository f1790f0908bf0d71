"""decisions.sqlite: what a person decided about the labels of a run, each on disk at once."""

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple, Self, get_args

from corruptions import NoisyLabels
from robustdiff.errors import DamagedError, LockedError
from robustdiff.runs.folder import Run

Action = Literal["keep", "relabel", "remove", "unsure"]
ACTIONS: tuple[str, ...] = get_args(Action)
# Says in the header of the file that it is ours: "rdrv".
_APPLICATION = int.from_bytes(b"rdrv")
_VERSION = 1
_PATIENCE = 30.0  # seconds that a writer waits for another one
_SCHEMA = """
CREATE TABLE review (samples INTEGER NOT NULL, classes INTEGER NOT NULL, labels TEXT NOT NULL);
CREATE TABLE log (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sample INTEGER NOT NULL,
    action TEXT NOT NULL,
    label INTEGER,
    undoes INTEGER UNIQUE REFERENCES log (number),
    time REAL NOT NULL
);
"""
_COLUMNS = "sample, action, label, number, undoes, time"


class Decision(NamedTuple):
    """What a person decided about one label.

    Attributes:
        sample: Number of the sample in the run.
        action: The label is kept, another one is right, the image is to be removed, or the person
            is unsure.
        label: Number of the class that is right; None unless the action is "relabel".
    """

    sample: int
    action: Action
    label: int | None = None


class Entry(NamedTuple):
    """One line of the log, which only grows.

    Attributes:
        number: Numbers rise in the order in which entries were written.
        decision: What was decided, or taken back.
        undoes: Number of the entry that this one takes back; None for a decision.
        time: When, in seconds since 1970.
    """

    number: int
    decision: Decision
    undoes: int | None
    time: float


def replay(entries: Iterable[Entry], standing: dict[int, list[Entry]]) -> set[int]:
    """Apply entries of the log to the decisions that stand.

    Args:
        entries: In the order of their numbers.
        standing: Sample -> its decisions that were not taken back, the newest last; changed.

    Returns:
        The samples that the entries are about.
    """
    touched = set()
    for entry in entries:
        sample = entry.decision.sample
        touched.add(sample)
        stack = standing.setdefault(sample, [])
        if entry.undoes is None:
            stack.append(entry)
        else:
            stack[:] = [one for one in stack if one.number != entry.undoes]
        if not stack:
            del standing[sample]
    return touched


def _in_force(entries: Iterable[Entry]) -> dict[int, Decision]:
    standing: dict[int, list[Entry]] = {}
    replay(entries, standing)
    return {sample: entries[-1].decision for sample, entries in standing.items()}


def read_decisions(run: Run) -> dict[int, Decision]:
    """Return sample -> the decision in force.

    Nothing is decided, so the run may lie where nothing can be written; decisions may be made
    meanwhile. A log that a killed process left is taken into the file where that can be.

    Raises:
        DamagedError: If the file is damaged, or holds decisions about other labels.
        LockedError: If another process holds the file for too long.
        OSError: If it cannot be read.
    """
    path, wanted = run.decisions_file, _about(run.labels())
    while True:
        before = _state(path)
        # SQLite makes files beside this one even to read it, unless it is told that nobody writes;
        # with such files beside it somebody does, or was killed, and only SQLite's locks help.
        how = "mode=rw" if before.beside else "immutable=1"
        with _explained(path), closing(_connect(f"{path.resolve().as_uri()}?{how}")) as database:
            found = _entries(database) if _is_ours(database, path, wanted) else []
        if before.beside or before == _state(path):  # else somebody has begun to write meanwhile
            return _in_force(found)


class _State(NamedTuple):
    """What tells that a file is written: SQLite's files beside it, its size, its time."""

    beside: bool
    size: int
    time: int


def _state(path: Path) -> _State:
    beside = any(path.with_name(path.name + end).exists() for end in ("-wal", "-journal"))
    found = path.stat()
    return _State(beside, found.st_size, found.st_mtime_ns)


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, uri=True, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )


def _about(labels: NoisyLabels) -> tuple[int, int, str]:
    """Return the samples, classes and digest of labels, as the file says what it is about."""
    return len(labels.given), len(labels.nominal), labels.sha256


def _is_ours(database: sqlite3.Connection, path: Path, wanted: tuple[int, int, str]) -> bool:
    """Return whether the tables are there; False for a new file.

    Raises:
        DamagedError: If the file is something else, or about other labels.
    """
    kind = database.execute("PRAGMA application_id").fetchone()[0]
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return False
    if kind != _APPLICATION or version != _VERSION:
        raise DamagedError(
            f"{path} does not hold decisions of version {_VERSION} of robustdiff's "
            "review; move it away"
        )
    found = database.execute("SELECT * FROM review").fetchone()
    if found != wanted:
        raise DamagedError(
            f"{path} is about other labels: {found and found[0]} samples of "
            f"{found and found[1]} classes, and the run has {wanted[0]} of "
            f"{wanted[1]}, or labels that differ; move it away"
        )
    return True


def _entries(database: sqlite3.Connection, after: int = 0) -> list[Entry]:
    rows = database.execute(
        f"SELECT {_COLUMNS} FROM log WHERE number > ? ORDER BY number", (after,)
    ).fetchall()
    return [Entry(row[3], Decision(*row[:3]), row[4], row[5]) for row in rows]


class Decisions:
    """The decisions about a run's labels.

    Any number of threads and processes may use the same file at once. A decision that was recorded
    is on disk, whatever happens to the process afterwards.

    Args:
        run: The run; the file is made if it is missing.

    Attributes:
        path: The file.
        samples: Number of samples of the run.
        classes: Number of its classes.

    Raises:
        DamagedError: If the file is damaged, or holds decisions about other labels.
    """

    def __init__(self, run: Run) -> None:
        wanted = _about(run.labels())
        self.path = run.decisions_file
        self.samples, self.classes, _ = wanted
        self._mutex = threading.Lock()
        with _explained(self.path):
            self._database = _connect(self.path.resolve().as_uri())
            try:
                self._open(wanted)
            except BaseException:
                self._database.close()
                raise

    def _open(self, wanted: tuple[int, int, str]) -> None:
        """Make the tables of a new file, or check those of an old one."""
        with self._writing() as database:
            if not _is_ours(database, self.path, wanted):
                for statement in _SCHEMA.strip().split(";\n"):
                    database.execute(statement)
                database.execute("INSERT INTO review VALUES (?, ?, ?)", wanted)
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
        _use_wal(self._database)
        self._database.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Hold the database alone; what is done inside is on disk afterwards, or was not done."""
        with self._mutex, _explained(self.path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def record(self, decision: Decision) -> int:
        """Write down a decision; it is on disk when this returns.

        Returns:
            The number of its entry in the log.

        Raises:
            ValueError: If the run has no such sample or class, or the label and action do not fit.
            LockedError: If another process holds the file for too long.
            OSError: If it cannot be written.
        """
        self._check(decision)
        with self._writing() as database:
            return self._append(database, decision, None)

    def undo(self) -> Decision | None:
        """Take back the newest decision that stands; an earlier one on its sample holds again.

        Returns:
            The decision that was taken back, on disk when this returns; None if none stands.
        """
        with self._writing() as database:
            row = database.execute(
                "SELECT sample, action, label, number FROM log AS made WHERE undoes IS NULL AND "
                "NOT EXISTS (SELECT 1 FROM log WHERE undoes = made.number) "
                "ORDER BY number DESC LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            decision = Decision(*row[:3])
            self._append(database, decision, row[3])
            return decision

    def _append(self, database: sqlite3.Connection, decision: Decision, undoes: int | None) -> int:
        number = database.execute(
            "INSERT INTO log (sample, action, label, undoes, time) VALUES (?, ?, ?, ?, ?)",
            (*decision, undoes, time.time()),
        ).lastrowid
        assert number is not None
        return number

    def history(self, after: int = 0) -> list[Entry]:
        """Return the entries of the log with higher numbers than one, in their order."""
        with self._mutex, _explained(self.path):
            return _entries(self._database, after)

    def latest(self) -> dict[int, Decision]:
        """Return sample -> the decision in force."""
        return _in_force(self.history())

    def close(self) -> None:
        """Close the file."""
        with self._mutex:
            self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self, decision: Decision) -> None:
        if not 0 <= decision.sample < self.samples:
            raise ValueError(f"samples are 0 to {self.samples - 1}, got {decision.sample}")
        if decision.action not in ACTIONS:
            raise ValueError(f"actions are {', '.join(ACTIONS)}, got {decision.action!r}")
        if decision.action != "relabel" and decision.label is not None:
            raise ValueError(
                f"only relabel has a label, got {decision.label} for {decision.action}"
            )
        if decision.action == "relabel" and (
            decision.label is None or not 0 <= decision.label < self.classes
        ):
            raise ValueError(f"classes are 0 to {self.classes - 1}, got {decision.label}")


def _use_wal(database: sqlite3.Connection) -> None:
    """Write to a log beside the file, so that readers and a writer do not wait for each other.

    SQLite does not wait for other connections here, so this function does.
    """
    give_up = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
        time.sleep(0.01)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise LockedError(f"another process holds {path}") from error
        if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # a table or a column is missing
            raise DamagedError(f"{path} is damaged ({error}); move it away") from error
        raise OSError(f"cannot use {path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise DamagedError(
            f"{path} is damaged or no SQLite file ({error}); move it away"
        ) from error
