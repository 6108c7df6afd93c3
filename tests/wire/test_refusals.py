"""What a refused request leaves behind: one span, one more request in the count, one line in the
log, no call of the application, and nothing raw in any log."""
import collections
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import cases  # noqa: E402
from harness import Running, app_folder, until  # noqa: E402
from server import answers, exchange  # noqa: E402

APP = '''
def app(environ, start_response):
    environ["wsgi.input"].read()
    with open("calls", "ab") as calls:
        calls.write(b".")
    if environ["PATH_INFO"].startswith("/raise"):
        raise ValueError("as told")
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''
KINDS = {"sync": ["-k", "sync", "--keep-alive", "5"],
         "gthread": ["-k", "gthread", "--threads", "4"]}


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with app_folder(APP) as folder:
        with Running(["-w", "1", *KINDS[request.param], "--trace-api", "127.0.0.1:0",
                      "--error-logfile", str(folder / "errors"), "--access-logfile", str(folder / "accesses"),
                      "--access-logformat", '%(r)s %(U)s %(q)s %(a)s %(f)s %({x}i)s %(m)s %(u)s',
                      "--proxy-protocol", "app:app"], folder) as running:
            running.place = folder
            until(lambda: re.search(r"Listening at: .*?:(\d+)", log_of(running)), "a port")
            running.port = int(re.search(r"Listening at: .*?:(\d+)", log_of(running))[1])
            until(lambda: "Traces at: " in log_of(running), "a trace API")
            running.lines += log_of(running).splitlines()    # where api() looks for its address
            until(running._answers, "an answer")
            yield running


def log_of(running):
    file = running.place / "errors"
    return file.read_text(errors="replace") if file.exists() else ""


def calls_of(running):
    file = running.place / "calls"
    return file.stat().st_size if file.exists() else 0


def send(running, raw):
    return answers(exchange(("127.0.0.1", running.port), raw, half_close=True))


def count_of(running, what):
    return sum(worker[what] for worker in running.api("status")["workers"])


def spans_of_refusals(running, seen=()):
    """{trace id: (status, error.type)} of those that are not in `seen`."""
    found = {}
    for summary in running.api("traces?limit=1000")["traces"]:
        if summary["trace_id"] in seen or summary["status"] is None or summary["status"] < 400:
            continue
        for span in running.api("traces/" + summary["trace_id"])["spans"]:
            kind = span["attributes"].get("error.type", "")
            if kind.startswith("http.parse."):
                assert span["trace_id"] not in found, "two spans for one refusal"
                found[span["trace_id"]] = (span["attributes"]["http.response.status_code"], kind)
    return found


#: Every case of which the first request is refused.
REFUSED = [case for case in cases.CASES
           if case.policy == "strict" and len(case.answers) == 1 and case.answers != [200]]


def test_a_refusal_is_one_span_one_count_one_line_and_no_call(server):
    assert len(REFUSED) > 300
    seen = set(spans_of_refusals(server))
    counted, refused = count_of(server, "requests"), count_of(server, "refused")
    answered = count_of(server, "answered")
    called, warned = calls_of(server), log_of(server).count("Invalid request from")
    statuses = []
    for case in REFUSED:
        got = send(server, case.raw)
        assert len(got) == 1 and got[0][1]["connection"] == "close", case.name
        statuses.append(got[0][0])
    until(lambda: count_of(server, "requests") - counted >= len(REFUSED), "the count of requests")
    spans = until(lambda: (lambda found: found if len(found) >= len(REFUSED) else None)(
        spans_of_refusals(server, seen)), "a span for each")
    assert count_of(server, "requests") - counted == len(REFUSED)
    assert count_of(server, "refused") - refused == len(REFUSED)
    assert send(server, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")[0][0] == 200
    assert send(server, b"GET /raise HTTP/1.1\r\nHost: a\r\n\r\n")[0][0] == 500
    # One that the gateway refuses, when the head was good for the parser.
    contradiction = b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Ssl: on\r\n\r\n"
    assert send(server, contradiction)[0][0] == 400
    until(lambda: count_of(server, "answered") - answered == len(REFUSED) + 3, "the count of answers")
    assert count_of(server, "refused") - refused == len(REFUSED) + 1
    assert collections.Counter(status for status, _ in spans.values()) == collections.Counter(statuses)
    assert all(re.fullmatch(r"http\.parse\.[a-z0-9_]+", kind) for _, kind in spans.values())
    assert log_of(server).count("Invalid request from") - warned == len(REFUSED) + 1
    assert calls_of(server) == called + 2


#: Bytes that no log may hold as they are: all control bytes, and some of the upper half.
RAW = [bytes([byte]) for byte in [*range(0x20), 0x7F, 0x80, 0x85, 0x9B, 0xA0, 0xC2, 0xE9, 0xFF]]
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
PLACES = {
    "first byte": lambda byte: byte + HEAD + b"\r\n",
    "method": lambda byte: b"GE" + byte + b"T" + HEAD[3:] + b"\r\n",
    "target": lambda byte: HEAD.replace(b"/ ", b"/a" + byte + b"[31mb ") + b"\r\n",
    "version": lambda byte: HEAD.replace(b"1.1", b"1.1" + byte) + b"\r\n",
    "name": lambda byte: HEAD + b"X" + byte + b"Y: 1\r\n\r\n",
    "value": lambda byte: HEAD + b"X: a" + byte + b"b\r\n\r\n",
    "Host": lambda byte: HEAD.replace(b": a", b": a" + byte + b"b") + b"\r\n",
    "User-Agent and Referer":
        lambda byte: HEAD + b"User-Agent: a%sb\r\nReferer: c%sd\r\n\r\n" % (byte, byte),
    "Authorization": lambda byte: HEAD + b"Authorization: Basic a%sb\r\n\r\n" % byte,
    "Content-Length": lambda byte: HEAD + b"Content-Length: 1" + byte + b"\r\n\r\n",
    "Transfer-Encoding": lambda byte: HEAD + b"Transfer-Encoding: a" + byte + b"b\r\n\r\n",
    "Expect": lambda byte: HEAD + b"Expect: a" + byte + b"b\r\n\r\n",
    "chunk size": lambda byte: CHUNKED + byte + b"\r\n\r\n",
    "chunk extension": lambda byte: CHUNKED + b"0;a" + byte + b"\r\n\r\n",
    "trailer": lambda byte: CHUNKED + b"0\r\nX" + byte + b": " + byte + b"\r\n\r\n",
    "PROXY line": lambda byte: b"PROXY TCP4 1.2.3.4" + byte + b" 1.2.3.4 1 2\r\n" + HEAD + b"\r\n",
    "escaped in the target":
        lambda byte: HEAD.replace(b"/ ", b"/a%%%02x?%%%02x " % (byte[0], byte[0])) + b"\r\n",
    "escaped, and the application raises":
        lambda byte: HEAD.replace(b"/ ", b"/raise%%%02x " % byte[0]) + b"\r\n",
}


@pytest.mark.parametrize("place", PLACES)
def test_nothing_raw_gets_into_a_log(server, place):
    files = [server.place / "errors", server.place / "accesses"]
    before = [file.stat().st_size for file in files]
    counted = count_of(server, "requests")
    for byte in RAW:
        send(server, PLACES[place](byte))
    last = b"GET /the-last-one HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    assert send(server, last)[0][0] == 200
    until(lambda: b"/the-last-one" in files[1].read_bytes()[before[1]:], "the last line")
    assert count_of(server, "requests") > counted
    for file, start in zip(files, before):
        written = file.read_bytes()[start:]
        raw = sorted({byte for byte in written if byte != 10 and not 0x20 <= byte <= 0x7E})
        assert raw == [], (file.name, raw)
        # A line that a client made would begin otherwise.
        if file.name == "accesses":
            assert all(line.startswith((b"GE", b"POST "))
                       for line in written.splitlines())
