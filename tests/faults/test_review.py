"""A review whose processes are killed, or work at once, loses no decision."""

import contextlib
import http.client
import os
import random
import signal
import threading

import pytest
from deciding import SAMPLES, make_run, open_and_record, write_until_killed
from reviewing import Server

from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path / "run")


def test_processes_that_make_the_file_at_once_lose_nothing(run, processes):
    start = processes.Barrier(4)
    several = [processes.Process(target=open_and_record, args=(run.path, start)) for _ in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0] * 4
    with Decisions(run) as store:
        assert len(store.history()) == 4 * SAMPLES


def test_a_killed_writer_loses_nothing_that_was_acknowledged(run, processes):
    rng, known = random.Random(0), 0
    for _ in range(20):
        mine, theirs = processes.Pipe(duplex=False)
        process = processes.Process(target=write_until_killed, args=(run.path, theirs))
        process.start()
        theirs.close()
        said = [mine.recv()]
        patience = rng.random() * 0.05
        stop = threading.Timer(patience, os.kill, (process.pid, signal.SIGKILL))
        stop.start()
        try:
            while True:
                said.append(mine.recv())
        except EOFError:
            process.join()
        assert process.exitcode == -signal.SIGKILL
        with Decisions(run) as store:
            log = store.history()
        new = log[known:]
        # At most one more was written than was said: the one at work when the process died.
        done = [one for one in said if one[1] is not None]
        assert len(done) <= len(new) <= len(done) + 1
        for one, entry in zip(done, new, strict=False):
            if one[0] == "record":
                assert (one[1], one[2]) == (entry.number, entry.decision)
                assert entry.undoes is None
            else:
                assert one[1] == entry.decision
                assert entry.undoes is not None
        known = len(log)
    assert known > 100


@pytest.mark.slow
def test_a_server_that_is_killed_twenty_times_loses_nothing_that_it_answered(audit):
    rng, expected = random.Random(0), {}
    for _ in range(20):
        server = Server(audit)
        stop = threading.Timer(rng.random() * 0.5, os.kill, (server.process.pid, signal.SIGKILL))
        stop.start()
        unsure = None
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                number, label = rng.randrange(150), rng.randrange(5)
                unsure = Decision(number, "relabel", label)
                server.ask("/api/decide", unsure._asdict())
                expected[number], unsure = unsure, None
        assert server.end(0)[0] == -signal.SIGKILL
        with Decisions(Run(audit)) as decisions:
            found = decisions.latest()
        # The one that was at work may be there or not; it was not answered.
        if unsure is not None and found.get(unsure.sample) == unsure:
            expected[unsure.sample] = unsure
        assert found == expected
    assert len(expected) > 100
