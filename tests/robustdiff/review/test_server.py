"""The server of a review: who may ask, what it answers, and what it writes."""

import io
import json
import shutil

import numpy as np
import pytest
from commands import call
from PIL import Image
from reviewing import NAMES

from robustdiff.config.images import DataConfig
from robustdiff.data.registry import load_images
from robustdiff.data.store import files_under
from robustdiff.jobs.review import open_review
from robustdiff.progress import Report
from robustdiff.review.decisions import Decision, Decisions
from robustdiff.review.server import make_app
from robustdiff.runs.folder import Run

PORT, TOKEN = 8123, "a-token"
HOST = f"127.0.0.1:{PORT}"


@pytest.fixture
def review(audit):
    run = Run(audit)
    opened = open_review(run, run.config(), Report())
    yield opened
    opened.queue.decisions.close()


@pytest.fixture
def app(review):
    return make_app(review, TOKEN, PORT)


@pytest.fixture
def client(app):
    """A browser that has opened the address with the token."""
    client = app.test_client()
    assert client.get(f"/?token={TOKEN}", headers={"Host": HOST}).status_code == 200
    return client


def get(client, path, **headers):
    return client.get(path, headers={"Host": HOST} | headers, buffered=True)


def post(client, path, content, **headers):
    known = {"Host": HOST, "Origin": f"http://{HOST}", "Content-Type": "application/json"}
    body = content if isinstance(content, (str, bytes)) else json.dumps(content)
    return client.post(path, data=body, headers=known | headers)


PATHS = ["/", "/api/start", "/api/page", "/image/0", "/original/0", "/static/review.js", "/none"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_served_without_the_token(app, path):
    stranger = app.test_client()
    for asked in (path, f"{path}?token=wrong", f"{path}?token=", f"{path}?token=ä"):
        answer = get(stranger, asked)
        assert answer.status_code == 403
        assert "the token is missing or wrong" in answer.text
        assert "Set-Cookie" not in answer.headers
    stranger.set_cookie(f"robustdiff-{PORT}", "wrong", domain="127.0.0.1")
    assert get(stranger, path).status_code == 403


def test_the_token_counts_in_the_address_of_the_page_alone(app):
    stranger = app.test_client()
    assert get(stranger, f"/api/start?token={TOKEN}").status_code == 403
    answer = get(stranger, f"/?token={TOKEN}")
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"robustdiff-{PORT}={TOKEN};")
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in answer.text
    assert get(stranger, "/api/start").status_code == 200
    assert get(stranger, "/?token=wrong").status_code == 403


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1"]
)
def test_other_hosts_are_not_served_even_with_the_token(client, host):
    assert client.get("/", headers={"Host": host}).status_code == 403
    answer = client.get(f"/?token={TOKEN}", headers={"Host": host})
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


KEEP = {"sample": 0, "action": "keep"}


