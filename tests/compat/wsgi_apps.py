"""Applications for test_wsgi.py. Each test starts the server on one of them."""
import json
import os
import sys
from wsgiref.validate import validator

PLAIN = ("Content-Type", "text/plain")


def describe(value):
    """A value of the environ as JSON can hold it."""
    if isinstance(value, (str, bool, int, type(None))):
        return value
    if isinstance(value, tuple):
        return list(value)
    return "<object>"


def environ(environ, start_response):
    names = {key: [type(value).__name__, describe(value)] for key, value in environ.items()}
    body = json.dumps(names).encode()
    start_response("200 OK", [("Content-Type", "application/json"),
                              ("Content-Length", str(len(body)))])
    return [body]


def echo(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("200 OK", [PLAIN, ("Content-Length", str(len(body)))])
    return [body]


@validator
def validated(environ, start_response):
    body = environ["wsgi.input"].read(5) + b"".join(iter_lines(environ["wsgi.input"]))
    environ["wsgi.errors"].write("a line for the error log\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", [PLAIN])
    return [body]


def iter_lines(stream):
    while True:
        line = stream.readline(7)
        if not line:
            return
        yield line


class Closing:
    """An iterable that tells a file when it was closed."""

    def __init__(self, parts, path):
        self.parts, self.path = iter(parts), path

    def __iter__(self):
        return self.parts

    def close(self):
        with open(self.path, "a") as file:
            file.write("closed\n")


def in_steps(start_response):
    start_response("200 OK", [PLAIN])
    yield b""
    yield b"first"
    with open(os.environ["GATE"]) as gate:  # a FIFO: waits until the test has seen the first part
        gate.read()
    yield b"second"


def raise_between(start_response):
    start_response("200 OK", [PLAIN])
    yield b"part"
    raise ValueError("in the middle")


def replaced(start_response):
    start_response("200 OK", [("X-First", "1")])
    try:
        raise ValueError("not sent yet")
    except ValueError:
        start_response("503 Service Unavailable", [("X-Second", "2")], sys.exc_info())
    return [b"replaced"]


def too_late(start_response):
    write = start_response("200 OK", [PLAIN])
    write(b"part")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("503 Service Unavailable", [], sys.exc_info())
    return [b"never"]


HOSTILE = {
    "crlf_value": ("200 OK", [("X-Leak", "leaked"), ("X-Bad", "a\r\nX-Injected: 1")]),
    "nul_value": ("200 OK", [("X-Leak", "leaked"), ("X-Bad", "a\0b")]),
    "lf_name": ("200 OK", [("X-Leak", "leaked"), ("X-Bad\nX-Injected", "1")]),
    "space_name": ("200 OK", [("X-Leak", "leaked"), ("X Bad", "1")]),
    "wide_value": ("200 OK", [("X-Leak", "leaked"), ("X-Bad", "\u0141")]),
    "bytes_name": ("200 OK", [("X-Leak", "leaked"), (b"X-Bad", "1")]),
    "crlf_status": ("200 OK\r\nX-Injected: 1", [("X-Leak", "leaked")]),
    "short_status": ("20", [("X-Leak", "leaked")]),
    "length_text": ("200 OK", [("X-Leak", "leaked"), ("Content-Length", "five")]),
    "length_negative": ("200 OK", [("X-Leak", "leaked"), ("Content-Length", "-5")]),
}


def say(start_response, status, *headers, parts=(b"hello",)):
    start_response(status, [PLAIN, *headers])
    return list(parts)


def answers(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/hostile/"):
        start_response(*HOSTILE[path.rsplit("/", 1)[1]])
        return [b"body"]
    if path.startswith("/status/"):
        return say(start_response, path.rsplit("/", 1)[1] + " Whatever")
    if path == "/one":
        return say(start_response, "200 OK")
    if path == "/two":
        return say(start_response, "200 OK", parts=(b"one", b"two"))
    if path == "/none":
        return say(start_response, "200 OK", parts=())
    if path == "/long":
        return say(start_response, "200 OK", ("Content-Length", "3"))
    if path == "/short":
        return say(start_response, "200 OK", ("Content-Length", "30"))
    if path == "/large":
        return say(start_response, "200 OK", parts=(b"x" * 300000, b"y"))
    if path == "/hop":
        return say(start_response, "200 OK", ("Transfer-Encoding", "chunked"), ("Server", "mine"),
                   ("Date", "now"), ("Keep-Alive", "300"))
    if path == "/steps":
        return in_steps(start_response)
    if path == "/between":
        return raise_between(start_response)
    if path == "/replaced":
        return replaced(start_response)
    if path == "/late":
        return too_late(start_response)
    if path == "/write":
        write = start_response("200 OK", [PLAIN])
        write(b"one")
        write(b"two")
        return [b"three"]
    if path == "/closing":
        start_response("200 OK", [PLAIN])
        return Closing([b"a", b"b"], os.environ["CLOSED"])
    if path == "/silent":
        return [b"no start_response"]
    if path == "/twice":
        start_response("200 OK", [])
        start_response("200 OK", [])
    if path == "/text":
        return say(start_response, "200 OK", parts=("text",))
    raise KeyError("the application raised for " + path)
