"""Every reference count ends where it began.

The application runs under a debug build of CPython, which counts all references there are, and
tells the total after a garbage collection. A leak of one reference per request shows as at least
REQUESTS_COUNT; what moves by itself (interned numbers, a log record kept for a while) stays far
below. PYDEBUG names the interpreter (default: python3.11-dbg or python3-dbg on PATH); it needs a
_core of its own (-Dpythons=...,python3.11-dbg). The interpreter that CTSERVE_CMD_ARGS chooses is
measured too, by the memory blocks it has allocated. CTSERVE_REFS says which of them to measure.
"""

import os
import shutil
import signal
import socket

import pytest

from harness import SANITIZED, Running, until

PYDEBUG = os.environ.get("PYDEBUG") or shutil.which("python3.11-dbg") or shutil.which("python3-dbg")

#: embed and host mean PYDEBUG in that mode, chosen the interpreter of CTSERVE_CMD_ARGS.
WHICH = os.environ.get("CTSERVE_REFS", "embed,host,chosen").split(",")

REQUESTS_COUNT = 300
WARM_UP_COUNT = 60
NOISE_MAX = 30
ATTEMPTS_COUNT = 8

APP = '''
import gc, io, sys

total = getattr(sys, "gettotalrefcount", sys.getallocatedblocks)

class Streamed:
    def __init__(self): self.left = 5
    def __iter__(self): return self
    def __next__(self):
        self.left -= 1
        if self.left < 0:
            raise StopIteration
        return b"piece"
    def close(self): self.closed = True

class Broken:
    def __iter__(self):
        yield b"first"
        raise ValueError("in the middle")

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/total":
        for _ in range(3):
            gc.collect()
        body = b"%012d" % total()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/raise":
        raise ValueError("before the head")
    if path == "/bad-status":
        start_response("nonsense", [])
        return []
    if path == "/bad-header":
        start_response("200 OK", [("X-A", "a\\r\\nb")])
        return []
    if path == "/read":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/lines":
        lines = list(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return lines
    if path == "/streamed":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Streamed()
    if path == "/write":
        write = start_response("200 OK", [("Content-Type", "text/plain")])
        write(b"one")
        write(b"two")
        return [b"three"]
    if path == "/broken":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return Broken()
    if path == "/exc-info":
        start_response("200 OK", [("Content-Length", "2")])
        try:
            raise KeyError("k")
        except KeyError:
            start_response("500 No", [("Content-Length", "2")], sys.exc_info())
        return [b"no"]
    if path == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 5000), 1024)
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]
'''

HOOKS = '''
import gc, sys
total = getattr(sys, "gettotalrefcount", sys.getallocatedblocks)
def pre_request(worker, req): req.seen = True; str(req.headers)
def post_request(worker, req, environ, resp): str(resp.status); environ.get("x")
def child_exit(server, worker):
    for _ in range(3):
        gc.collect()
    with open("master-total", "a") as file:
        file.write("%d\\n" % total())
def pre_fork(server, worker): worker.mine = [worker]
'''


def _request(line, body=b"", fields=(), chunked=False):
    head = [line + " HTTP/1.1", "Host: refs.test", "Cookie: a=b; c=d", "X-Other: 1", *fields]
    if chunked:
        head.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    elif body:
        head.append("Content-Length: %d" % len(body))
    head.append("Connection: close")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


