"""What a WSGI application and its clients see of ctserve, and of gunicorn beside it.

CTSERVE names the command (default: build/ctserve of this checkout), GUNICORN that of gunicorn
27.0.1 (default: `python -m gunicorn` of the interpreter that runs the tests, if installed).
"""
import email.utils
import importlib.util
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).resolve().parent
CTSERVE = os.environ.get("CTSERVE", str(HERE.parent.parent / "build" / "ctserve")).split()
PATIENCE_S = 20

# -- what may differ from gunicorn, and why -----------
ENVIRON_VALUES_THAT_DIFFER = {
    "SERVER_SOFTWARE": "names ourselves",
    "REMOTE_PORT": "each connection has its own",
    "SERVER_PORT": "each server has its own",
    "HTTP_HOST": "holds the port",
}
ENVIRON_TYPES_THAT_DIFFER = {
    "wsgi.input": "a type of ours, same methods",
    "wsgi.early_hints": "a callable of ours",
    "wsgi.errors": "a type of ours, same methods",
    "gunicorn.socket": "light stand-in with fileno(); a real socket when more is asked of it",
}
ENVIRON_KEYS_ONLY_OURS = {"traceparent": "the server span, for the application"}
ENVIRON_KEYS_ONLY_GUNICORN = {}


class Server:
    """One server process group on a port or unix socket of its own."""

    def __init__(self, command, app, bind, *options, env=None):
        self.log = b""
        self.process = subprocess.Popen(
            [*command, "--bind", bind, "--workers", "1", *options, "wsgi_apps:" + app],
            cwd=HERE, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        selector = selectors.DefaultSelector()
        selector.register(self.process.stderr, selectors.EVENT_READ)
        while b"Listening at: " not in self.log:
            assert selector.select(PATIENCE_S), "no listening line: %r" % self.log
            self._read_log()
        match = re.search(rb"Listening at: (?:http://127\.0\.0\.1:(\d+)|unix:(\S+))", self.log)
        if match is None:
            line = self.log.splitlines()[-1]
            self.stop()
            raise AssertionError("unexpected listening line: %r" % line)
        self.port = int(match[1]) if match[1] else None
        self.path = match[2].decode() if match[2] else None

    def _read_log(self):
        piece = os.read(self.process.stderr.fileno(), 65536)
        if not piece:
            raise AssertionError("the server ended: %s" % self.log.decode(errors="replace"))
        self.log += piece

    def connect(self):
        if self.path:
            client = socket.socket(socket.AF_UNIX)
            client.settimeout(PATIENCE_S)
            client.connect(self.path)
        else:
            client = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S)
        return client

    def ask(self, head, body=b""):
        """Send one request, read until the server closes, return the Reply."""
        with self.connect() as client:
            client.sendall(head + body)
            wire = b""
            while True:
                piece = client.recv(65536)
                if not piece:
                    return Reply(wire)
                wire += piece

    def get(self, path, method=b"GET", version=b"1.1"):
        return self.ask(method + b" " + path.encode() + b" HTTP/" + version
                        + b"\r\nHost: localhost\r\nConnection: close\r\n\r\n")

    def stop(self):
        """End it and return everything it logged."""
        self.process.send_signal(signal.SIGTERM)
        try:
            rest = self.process.communicate(timeout=PATIENCE_S)[1]
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.log += rest
        return self.log.decode(errors="replace")


class Reply:
    def __init__(self, wire):
        head, separator, self.raw_body = wire.partition(b"\r\n\r\n")
        assert separator, "no whole head: %r" % wire[:200]
        self.wire = wire
        lines = head.decode("latin-1").split("\r\n")
        self.version, self.status = lines[0].split(" ")[0], int(lines[0].split(" ")[1])
        self.fields = [tuple(line.split(": ", 1)) for line in lines[1:]]
        self.headers = {name.lower(): value for name, value in self.fields}

    @property
    def is_chunked(self):
        return self.headers.get("transfer-encoding") == "chunked"

    @property
    def ends_properly(self):
        return not self.is_chunked or self.raw_body.endswith(b"0\r\n\r\n")

    @property
    def body(self):
        if not self.is_chunked:
            return self.raw_body
        body, rest = b"", self.raw_body
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            count = int(size, 16)
            body += rest[:count]
            assert rest[count:count + 2] == b"\r\n"
            rest = rest[count + 2:]
        return body


