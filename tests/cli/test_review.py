"""The command that starts a review: what it prints, what it refuses, and how it ends."""

import signal
import socket
import urllib.error

import pytest
from commands import call
from reviewing import Server

from robustdiff.review.decisions import Decision, Decisions
from robustdiff.runs.folder import Run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_review_serves_this_machine_and_ends_cleanly(audit, number):
    server = Server(audit)
    assert server.root.startswith("http://127.0.0.1:")
    assert len(server.token) > 40
    item = server.ask("/api/page")["items"][0]
    server.ask("/api/decide", {"sample": item["number"], **item["suggestion"]})
    server.token, server.cookie = "", "x=y"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        server.ask("/api/page")
    code, said = server.end(number)
    assert code == 0
    assert f"1 are decided, in {audit}/decisions.sqlite" in said
    with Decisions(Run(audit)) as decisions:
        assert list(decisions.latest()) == [item["number"]]
    assert not (audit / "decisions.sqlite-wal").exists()


def test_two_servers_of_one_run_lose_nothing(audit):
    servers = [Server(audit), Server(audit)]
    for i in range(20):
        servers[i % 2].ask("/api/decide", {"sample": i, "action": "unsure"})
    assert all(server.ask("/api/page")["progress"]["decided"] == 20 for server in servers)
    assert [server.end()[0] for server in servers] == [0, 0]
    with Decisions(Run(audit)) as decisions:
        assert decisions.latest() == {i: Decision(i, "unsure") for i in range(20)}


def refused(capsys, *words):
    """What a command says that is a mistake."""
    assert call("review", *words) == 2
    said = capsys.readouterr().err.splitlines()
    return [line for line in said if line.startswith("robustdiff: ")][-1]


def test_what_cannot_be_reviewed_is_one_line(audited, audit, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photos = audited[0]
    assert "that were audited: there is no audits/photos; make it" in refused(capsys, photos)
    assert "none is not a run" in refused(capsys, "none")
    assert "there is no run under" in refused(capsys)
    (audit / "label_issues.csv").unlink()
    assert "has no label_issues.csv; make it with: robustdiff audit" in refused(capsys, audit)
    assert "--port" in refused(capsys, audit, "--port=70000")


def test_the_audit_of_a_folder_is_found_by_the_name_of_the_folder(
    audited, audit, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audits").mkdir()
    audit.rename(tmp_path / "audits" / "photos")
    (tmp_path / "audits" / "photos" / "decisions.sqlite").write_text("something else")
    assert call("review", audited[0]) == 1
    assert "audits/photos/decisions.sqlite is damaged" in capsys.readouterr().err


def test_a_port_in_use_is_one_line(audit, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, audit, f"--port={port}")
    assert f"cannot listen on port {port} (Address already in use); choose another --port" in said
    assert not (audit / "decisions.sqlite").exists()
