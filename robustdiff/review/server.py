"""The web page of a review: for one person on this machine, who has the token."""

import os
import secrets
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, abort, jsonify, render_template, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server

from robustdiff.errors import DamagedError
from robustdiff.review.decisions import ACTIONS, Decision
from robustdiff.review.pictures import Pictures
from robustdiff.review.queue import SUSPECT, Filter, Queue

ADDRESS = "127.0.0.1"
_HTTP = 80
_PAGE = 60
_MOST = 200  # labels that one request may ask for
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Review:
    """What a server shows.

    Attributes:
        name: Name of the run.
        queue: Its suspects and the decisions about them.
        pictures: Its images.
    """

    name: str
    queue: Queue
    pictures: Pictures


def listen(port: int) -> socket.socket:
    """Return a socket that listens on this machine only.

    Args:
        port: 0 for any that is free.

    Raises:
        ValueError: If the port cannot be had.
    """
    try:
        return socket.create_server((ADDRESS, port))
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ValueError(
            f"cannot listen on port {port} ({reason}); choose another --port, or 0 for one "
            "that is free"
        ) from error


def serve(app: Flask, listening: socket.socket) -> None:
    """Answer requests until the process is told to stop by Ctrl-C or SIGTERM."""
    port = listening.getsockname()[1]
    fd = listening.fileno()
    server = make_server(ADDRESS, port, app, threaded=True, request_handler=_Quiet, fd=fd)
    server.serve_forever()