KINDS = {
    "plain": _request("GET /hello?a=b"),
    "percent signs in the path": _request("GET /h%C3%A4llo%20x?q=%41"),
    "head only": _request("HEAD /hello"),
    "a body that is read": _request("POST /read", b"0123456789" * 300),
    "a body that is not read": _request("POST /hello", b"0123456789" * 300),
    "a chunked body": _request("POST /read", b"0123456789" * 30, chunked=True),
    "a body read by lines": _request("POST /lines", b"one\ntwo\nthree\n"),
    "expect 100-continue": _request("POST /read", b"body", ["Expect: 100-continue"]),
    "an iterator with close": _request("GET /streamed"),
    "write()": _request("GET /write"),
    "a file": _request("GET /file"),
    "an exception before the head": _request("GET /raise"),
    "an exception after the head": _request("GET /broken"),
    "start_response with exc_info": _request("GET /exc-info"),
    "a bad status": _request("GET /bad-status"),
    "a bad header": _request("GET /bad-header"),
    "a bad request": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a client that leaves early": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nab",
    "traced from outside": _request("GET /hello", fields=[
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
}


def _exchange(port, request):
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.settimeout(30)
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        parts = []
        try:
            while True:
                part = client.recv(65536)
                if not part:
                    break
                parts.append(part)
        except ConnectionResetError:
            pass
        return b"".join(parts)


def _total(port):
    return int(_exchange(port, _request("GET /total")).rpartition(b"\r\n\r\n")[2])


def _arguments(which):
    """What chooses the interpreter for one parameter of `served`, or a skip."""
    if which == "chosen":
        if SANITIZED:
            pytest.skip("PYTHONMALLOC=malloc counts no blocks")
        return []
    if not PYDEBUG:
        pytest.skip("no debug build of CPython (Debian: apt install python3-dbg)")
    if SANITIZED and which == "host":
        pytest.skip("a sanitized _core cannot be loaded by a python that is not")
    return ["--python", PYDEBUG, "--interpreter", which]


def _ready(server):
    try:
        return server.ready()
    except AssertionError as error:
        for reason in ("no _core.", "no shared libpython"):
            if reason in str(error):
                pytest.skip(reason + " for " + str(PYDEBUG))
        raise


@pytest.fixture(scope="module", params=WHICH)
def served(request, tmp_path_factory):
    arguments = _arguments(request.param)
    folder = tmp_path_factory.mktemp("refs")
    (folder / "app.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(HOOKS)
    with Running([*arguments, "--workers", "1", "--trace-api", "off", "app:app"],
                 cwd=folder) as server:
        _ready(server)
        server.folder = folder
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_requests_leave_no_reference_behind(kind, served):
    request = KINDS[kind]
    for _ in range(WARM_UP_COUNT):
        _exchange(served.port, request)
    _total(served.port)
    growths = []
    for _ in range(ATTEMPTS_COUNT):
        before = _total(served.port)
        for _ in range(REQUESTS_COUNT):
            _exchange(served.port, request)
        growths.append(_total(served.port) - before)
        if abs(growths[-1]) <= NOISE_MAX:
            return
    pytest.fail("%d requests of kind %r changed the total by %s" % (REQUESTS_COUNT, kind, growths))


def test_the_measurement_sees_a_leak(tmp_path):
    """The same measurement finds one reference per request, so that its silence means something."""
    arguments = _arguments("chosen" if "chosen" in WHICH and not SANITIZED else WHICH[0])
    (tmp_path / "app.py").write_text(APP + "\nkept = []\ninner = app\n"
                                     "def app(environ, start_response):\n"
                                     "    kept.append(object())\n"
                                     "    return inner(environ, start_response)\n")
    with Running([*arguments, "--workers", "1", "--trace-api", "off", "app:app"],
                 cwd=tmp_path) as server:
        _ready(server)
        before = _total(server.port)
        for _ in range(REQUESTS_COUNT):
            _exchange(server.port, KINDS["plain"])
        assert _total(server.port) - before >= REQUESTS_COUNT


def test_workers_that_come_and_go_leave_no_reference_in_the_master(served):
    """TTIN and TTOU; the master tells its total in child_exit."""
    told = served.folder / "master-total"
    told.unlink(missing_ok=True)

    def totals():
        return [int(line) for line in told.read_text().split()] if told.exists() else []

    rounds = 30
    for i in range(rounds):
        served.process.send_signal(signal.SIGTTIN)
        until(lambda: len(served.workers()) == 2, lambda: "a second worker\n" + served.text)
        served.process.send_signal(signal.SIGTTOU)
        until(lambda: len(totals()) == i + 1, lambda: "child_exit %d\n%s" % (i + 1, served.text))
    seen = totals()
    # The first rounds fill caches; after that a worker that is gone costs nothing.
    assert abs(seen[-1] - seen[rounds // 3]) <= NOISE_MAX, seen
