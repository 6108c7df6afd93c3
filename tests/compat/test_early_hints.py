"""wsgi.early_hints: interim 103 responses, byte for byte."""
import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
from server import Server, answers, command, exchange  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")
APP = '''
kept = []
def app(environ, start_response):
    hints = environ["wsgi.early_hints"]
    path = environ["PATH_INFO"]
    if path == "/late":
        kept[0]([("Link", "x")])
    if path == "/keep":
        kept.append(hints)
    if path == "/bad":
        try:
            hints([("Link", "a\\r\\nX: y")])
        except ValueError as error:
            path = "/refused"
    if path in ("/two", "/keep"):
        hints([("Link", " </a.css>; rel=preload "), (b"X-B", b"1")])
        hints((pair for pair in [["Link", "</b.js>"]]))
    body = path.encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    if path == "/two":
        hints([("Link", "not after start_response has sent? it has not, so it is sent")])
    return [body]
'''
KINDS = {"sync": ("--keep-alive", "2"), "gthread": ("--worker-class", "gthread", "--threads", "2")}


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with Server(*KINDS[request.param], app=APP) as running:
        yield running


def get(server, path, version="1.1"):
    raw = f"GET {path} HTTP/{version}\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    return exchange(server.address, raw)


def test_each_call_is_one_interim_response_before_the_reply(server):
    data = get(server, "/two")
    first, second, third, rest = data.split(b"\r\n\r\n", 3)
    assert first == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nX-B: 1"
    assert second == b"HTTP/1.1 103 Early Hints\r\nLink: </b.js>"
    assert third.startswith(b"HTTP/1.1 103 Early Hints\r\n")
    [(status, _, body)] = answers(rest)
    assert (status, body) == (200, b"/two")


def test_http_10_gets_none(server):
    [(status, _, body)] = answers(get(server, "/two", "1.0"))
    assert (status, body) == (200, b"/two")


def test_a_line_break_in_a_hint_raises_and_nothing_of_it_leaves(server):
    [(status, _, body)] = answers(get(server, "/bad"))
    assert (status, body) == (200, b"/refused")


def test_a_kept_callable_of_an_old_request_does_nothing(server):
    assert get(server, "/keep").count(b"103 Early Hints") == 2
    for _ in range(3):
        [(status, _, body)] = answers(get(server, "/late"))
        assert (status, body) == (200, b"/late")
    assert get(server, "/two").count(b"103 Early Hints") == 3


def test_pipelined_requests_keep_their_order(server):
    one = b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n"
    data = exchange(server.address, one % b"/first" + one % b"/two" + one % b"/last", half_close=True)
    assert data.index(b"/first") < data.index(b"103 Early") < data.index(b"/two") < data.index(b"/last")