class _Quiet(WSGIRequestHandler):
    """Writes no line per request: the first one has the token in its address."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def make_app(review: Review, token: str, port: int) -> Flask:
    """Return the web application.

    A request needs the token, in the address of the page or in the cookie that the page sets; this
    machine's own name as host, so that no other name can be made to point here; and, if it changes
    something, to come from the page itself.

    Args:
        review: What it shows.
        token: The secret.
        port: Where it is served.
    """
    app = Flask("robustdiff.review")
    app.config["MAX_CONTENT_LENGTH"] = 2**16
    names = (ADDRESS, "localhost")
    hosts = {f"{name}:{port}" for name in names}
    if port == _HTTP:  # which browsers leave out
        hosts.update(names)
    cookie = f"robustdiff-{port}"  # browsers tell cookies by host, not by port

    def refuse_strangers() -> None:
        _check_request(hosts, cookie, token)

    def seal(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response

    def index() -> Response:
        response = Response(render_template("review.html", name=review.name))
        response.set_cookie(cookie, token, httponly=True, samesite="Strict")
        return response

    app.before_request(refuse_strangers)
    app.after_request(seal)
    app.register_error_handler(HTTPException, _said)
    app.register_error_handler(OSError, lambda error: _failed(error, 503))
    app.register_error_handler(DamagedError, lambda error: _failed(error, 500))
    app.add_url_rule("/", view_func=index)
    _add_images(app, review.pictures)
    _add_reading(app, review)
    _add_deciding(app, review)
    return app


def _check_request(hosts: Collection[str], cookie: str, token: str) -> None:
    if request.headers.get("Host") not in hosts:
        abort(403, "this host is not served")
    given = request.cookies.get(cookie, "")
    if request.path == "/":
        given = request.args.get("token", given)
    if not secrets.compare_digest(given.encode(), token.encode()):
        abort(403, "the token is missing or wrong; open the address that robustdiff printed")
    if request.method not in ("GET", "HEAD", "OPTIONS"):
        if request.headers.get("Origin") != f"http://{request.host}":
            abort(403, "only the page itself may decide")
        if not request.is_json:
            abort(415, "the content type must be application/json")


def _said(error: HTTPException) -> ResponseReturnValue:
    """Answer with what is wrong, as one line."""
    code = error.code or 500
    if request.path.startswith("/api/"):
        return jsonify(error=error.description), code
    return Response(f"{error.description}\n", code, mimetype="text/plain")


def _failed(error: Exception, code: int) -> ResponseReturnValue:
    return jsonify(error=str(error)), code


def _add_images(app: Flask, pictures: Pictures) -> None:
    @app.get("/image/<int:number>")
    def image(number: int) -> ResponseReturnValue:
        try:
            return Response(pictures.small(number), mimetype="image/png")
        except KeyError:
            abort(404, f"there is no image {number}")

    @app.get("/original/<int:number>")
    def original(number: int) -> ResponseReturnValue:
        try:
            found = pictures.original(number)
        except KeyError:
            abort(404, f"there is no image {number}")
        if found is None:
            return image(number)
        return Response(found[0], mimetype=found[1])


def _add_reading(app: Flask, review: Review) -> None:
    queue, pictures = review.queue, review.pictures

    @app.get("/api/start")
    def start() -> ResponseReturnValue:
        suspects = queue.suspects
        return jsonify(
            name=review.name,
            classes=suspects.class_names,
            issues=suspects.kinds,
            is_probability=suspects.is_probability,
        )

    @app.get("/api/page")
    def page() -> ResponseReturnValue:
        queue.refresh()
        size = min(_number("size", _PAGE), _MOST)
        end = _number("before", 0) if "before" in request.args else None
        found = queue.page(_filter(), size, start=_number("from", 0), end=end)
        for item in found["items"]:
            item["file"] = pictures.name(item["number"])
        return jsonify(**found, progress=queue.progress())

    @app.get("/api/threshold")
    def threshold() -> ResponseReturnValue:
        return jsonify(queue.threshold(_share("below")))

    @app.get("/api/pairs")
    def pairs() -> ResponseReturnValue:
        queue.refresh()
        return jsonify(queue.pairs(request.args.get("words", "")))


def _add_deciding(app: Flask, review: Review) -> None:
    queue, pictures = review.queue, review.pictures

    def answer(number: int) -> ResponseReturnValue:
        queue.refresh()
        place = queue.place(number)
        item = None if place is None else queue.item(place) | {"file": pictures.name(number)}
        return jsonify(item=item, progress=queue.progress())

    @app.post("/api/decide")
    def decide() -> ResponseReturnValue:
        decision = _decision(request.get_json())
        if queue.place(decision.sample) is None:
            abort(404, f"there is no label {decision.sample}")
        if not pictures.is_as_read(decision.sample):
            name = pictures.name(decision.sample)
            abort(410, f"nothing was decided: the image {name!r} is gone or has changed")
        try:
            queue.decisions.record(decision)
        except ValueError as error:
            abort(400, str(error))
        return answer(decision.sample)

    @app.post("/api/undo")
    def undo() -> ResponseReturnValue:
        decision = queue.decisions.undo()
        if decision is None:
            abort(409, "there is nothing to take back")
        return answer(decision.sample)


def _decision(content: Any) -> Decision:  # noqa: ANN401 whatever came
    """Return a decision that was sent, of the right types."""
    known = {"sample", "action", "label"}
    if not isinstance(content, dict) or not {"sample", "action"} <= content.keys() <= known:
        abort(400, 'a decision is {"sample": ..., "action": ..., "label": ...}')
    sample, action, label = content["sample"], content["action"], content.get("label")
    if type(sample) is not int or action not in ACTIONS or type(label) not in (int, type(None)):
        abort(400, f"sample and label are integers, and the action one of {', '.join(ACTIONS)}")
    return Decision(sample, action, label)


def _filter() -> Filter:
    pair = None
    if "given" in request.args:
        pair = (_number("given", 0), _number("predicted", 0))
    issue = request.args.get("issue", SUSPECT)
    return Filter(issue, pair, request.args.get("undecided") == "1", _share("below"))


def _number(name: str, default: int) -> int:
    word = request.args.get(name, str(default))
    if not (word.isascii() and word.isdigit() and len(word) < 16):
        abort(400, f"{name} must be an integer, not negative, got {word!r}")
    return int(word)


def _share(name: str) -> float:
    word = request.args.get(name, "1")
    try:
        share = float(word)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        abort(400, f"{name} must be a number from 0 to 1, got {word!r}")
    return share