@pytest.mark.parametrize("path", ["/api/decide", "/api/undo"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": f"https://{HOST}"}, 403),
        ({"Origin": f"http://localhost:{PORT}"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_only_the_page_itself_changes_anything(client, review, path, headers, status):
    review.queue.decisions.record(Decision(1, "keep"))
    before = review.queue.decisions.history()
    assert post(client, path, KEEP, **headers).status_code == status
    without = {"Host": HOST, "Content-Type": "application/json"}
    assert client.post(path, data=json.dumps(KEEP), headers=without).status_code == 403
    assert get(client, path).status_code == 405
    assert review.queue.decisions.history() == before


@pytest.mark.parametrize("path", [*PATHS, "/api/threshold", "/image/999", "/api/page?from=x"])
def test_every_answer_forbids_foreign_content_and_copies(client, path):
    headers = get(client, path).headers
    policy = headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


def test_the_page_holds_no_script_or_style_of_its_own(client):
    page = get(client, "/").text
    assert (
        page.count("<script") == page.count('<script src="/static/review.js" defer></script>') == 1
    )
    assert "<style" not in page
    assert " style=" not in page
    assert " on" not in page.replace(" one", "").replace(" only", "").replace(" on ", "")
    for name in ("review.js", "review.css", "icon.svg"):
        answer = get(client, f"/static/{name}")
        assert answer.status_code == 200
        assert "http" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "innerHTML" not in answer.text
    assert get(client, "/static/../server.py").status_code == 404
    assert get(client, "/static/%2e%2e/server.py").status_code == 404


def test_the_name_of_a_run_is_escaped(review):
    from dataclasses import replace

    app = make_app(replace(review, name="<script>alert(1)</script>\"'"), TOKEN, PORT)
    page = get(app.test_client(), f"/?token={TOKEN}").text
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_hostile_names_arrive_as_json_text(client):
    answer = get(client, "/api/start")
    assert answer.mimetype == "application/json"
    assert set(answer.json["classes"]) == set(NAMES)
    assert answer.json["issues"] == ["label"]
    items = get(client, "/api/page").json["items"]
    assert {item["file"].rpartition("/")[0] for item in items} == set(NAMES)


def test_images_are_served_by_number_and_nothing_else(client, review, audited):
    pixels = review.pictures._pixels
    for number in (0, 149):
        answer = get(client, f"/image/{number}")
        assert answer.mimetype == "image/png"
        shown = Image.open(io.BytesIO(answer.data))
        assert shown.size == (8, 8)
        assert list(shown.getpixel((3, 2))) == pixels[number, :, 2, 3].tolist()
        original = get(client, f"/original/{number}")
        assert original.mimetype == "image/png"
        assert original.data == (audited[0] / review.pictures.name(number)).read_bytes()
    for path in ("/image/150", "/original/150", "/image/-1", "/image/x", "/original/..%2f..%2fetc"):
        assert get(client, path).status_code == 404


def test_a_file_that_is_no_image_any_more_is_not_served(
    client, audit, monkeypatch, review, tmp_path
):
    copy = shutil.copytree(review.pictures._store.root, tmp_path / "copy")
    monkeypatch.setattr(review.pictures, "_store", files_under(copy))
    (copy / review.pictures.name(3)).write_text("<html>secret</html>")
    answer = get(client, "/original/3")
    assert answer.mimetype == "image/png"
    assert b"secret" not in answer.data


def test_a_decision_is_on_disk_when_it_is_answered(client, audit):
    answer = post(client, "/api/decide", {"sample": 5, "action": "relabel", "label": 2})
    assert answer.status_code == 200
    assert answer.json["item"]["decision"] == {"action": "relabel", "label": 2}
    assert answer.json["progress"]["decided"] == 1
    with Decisions(Run(audit)) as other:
        assert other.latest() == {5: Decision(5, "relabel", 2)}
        post(client, "/api/decide", {"sample": 5, "action": "unsure"})
        assert other.latest() == {5: Decision(5, "unsure")}
        answer = post(client, "/api/undo", {})
        assert answer.json["item"]["decision"] == {"action": "relabel", "label": 2}
        assert post(client, "/api/undo", {}).json["item"]["decision"] is None
        assert other.latest() == {}
    answer = post(client, "/api/undo", {})
    assert (answer.status_code, answer.json) == (409, {"error": "there is nothing to take back"})


def test_a_second_tab_sees_what_the_first_decided(app, client):
    second = app.test_client()
    get(second, f"/?token={TOKEN}")
    number = get(second, "/api/page").json["items"][0]["number"]
    post(client, "/api/decide", {"sample": number, "action": "keep"})
    assert get(second, "/api/page").json["items"][0]["decision"]["action"] == "keep"
    post(second, "/api/decide", {"sample": number, "action": "remove"})
    assert get(client, "/api/page").json["items"][0]["decision"]["action"] == "remove"
    assert get(client, "/api/page?undecided=1").json["items"][0]["number"] != number


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        ("{", 400, "could not understand"),
        ([], 400, "a decision is"),
        ({"action": "keep"}, 400, "a decision is"),
        (KEEP | {"more": 1}, 400, "a decision is"),
        (KEEP | {"sample": "0"}, 400, "sample and label are integers"),
        (KEEP | {"sample": True}, 400, "sample and label are integers"),
        (KEEP | {"action": "move"}, 400, "one of keep, relabel"),
        (KEEP | {"action": ["keep"]}, 400, "one of keep, relabel"),
        (KEEP | {"label": 1}, 400, "only relabel has a label"),
        (KEEP | {"action": "relabel"}, 400, "classes are 0 to 4"),
        (KEEP | {"action": "relabel", "label": 5}, 400, "classes are 0 to 4"),
        (KEEP | {"sample": 150}, 404, "there is no label 150"),
        (KEEP | {"sample": -1}, 404, "there is no label -1"),
        (KEEP | {"sample": 10**30}, 404, "there is no label"),
        (b" " * 70_000, 413, "exceeds the capacity"),
    ],
)
def test_a_bad_decision_is_one_line_and_nothing_is_written(client, review, content, status, said):
    answer = post(client, "/api/decide", content)
    assert answer.status_code == status
    assert said in answer.json["error"]
    assert review.queue.decisions.history() == []


def test_the_decision_about_a_vanished_image_is_refused_and_names_it(
    client, review, monkeypatch, tmp_path
):
    copy = shutil.copytree(review.pictures._store.root, tmp_path / "copy")
    monkeypatch.setattr(review.pictures, "_store", files_under(copy))
    post(client, "/api/decide", {"sample": 3, "action": "unsure"})
    name = review.pictures.name(3)
    (copy / name).unlink()
    answer = post(client, "/api/decide", {"sample": 3, "action": "keep"})
    assert answer.status_code == 410
    assert name.rpartition("/")[2] in answer.json["error"]
    assert "nothing was decided" in answer.json["error"]
    assert answer.json["error"].endswith("is gone or has changed")
    assert review.queue.decisions.latest() == {3: Decision(3, "unsure")}
    assert get(client, "/image/3").status_code == 200
    assert get(client, "/original/3").status_code == 200


@pytest.mark.parametrize("content", [b"", b"another image", None])
def test_the_decision_about_an_image_that_was_overwritten_is_refused(
    client, review, monkeypatch, tmp_path, content
):
    copy = shutil.copytree(review.pictures._store.root, tmp_path / "copy")
    monkeypatch.setattr(review.pictures, "_store", files_under(copy))
    name, before = review.pictures.name(3), (copy / review.pictures.name(3)).read_bytes()
    # At last one of the same size.
    (copy / name).write_bytes(before[:-1] + b"\0" if content is None else content)
    answer = post(client, "/api/decide", {"sample": 3, "action": "keep"})
    assert answer.status_code == 410
    assert answer.json["error"].endswith("is gone or has changed")
    assert review.queue.decisions.history() == []
    (copy / name).write_bytes(before)
    assert post(client, "/api/decide", {"sample": 3, "action": "keep"}).status_code == 200


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_port_that_browsers_leave_out_may_be_left_out(review, name):
    client = make_app(review, TOKEN, 80).test_client()
    for host in (name, f"{name}:80"):
        known = {"Host": host, "Origin": f"http://{name}"}
        assert get(client, f"/?token={TOKEN}", **known).status_code == 200
        client.set_cookie("robustdiff-80", TOKEN, domain=name)
        answer = post(client, "/api/decide", KEEP, **known)
        assert answer.status_code == 200
    assert get(client, "/", Host="evil.example").status_code == 403
    assert post(client, "/api/undo", {}, **known | {"Origin": "http://evil"}).status_code == 403


def test_images_that_vanished_before_the_start_are_listed_and_refused(audited, audit, tmp_path):
    from robustdiff.config.layers import resolve, to_plain

    photos = shutil.copytree(audited[0], tmp_path / "photos")
    run = Run(audit)
    name = run.labels().paths[7]
    (photos / name).unlink()
    config = resolve(to_plain(run.config()), {"data": {"data_dir": str(photos)}})
    review = open_review(run, config, Report())
    client = make_app(review, TOKEN, PORT).test_client()
    get(client, f"/?token={TOKEN}")
    assert get(client, "/api/page?issue=every").json["total"] == 150
    assert get(client, "/image/7").status_code == 404
    assert get(client, "/original/7").status_code == 404
    assert get(client, "/image/8").data != b""
    answer = post(client, "/api/decide", {"sample": 7, "action": "keep"})
    assert answer.status_code == 410
    assert post(client, "/api/decide", {"sample": 8, "action": "keep"}).status_code == 200
    review.queue.decisions.close()


def test_pages_hold_what_was_asked_for(client):
    page = get(client, "/api/page?size=7&issue=every").json
    assert (len(page["items"]), page["total"], page["before"]) == (7, 150, 0)
    page = get(client, "/api/page?size=100000&issue=every&from=10").json
    assert (len(page["items"]), page["before"]) == (140, 10)
    page = get(client, "/api/page?size=3&issue=every&before=10").json
    assert [item["place"] for item in page["items"]] == [7, 8, 9]
    assert get(client, "/api/page?from=9999").json["items"] == []
    assert get(client, "/api/page?given=0&predicted=0").json["total"] == 0
    pair = get(client, "/api/pairs").json[0]
    shown = get(client, f"/api/page?given={pair['given']}&predicted={pair['predicted']}").json
    assert shown["total"] == pair["labels"]


@pytest.mark.parametrize(
    "asked",
    [
        "page?from=-1", "page?size=x", "page?before=1.5", "page?given=²", "page?from=" + "9" * 40,
        "page?below=2", "page?below=nan", "threshold?below=x", "threshold?below=-0.1",
    ],
)  # fmt: skip
def test_a_bad_question_is_one_line(client, asked):
    answer = get(client, f"/api/{asked}")
    assert answer.status_code == 400
    assert "must be" in answer.json["error"]


def test_a_file_that_fails_is_said_and_not_acknowledged(client, review, monkeypatch):
    def full(_):
        raise OSError("cannot use decisions.sqlite: database or disk is full")

    monkeypatch.setattr(review.queue.decisions, "record", full)
    answer = post(client, "/api/decide", KEEP)
    assert answer.status_code == 503
    assert "disk is full" in answer.json["error"]
    review.queue.decisions._database.execute("DROP TABLE log")
    answer = get(client, "/api/page")
    assert answer.status_code == 500
    assert "is damaged" in answer.json["error"]


def test_a_decision_about_an_image_that_the_audit_knows_no_more_is_taken_back(audit):
    table = audit / "label_issues.csv"
    with Decisions(Run(audit)) as decisions:
        decisions.record(Decision(149, "keep"))
    text = table.read_text()
    table.write_text(text[: text.rindex("\n", 0, -1) + 1])  # one row is gone
    run = Run(audit)
    review = open_review(run, run.config(), Report())
    client = make_app(review, TOKEN, PORT).test_client()
    get(client, f"/?token={TOKEN}")
    assert get(client, "/api/page").json["progress"]["decided"] == 0
    assert post(client, "/api/decide", {"sample": 149, "action": "keep"}).status_code == 404
    assert post(client, "/api/undo", {}).json["item"] is None
    assert review.queue.decisions.latest() == {}
    review.queue.decisions.close()


def test_a_dataset_without_files_is_shown_by_its_numbers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = load_images(DataConfig(), Report()).train_labels
    np.save("p.npy", np.eye(10, dtype=np.float32)[labels] * 0.9 + 0.01)
    words = ("--dataset=digits", "--noise=0.2", "--judge-probs=p.npy")
    assert call("audit", *words) == 0
    run = Run(tmp_path / "audits" / "digits")
    review = open_review(run, run.config(), Report())
    client = make_app(review, TOKEN, PORT).test_client()
    get(client, f"/?token={TOKEN}")
    item = get(client, "/api/page").json["items"][0]
    assert item["file"] is None
    for path in ("image", "original"):
        answer = get(client, f"/{path}/{item['number']}")
        assert Image.open(io.BytesIO(answer.data)).mode == "L"
    assert post(client, "/api/decide", {"sample": item["number"], "action": "keep"}).json["item"]
    review.queue.decisions.close()
