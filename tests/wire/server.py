"""A real server on a free loopback port, for tests that talk to it in bytes."""
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

#: The application reads its whole body and says what it got. Strings are Latin-1.
ECHO = '''
import json


def app(environ, start_response):
    body = environ["wsgi.input"].read()
    headers = {k: v for k, v in environ.items()
               if k.startswith("HTTP_") or k in ("CONTENT_TYPE", "CONTENT_LENGTH")}
    echo = {"method": environ["REQUEST_METHOD"], "raw": environ["RAW_URI"],
            "path": environ["PATH_INFO"], "query": environ["QUERY_STRING"],
            "protocol": environ["SERVER_PROTOCOL"], "headers": headers,
            "body": body.decode("latin-1")}
    data = json.dumps(echo).encode()
    start_response("200 OK", [("Content-Type", "application/json"),
                              ("Content-Length", str(len(data)))])
    return [data]
'''


def command():
    """Where the server is: $CTSERVE, else the build folder of the checkout."""
    return os.environ.get("CTSERVE", str(ROOT / "build" / "ctserve"))


class Server:
    """`with Server("--http-policy", "gunicorn") as server:` and server.address is its port.

    Ready means that the server named its port and answered a request.
    """

    deadline_s = 60.0

    def __init__(self, *arguments, app=ECHO):
        self.arguments = arguments
        self.app = app
        self.process = None
        self.address = None

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        pathlib.Path(self.folder.name, "echo_app.py").write_text(self.app)
        self.log = open(pathlib.Path(self.folder.name, "log"), "w+b")
        environ = {k: v for k, v in os.environ.items()
                   if k not in ("GUNICORN_CMD_ARGS", "WEB_CONCURRENCY", "PORT")}
        self.process = subprocess.Popen(
            [command(), "echo_app:app", "--bind", "127.0.0.1:0", "--workers", "1",
             "--trace-api", "off", *self.arguments],
            cwd=self.folder.name, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log,
            env=environ)
        try:
            self._wait()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def text(self):
        return pathlib.Path(self.folder.name, "log").read_text(errors="replace")

    def _wait(self):
        end = time.monotonic() + self.deadline_s
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}:\n"
                                   + self.text())
            found = re.search(r"Listening at: http://127\.0\.0\.1:(\d+)", self.text())
            if found:
                self.address = ("127.0.0.1", int(found[1]))
                if self._answers():
                    return
            select.select([], [], [], 0.05)
        raise RuntimeError("the server did not become ready:\n" + self.text())

    def _answers(self):
        try:
            data = exchange(self.address, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", deadline_s=10)
        except OSError:
            return False
        return data[:12] in (b"HTTP/1.0 200", b"HTTP/1.1 200")

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()   # its workers see that and leave
                self.process.wait(10)
        self.log.close()
        self.folder.cleanup()


class TooSlow(AssertionError):
    """A fact that was waited for did not come before the deadline."""


def exchange(address, raw, *, pieces=None, until=None, half_close=False, deadline_s=30.0):
    """Send `raw` and read to the end of the connection; returns the bytes that came.

    pieces: send so many bytes at a time (1: byte by byte), None: all at once.
    until: a function of the bytes so far; when it says True, reading ends with the connection
    still open (then the bytes are returned as they are).
    half_close: shut the sending side down after the last byte.
    A server that closes while we still send is fine: that is what a refusal does.
    """
    end = time.monotonic() + deadline_s
    step = pieces or max(len(raw), 1)
    answer = bytearray()
    at, is_shut = 0, False
    with socket.create_connection(address, timeout=deadline_s) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        while True:
            left = end - time.monotonic()
            if left <= 0:
                raise TooSlow(f"after {deadline_s} s: {len(answer)} bytes of answer "
                              f"{bytes(answer[:200])!r}, {at} of {len(raw)} bytes sent")
            sends = [connection] if at < len(raw) else []
            readable, writable, _ = select.select([connection], sends, [], left)
            if readable:
                try:
                    data = connection.recv(65536)
                except ConnectionResetError:
                    return bytes(answer)
                if not data:
                    return bytes(answer)
                answer += data
            if writable:
                try:
                    at += connection.send(raw[at:at + step])
                except (BrokenPipeError, ConnectionResetError):
                    at = len(raw)
                    is_shut = True
            if at == len(raw) and half_close and not is_shut:
                is_shut = True
                try:
                    connection.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            if until is not None and until(bytes(answer)):
                return bytes(answer)


def answers(data):
    """The whole responses in `data`: a list of (status, headers in lower case, body).

    Bytes that are no whole response raise ValueError. 100 Continue is left out.
    """
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            raise ValueError(f"half a head: {head[:200]!r}")
        lines = head.decode("latin-1").split("\r\n")
        version, status = lines[0].split(" ")[:2]
        if version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError(f"version {version!r}")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if status == "100":
            data = rest
            continue
        if "content-length" not in headers:
            raise ValueError(f"no Content-Length: {head!r}")
        length = int(headers["content-length"])
        if len(rest) < length:
            raise ValueError(f"half a body: {rest[:200]!r}")
        found.append((int(status), headers, rest[:length]))
        data = rest[length:]
    return found


def answers_if_whole(data):
    """As answers(), or [] while the last one is not whole."""
    try:
        return answers(data)
    except ValueError:
        return []