def gunicorn_command():
    if "GUNICORN" in os.environ:
        return os.environ["GUNICORN"].split()
    if importlib.util.find_spec("gunicorn") is None:
        pytest.skip("gunicorn is not installed beside pytest")
    return [sys.executable, "-m", "gunicorn", "--no-control-socket"]


@pytest.fixture
def serve(request):
    """serve(app, *options, command=..., bind=..., env=...): a Server that ends with the test."""
    started = []

    def start(app, *options, command=CTSERVE, bind="127.0.0.1:0", env=None):
        server = Server(command, app, bind, *options, env=env)
        started.append(server)
        return server

    yield start
    for server in started:
        if server.process.poll() is None:
            server.stop()


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """One server on the application `answers`, shared by the tests that only ask."""
    place = tmp_path_factory.mktemp("answers")
    os.mkfifo(place / "gate")
    server = Server(CTSERVE, "answers", "127.0.0.1:0",
                    env={"GATE": str(place / "gate"), "CLOSED": str(place / "closed")})
    server.place = place
    yield server
    server.stop()


# -- environ -----------
REQUEST = (b"POST /a%20b/%C3%A9/%2F?x=1&y=%20 HTTP/1.1\r\nHost: shop.example:8080\r\n"
           b"Content-Type: text/x\r\nContent-Length: 3\r\nX-Twice: one\r\nx-twice: two\r\n"
           b"X_Under: dropped\r\nX-Latin: caf\xe9\r\nCookie: a=b; c=d\r\nAccept: */*\r\n"
           b"Connection: close\r\n\r\nabc")
BARE = b"GET / HTTP/1.0\r\n\r\n"


def environ_of(server, request):
    return json.loads(server.ask(request).body)


def assert_alike(ours, theirs):
    assert set(ours) - set(theirs) <= set(ENVIRON_KEYS_ONLY_OURS)
    assert set(theirs) - set(ours) == set(ENVIRON_KEYS_ONLY_GUNICORN)
    for key in set(ours) & set(theirs):
        if key in ENVIRON_TYPES_THAT_DIFFER:
            continue
        if key != "wsgi.file_wrapper":
            assert ours[key][0] == theirs[key][0], key
        if key not in ENVIRON_VALUES_THAT_DIFFER:
            assert ours[key][1] == theirs[key][1], key


@pytest.mark.parametrize("request_bytes", [REQUEST, REQUEST.replace(b"Host: shop.example:8080",
                                                                    b"Host: shop.example")])
def test_the_environ_over_tcp_is_gunicorns(serve, request_bytes):
    ours = environ_of(serve("environ"), request_bytes)
    theirs = environ_of(serve("environ", command=gunicorn_command()), request_bytes)
    assert_alike(ours, theirs)
    assert ours["HTTP_X_TWICE"] == ["str", "one,two"]
    assert "HTTP_X_UNDER" not in ours and "HTTP_CONTENT_TYPE" not in ours
    assert ours["SERVER_SOFTWARE"][1].startswith("ctserve/")


def test_the_environ_of_http_1_0_is_gunicorns(serve):
    ours = environ_of(serve("environ"), BARE)
    assert_alike(ours, environ_of(serve("environ", command=gunicorn_command()), BARE))


@pytest.mark.parametrize("host", [b"shop.example:8080", b"shop.example"])
def test_the_environ_over_a_unix_socket_is_gunicorns(serve, tmp_path, host):
    asked = REQUEST.replace(b"shop.example:8080", host)
    ours = environ_of(serve("environ", bind="unix:%s/o.sock" % tmp_path), asked)
    theirs = environ_of(serve("environ", bind="unix:%s/g.sock" % tmp_path,
                              command=gunicorn_command()), asked)
    assert_alike(ours, theirs)
    assert ours["SERVER_PORT"] == theirs["SERVER_PORT"]
    assert ours["REMOTE_ADDR"] == ["str", ""] and "REMOTE_PORT" not in ours


