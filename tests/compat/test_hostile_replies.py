"""What an application may not do to a reply, and the validator of PEP 3333, on both kinds of worker."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
from harness import Running, app_folder  # noqa: E402
from server import exchange  # noqa: E402

APP = '''
import io
from wsgiref.validate import validator

CONNECTION_FIELDS = [(name, "x") for name in (
    "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "TE", "Trailer",
    "Transfer-Encoding", "Upgrade", "Proxy-Connection")]
TEXT = ("Content-Type", "text/plain")


@validator
def checked(environ, start_response):
    path = environ["PATH_INFO"]
    body = environ["wsgi.input"].read(1000)
    if path == "/checked/stream":
        start_response("200 OK", [TEXT])
        return (piece for piece in (b"one", b"", b"two"))
    if path == "/checked/write":
        start_response("200 OK", [TEXT])(b"one")
        return [b"two"]
    if path == "/checked/file":
        start_response("200 OK", [TEXT])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"one two"), 3)
    start_response("200 OK", [TEXT])
    return [body or b"nothing"]


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/checked"):
        return checked(environ, start_response)
    if path == "/fields":
        start_response("200 OK", CONNECTION_FIELDS)
    elif path.startswith("/status"):
        start_response(path[7:] + " x", [])
    elif path == "/long":
        start_response("200 OK", [("Content-Length", "3")])
    elif path == "/lengths":
        start_response("200 OK", [("Content-Length", "3"), ("Content-Length", "4")])
    elif path == "/twice":
        start_response("200 OK", [("X-Leak", "1")])
        start_response("200 OK", [])
    elif path == "/late":
        start_response("200 OK", [("Content-Length", "30")])
        return late()
    return [b"hello"]


def late():
    yield b"hello"
    raise ValueError("late")
'''
KINDS = {"sync": ["-k", "sync", "--keep-alive", "5"],
         "gthread": ["-k", "gthread", "--threads", "4"]}


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with app_folder(APP) as folder:
        with Running(["-w", "1", *KINDS[request.param], "--trace-api", "off", "app:app"],
                     folder) as running:
            yield running.ready()


def ask(server, path, method="GET", version="1.1", body=b""):
    """(status line, fields in lower case, everything behind the head); the client closes last."""
    head = f"{method} {path} HTTP/{version}\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    data = exchange(("127.0.0.1", server.port), head.encode() + body, half_close=True)
    head, _, rest = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    return status, [tuple(line.lower().split(": ", 1)) for line in lines], rest


def count_lines(server, text):
    return sum(text in line for line in server.lines)


@pytest.mark.parametrize("method, path, wanted", [
    ("GET", "/checked", b"7\r\nnothing\r\n0\r\n\r\n"), ("HEAD", "/checked", b""),
    ("POST", "/checked", b"6\r\na body\r\n0\r\n\r\n"),
    ("GET", "/checked/stream", b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"), ("HEAD", "/checked/stream", b""),
    ("GET", "/checked/write", b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
    ("GET", "/checked/file", b"3\r\none\r\n3\r\n tw\r\n1\r\no\r\n0\r\n\r\n")])
def test_the_validator_of_pep_3333_finds_nothing(server, method, path, wanted):
    before = count_lines(server, "Error") + count_lines(server, "Warning")
    status, _, rest = ask(server, path, method, body=b"a body" if method == "POST" else b"")
    assert (status, rest) == ("HTTP/1.1 200 OK", wanted)
    assert count_lines(server, "Error") + count_lines(server, "Warning") == before


def test_fields_of_the_connection_are_ours(server):
    _, fields, rest = ask(server, "/fields")
    assert [name for name, _ in fields] == ["server", "date", "connection", "content-length"]
    assert ("connection", "keep-alive") in fields and rest == b"hello"


@pytest.mark.parametrize("path", ["/status100", "/status199"])
def test_no_interim_status_goes_to_http_1_0(server, path):
    status, fields, _ = ask(server, path, version="1.0")
    assert " 500 " in status and ("connection", "close") in fields


@pytest.mark.parametrize("path", ["/status0", "/status20", "/status099", "/status2000", "/lengths",
                                  "/twice"])
def test_a_head_that_cannot_be_is_a_500_that_closes(server, path):
    status, fields, rest = ask(server, path)
    assert status == "HTTP/1.1 500 Internal Server Error" and ("connection", "close") in fields
    assert "x-leak" not in dict(fields) and b"hello" not in rest


def test_a_body_beyond_its_length_is_cut_and_said_once(server):
    text = "more than its Content-Length"
    before = count_lines(server, text)
    assert ask(server, "/long")[2] == b"hel"
    server.line(text, count=before + 1)
    assert count_lines(server, text) == before + 1


@pytest.mark.parametrize("method, path", [("HEAD", "/long"), ("GET", "/status204"),
                                          ("GET", "/status304")])
def test_a_body_where_none_may_be_is_dropped_and_said_once(server, method, path):
    text = "a body where none is allowed"
    before = count_lines(server, text)
    assert ask(server, path, method)[2] == b""
    server.line(text, count=before + 1)
    assert count_lines(server, text) == before + 1


def test_a_failure_within_a_body_of_known_length_is_seen_as_a_truncation(server):
    _, fields, rest = ask(server, "/late")
    assert ("content-length", "30") in fields and rest == b"hello"
