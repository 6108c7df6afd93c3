"""The access log: every atom as gunicorn writes it, one line per request, nothing raw in it."""
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
from server import Server, command, exchange  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")
APP = '''
def app(environ, start_response):
    if environ["PATH_INFO"] == "/raise":
        raise ValueError("x")
    body = environ["PATH_INFO"].encode("latin-1")
    start_response("404 Not Found", [("Content-Length", str(len(body))), ("X-Kind", 'a "quoted" one')])
    return [body]
'''
FORMAT = ('%(h)s %(l)s %(u)s "%(r)s" %(s)s %(m)s %(U)s %(q)s %(H)s %(b)s %(B)s "%(f)s" "%(a)s" %(T)s '
          '%({x-in}i)s %({X-Kind}o)s %({none}o)s %({server_protocol}e)s %({none}e)s %(nothing)s 100%%')
REQUESTS = [
    b"GET /a%20b?c=d HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: t \"q\"\r\nX-In: 7\r\n"
    b"Referer: http://r/\r\nAuthorization: Basic ZXZlOnNlY3JldA==\r\n\r\n",
    b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nab",
]
KINDS = {"sync": ("--worker-class", "sync", "--keep-alive", "2"),
         "gthread": ("--worker-class", "gthread", "--threads", "2")}


def lines_of(path, count, patience_s=30):
    deadline = time.monotonic() + patience_s
    while True:
        lines = path.read_text().splitlines() if path.exists() else []
        if len(lines) >= count:
            return lines
        assert time.monotonic() < deadline, lines
        time.sleep(0.01)


def logged(tmp_path, requests, *flags, format=FORMAT):
    """The lines of these requests; the one that asks whether the server is ready comes first."""
    log = tmp_path / f"access-{len(list(tmp_path.iterdir()))}"
    with Server("--access-logfile", str(log), "--access-logformat", format, *flags, app=READY) as server:
        before = len(lines_of(log, 1))
        for raw in requests:
            exchange(server.address, raw, half_close=True)
        lines = lines_of(log, before + len(requests))[before:]
    return lines


READY = APP.replace('    if environ["PATH_INFO"] == "/raise"',
                    '    if environ["PATH_INFO"] == "/" and environ["REQUEST_METHOD"] == "GET":\n'
                    '        start_response("200 OK", [("Content-Length", "0")])\n        return []\n'
                    '    if environ["PATH_INFO"] == "/raise"')


@pytest.mark.parametrize("kind", KINDS)
def test_every_atom_is_there(tmp_path, kind):
    # Each thread has lines of its own to write: which are first is not said.
    first, second = sorted(logged(tmp_path, REQUESTS, *KINDS[kind]), key=lambda line: "POST" in line)
    assert first == ('127.0.0.1 - eve "GET /a%20b?c=d HTTP/1.1" 404 GET /a b c=d HTTP/1.1 4 4 '
                     '"http://r/" "t \\"q\\"" 0 7 a \\"quoted\\" one - HTTP/1.1 - - 100%')
    assert second.startswith('127.0.0.1 - - "POST / HTTP/1.0" 404 POST /  HTTP/1.0 1 1 "-" "-" 0 - ')


def test_gunicorn_writes_the_same(tmp_path):
    pytest.importorskip("gunicorn")
    ours = logged(tmp_path, REQUESTS)
    log = tmp_path / "theirs"
    (tmp_path / "echo_app.py").write_text(READY)
    bind = tmp_path / "socket-port"
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "-b", "127.0.0.1:0", "--access-logfile", str(log),
         "--access-logformat", FORMAT, "--no-control-socket", "echo_app:app"], cwd=tmp_path,
        stderr=open(bind, "w"), stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (found := re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", bind.read_text())):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.02)
        for raw in REQUESTS:
            exchange(("127.0.0.1", int(found[1])), raw, half_close=True)
        assert lines_of(log, len(REQUESTS)) == ours
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def test_nothing_raw_gets_into_a_line(tmp_path):
    raw = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: \\ \xff\x80\tz\r\n\r\n"
    [line] = logged(tmp_path, [raw], format="%(a)s|%(U)s")
    assert line == r"\x5c \xff\x80\x09z|/x"
    [line] = logged(tmp_path, [b"GET /%0a%1b[31m HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
                    format="%(U)s")
    assert line.endswith(r"/\x0a\x1b[31m")


def escaped(data):
    """Bytes as they stand in a line: a quote gets a backslash, what is not plain becomes \\xHH."""
    return "".join('\\"' if byte == 0x22 else chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C
                   else f"\\x{byte:02x}" for byte in data)


def test_every_byte_is_escaped_at_every_place(tmp_path):
    """Eight bytes are looked at in one go: no place and no neighbour may hide a byte."""
    texts = []
    for byte in [0x09, *range(0x21, 0x7F), *range(0x80, 0x100)]:
        for place in range(8):
            # Neighbours at the edge: the first plain byte and the last, and one that is not.
            texts.append(b"ab" + b"~!" * 4 + b"\x80" * (byte % 2) + b"z" * place + bytes([byte])
                         + b"!~" * (8 - place) + b"c")
    gets = [b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nUser-Agent: " + text + b"\r\n\r\n"
            for text in texts]
    pieces = [b"".join(gets[at:at + 50]) for at in range(0, len(gets), 50)]
    log = tmp_path / "access"
    with Server("--access-logfile", str(log), "--access-logformat", "%(m)s %(a)s", "--keep-alive", "5",
                app=READY) as server:
        for piece in pieces:
            exchange(server.address, piece, half_close=True)
        lines = [line for line in lines_of(log, 1 + len(texts)) if line.startswith("POST ")]
    assert lines == ["POST " + escaped(text) for text in texts]


def test_the_time_atoms_are_numbers(tmp_path):
    [line] = logged(tmp_path, REQUESTS[:1], format="%(t)s %(M)s %(D)s %(L)s %(p)s")
    assert re.fullmatch(r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] \d+ \d+ \d+\.\d{6} <\d+>", line)


def test_an_application_that_raises_is_a_500(tmp_path):
    raw = b"GET /raise HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert logged(tmp_path, [raw], format="%(s)s %(r)s") == ["500 GET /raise HTTP/1.1"]


def test_pipelined_requests_have_a_line_each_in_order(tmp_path):
    raw = b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(20))
    log = tmp_path / "access"
    with Server("--access-logfile", str(log), "--access-logformat", "%(U)s", "--keep-alive", "2",
                app=READY) as server:
        before = len(lines_of(log, 1))
        exchange(server.address, raw, half_close=True)
        assert lines_of(log, before + 20)[before:] == [f"/{number}" for number in range(20)]


def test_usr1_opens_the_file_again(tmp_path):
    log = tmp_path / "access"
    with Server("--access-logfile", str(log), "--access-logformat", "%(U)s", app=READY) as server:
        lines_of(log, 1)
        log.rename(tmp_path / "old")
        server.process.send_signal(signal.SIGUSR1)
        deadline = time.monotonic() + 30
        while not log.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        exchange(server.address, b"GET /new HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert lines_of(log, 1)[-1] == "/new"


def test_a_pipe_that_nobody_reads_stops_nobody(tmp_path):
    log = tmp_path / "fifo"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    try:
        long = b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        with Server("--access-logfile", str(log), app=READY) as server:
            for _ in range(60):
                assert exchange(server.address, long).startswith(b"HTTP/1.1 404")
    finally:
        os.close(reader)