def test_script_name_from_the_environment_is_cut_from_the_path(serve):
    server = serve("environ", env={"SCRIPT_NAME": "/shop"})
    told = environ_of(server, REQUEST.replace(b"POST /a", b"POST /shop/a"))
    assert told["SCRIPT_NAME"][1] == "/shop" and told["PATH_INFO"][1].startswith("/a b/")
    assert server.ask(REQUEST).status == 500


def test_an_absolute_target_replaces_the_host(serve):
    told = environ_of(serve("environ"), b"GET http://other.example:9/x?y HTTP/1.1\r\n"
                      b"Host: shop.example\r\nConnection: close\r\n\r\n")
    assert told["HTTP_HOST"][1] == "other.example:9"
    assert told["PATH_INFO"][1] == "/x" and told["QUERY_STRING"][1] == "y"
    assert told["RAW_URI"][1] == "http://other.example:9/x?y"


def test_the_server_span_is_in_the_environ_and_continues_the_clients_trace(serve):
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    told = environ_of(serve("environ"), b"GET / HTTP/1.1\r\nHost: l\r\nConnection: close\r\n"
                      b"traceparent: 00-%s-00f067aa0ba902b7-01\r\n\r\n" % trace_id.encode())
    match = re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})",
                         told["traceparent"][1])
    assert match and match[1] == trace_id and match[2] != "00f067aa0ba902b7"
    assert "traceparent" not in environ_of(serve("environ", "--no-tracing"), BARE)


# -- request bodies -----------
def chunked(body, size):
    pieces = [body[at:at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


@pytest.mark.parametrize("count", [0, 1, 5000, 300000, 3000000])
def test_a_body_of_any_length_arrives_whole(serve, count):
    server, body = serve("echo"), bytes(range(256)) * (count // 256) + b"z" * (count % 256)
    head = b"POST / HTTP/1.1\r\nHost: l\r\nConnection: close\r\n"
    assert server.ask(head + b"Content-Length: %d\r\n\r\n" % count, body).body == body
    sent = chunked(body, 7001)
    assert server.ask(head + b"Transfer-Encoding: chunked\r\n\r\n", sent).body == body


def test_the_validator_of_wsgiref_finds_nothing(serve):
    server = serve("validated")
    reply = server.ask(b"POST /x HTTP/1.1\r\nHost: l\r\nContent-Length: 21\r\n"
                       b"Connection: close\r\n\r\n", b"one line\nand another\n")
    assert reply.status == 200 and reply.body == b"one line\nand another\n"
    assert "a line for the error log" in server.stop()


# -- replies -----------
def test_the_head_has_server_date_and_connection(answers):
    reply = answers.get("/one")
    assert [name for name, _ in reply.fields[:3]] == ["Server", "Date", "Connection"]
    assert reply.headers["server"] == "ctserve" and reply.headers["connection"] == "close"
    assert email.utils.parsedate_to_datetime(reply.headers["date"]) is not None


def test_a_list_of_one_has_a_length_and_a_longer_one_is_chunked(answers):
    one, two, none = answers.get("/one"), answers.get("/two"), answers.get("/none")
    assert one.headers["content-length"] == "5" and not one.is_chunked and one.body == b"hello"
    assert two.is_chunked and two.body == b"onetwo"
    assert none.headers["content-length"] == "0" and none.body == b""


def test_http_1_0_is_never_chunked(answers):
    reply = answers.get("/two", version=b"1.0")
    assert not reply.is_chunked and reply.raw_body == b"onetwo"
    assert reply.headers["connection"] == "close"


def test_a_large_body_arrives_whole(answers):
    assert answers.get("/large").body == b"x" * 300000 + b"y"


def test_the_application_does_not_speak_for_the_connection(answers):
    reply = answers.get("/hop")
    names = [name.lower() for name, _ in reply.fields]
    assert names.count("server") == names.count("date") == 1 and "keep-alive" not in names
    assert reply.headers["server"] == "ctserve" and reply.body == b"hello"


@pytest.mark.parametrize("status", ["204", "304"])
def test_a_reply_without_a_body_has_none(answers, status):
    reply = answers.get("/status/" + status)
    assert reply.status == int(status) and reply.raw_body == b""
    assert not reply.is_chunked and "content-length" not in reply.headers


def test_a_reply_to_head_has_the_head_only(answers):
    reply = answers.get("/long", method=b"HEAD")
    assert reply.status == 200 and reply.raw_body == b"" and reply.headers["content-length"] == "3"


def test_a_body_is_cut_at_its_content_length(answers):
    assert answers.get("/long").raw_body == b"hel"


def test_a_body_shorter_than_its_content_length_closes_without_padding(answers):
    reply = answers.ask(b"GET /short HTTP/1.1\r\nHost: l\r\n\r\n")  # the server must close
    assert reply.headers["content-length"] == "30" and reply.raw_body == b"hello"


def test_a_part_arrives_before_the_next_one_is_made(answers):
    with answers.connect() as client:
        client.sendall(b"GET /steps HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n")
        wire = b""
        while b"first" not in wire:
            piece = client.recv(65536)
            assert piece, wire
            wire += piece
        assert b"second" not in wire
        with open(answers.place / "gate", "w"):
            pass
        while True:
            piece = client.recv(65536)
            if not piece:
                break
            wire += piece
    assert Reply(wire).body == b"firstsecond"


def test_write_comes_before_what_is_returned(answers):
    assert answers.get("/write").body == b"onetwothree"


def test_close_of_the_result_is_called_once(answers):
    (answers.place / "closed").write_text("")
    assert answers.get("/closing").body == b"ab"
    assert answers.get("/one").status == 200  # one worker: the request before is over
    assert (answers.place / "closed").read_text() == "closed\n"


# -- what goes wrong -----------
@pytest.mark.parametrize("what", ["crlf_value", "nul_value", "lf_name", "space_name",
                                  "wide_value", "bytes_name", "crlf_status", "short_status",
                                  "length_text", "length_negative"])
def test_of_a_hostile_head_nothing_reaches_the_wire(answers, what):
    reply = answers.get("/hostile/" + what)
    assert reply.status == 500 and reply.headers["connection"] == "close"
    assert b"X-Injected" not in reply.wire and b"leaked" not in reply.wire


@pytest.mark.parametrize("path", ["/raises", "/silent", "/twice", "/text"])
def test_a_failure_before_the_head_is_a_500(answers, path):
    reply = answers.get(path)
    assert reply.status == 500 and b"Internal Server Error" in reply.body
    assert answers.get("/one").status == 200


@pytest.mark.parametrize("path", ["/between", "/late"])
def test_a_failure_after_the_head_is_seen_as_a_truncation(answers, path):
    reply = answers.get(path)
    assert reply.status == 200 and reply.is_chunked and not reply.ends_properly
    assert b"500" not in reply.wire


def test_exc_info_replaces_a_head_that_was_not_sent(answers):
    reply = answers.get("/replaced")
    assert reply.status == 503 and "x-first" not in reply.headers
    assert reply.headers["x-second"] == "2" and reply.body == b"replaced"


def test_an_exception_is_logged_with_its_traceback_and_the_target(serve):
    server = serve("answers")
    server.get("/raises?x=1")
    log = server.stop()
    assert "Error handling request GET /raises?x=1" in log
    assert "Traceback (most recent call last)" in log and "the application raised for" in log


# -- hooks -----------
HOOKS = '''
def say(*what):
    with open({path!r}, "a") as file:
        print(*what, file=file)
def pre_request(worker, req):
    say("pre", worker.pid > 0, req.method, req.path, req.query, req.uri, req.version, req.scheme,
        sorted(req.headers))
    req.mine = "kept"
    if req.path == "/refused":
        raise ValueError("refused by the hook")
def post_request(worker, req, environ, resp):
    # gunicorn's resp has no status_code before start_response; ours has None there
    say("post", req.mine, environ.get("PATH_INFO"), resp and (resp.status,
        getattr(resp, "status_code", None), resp.headers_sent, resp.sent))
    if req.path == "/none":
        raise ValueError("swallowed")
'''


@pytest.mark.parametrize("path", ["/two?q=1", "/refused", "/none", "/raises"])
def test_request_hooks_see_what_gunicorns_see(serve, tmp_path, path):
    told = []
    for name, command in (("ours", CTSERVE), ("theirs", gunicorn_command())):
        log, config = tmp_path / (name + ".log"), tmp_path / (name + ".conf.py")
        config.write_text(HOOKS.format(path=str(log)))
        server = serve("answers", "-c", str(config), command=command)
        reply = server.get(path)
        server.stop()
        told.append((reply.status, log.read_text()))
    assert told[0] == told[1]


TRAILER_HOOKS = """
def pre_request(worker, req):
    say(req.trailers)
def post_request(worker, req, environ, resp):
    say(req.trailers, sorted(name for name, value in req.headers), resp.status)
    say(sorted(key for key in environ if "SUM" in key or "MARK" in key or "VARY" in key))
def say(*what):
    with open({path!r}, "a") as file:
        print(*what, file=file)
"""
TRAILERS = {
    "several": b"X-Sum: \t a b \t\r\nvary:*\r\nX-Empty:\r\nx-sum: \xe9\r\n",
    "none": b"",
    "with an underscore": b"X_Sum: 1\r\nX-Mark: _\r\n",
    "forbidden": b"X-Mark: 1\r\nHost: elsewhere\r\n",
    "broken": b"X-Mark: 1\r\nno colon\r\n",
}
#: A short body is whole before the application runs; a long one that waits for 100 it reads itself.
CHUNKS = {"whole": b"5\r\nfirst\r\n", "read": (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 40}
EXPECT = {"whole": b"", "read": b"Expect: 100-continue\r\n"}
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("how", CHUNKS)
@pytest.mark.parametrize("which", TRAILERS)
def test_trailers_are_shown_to_the_hook_as_gunicorn_shows_them(serve, tmp_path, which, how):
    """In the same list of pairs, not among the header fields, and never in the environ."""
    told = []
    body = CHUNKS[how] + b"0\r\n" + TRAILERS[which] + b"\r\n"
    for name, command in (("ours", CTSERVE), ("theirs", gunicorn_command())):
        log, config = tmp_path / (name + ".log"), tmp_path / (name + ".conf.py")
        config.write_text(TRAILER_HOOKS.format(path=str(log)))
        server = serve("echo", "-c", str(config), command=command)
        reply = server.ask(b"POST / HTTP/1.1\r\nHost: l\r\nConnection: close\r\n"
                           + EXPECT[how] + b"Transfer-Encoding: chunked\r\n\r\n", body)
        server.stop()
        assert reply.wire.startswith(CONTINUE) == (how == "read")
        told.append((Reply(reply.wire.replace(CONTINUE, b"", 1)).status,
                     log.read_text() if log.exists() else ""))
    if which in ("forbidden", "broken"):   # a whole body is refused before anything is called
        assert [status for status, _ in told] == [400, 400]
        assert told[0][1] == (told[1][1] if how == "read" else "")
    else:
        assert told[0] == told[1]
        assert told[0][0] == 200 and len(told[0][1].splitlines()) == 3


def test_force_close_in_pre_request_closes_the_connection(serve, tmp_path):
    config = tmp_path / "conf.py"
    config.write_text("keepalive = 60\ndef pre_request(worker, req):\n    req.force_close()\n")
    reply = serve("answers", "-c", str(config)).ask(b"GET /one HTTP/1.1\r\nHost: l\r\n\r\n")
    assert reply.headers["connection"] == "close"
