"""Every case of cases.py against a running server, whole and one byte at a time.

Checked are the statuses in order, their number, that a refusal says and does close, and that no
byte behind a refusal is understood.
"""
import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import cases  # noqa: E402
from server import Server, answers, answers_if_whole, command, exchange  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")

#: Longer ones go in larger pieces: a megabyte of single bytes is a load, not a test.
BYTE_BY_BYTE_MAX = 4096
KINDS = {"sync": ("--worker-class", "sync"),
         "gthread": ("--worker-class", "gthread", "--threads", "4")}


def same_in_both(case):
    """Strict cases that the policy gunicorn may not loosen: chunks, limits, line ends."""
    return case.row in ("1.1", "1.7") and b"#" not in case.raw


def applies(case, policy):
    return case.policy == policy or case.policy == "strict" and same_in_both(case)


SERVERS = [(kind, policy) for kind in KINDS for policy in ("strict", "gunicorn")]
#: (server, case, how), only what applies; a server serves all its cases before the next starts.
ROWS = [(pair, case, how) for pair in SERVERS for case in cases.CASES if applies(case, pair[1])
        for how in ("whole", "bytes")]


def is_quick(pair, case, how):
    """Each case once in both ways; in threads, where only the way of the bytes differs, whole."""
    kind, policy = pair
    return policy == case.policy and (kind == "sync" or policy == "strict" and how == "whole")


@pytest.fixture(scope="module", params=SERVERS, ids="-".join)
def running(request):
    kind, policy = request.param
    with Server(*KINDS[kind], "--keep-alive", "5", "--http-policy", policy) as server:
        server.policy = policy
        yield server


def check_answers(case, got):
    assert len(got) == len(case.answers), [status for status, _, _ in got]
    echoes = []
    for (status, headers, body), wanted in zip(got, case.answers):
        assert status in (wanted if isinstance(wanted, tuple) else (wanted,))
        if status == 200:
            echoes.append(json.loads(body))
        else:
            assert headers.get("connection") == "close"
    assert len(echoes) >= len(case.sees)
    for echo, seen in zip(echoes, case.sees):
        assert {key: echo[key] for key in seen} == seen


def run(server, case, pieces):
    wanted = len(case.answers)
    if case.end == cases.CLOSED:
        # To the end of the connection: a further answer would be seen.
        got = answers(exchange(server.address, case.raw, pieces=pieces))
    elif case.end == cases.OPEN:
        # The connection is kept: another request on it is answered as its own, and then closed.
        last = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        got = answers(exchange(server.address, case.raw + last, pieces=pieces))
        assert got, "no answer at all"
        status, _, body = got.pop()
        assert status == 200 and json.loads(body)["raw"] == "/last"
    else:
        # Half a request, then the client leaves: nothing may have been taken for a whole one.
        got = answers(exchange(server.address, case.raw, pieces=pieces, half_close=True))
        assert 200 not in [status for status, _, _ in got]
        assert len(got) <= 1
        return
    check_answers(case, got)
    assert len(got) == wanted


@pytest.mark.parametrize("running, case, how",
                         [pytest.param(*row, marks=[] if is_quick(*row) else pytest.mark.slow)
                          for row in ROWS],
                         indirect=["running"], scope="module",
                         ids=[f"{'-'.join(pair)} {case.row} {case.name}, {how}"
                              for pair, case, how in ROWS])
def test_row(running, case, how):
    pieces = None
    if how == "bytes":
        pieces = 1 if len(case.raw) <= BYTE_BY_BYTE_MAX else 997
    run(running, case, pieces)


def test_100_continue_comes_only_when_the_application_reads(running):
    """The body is withheld until 100 was seen; then one 200 comes."""
    for value in (b"100-continue", b"100-Continue"):
        head = (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: " + value +
                b"\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")
        data = exchange(running.address, head,
                        until=lambda got: got.startswith(b"HTTP/1.1 100 ") and
                        got.endswith(b"\r\n\r\n"))
        assert data.startswith(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert answers_if_whole(data) == []


def refused_once(got):
    """One 400 that closes."""
    [(status, headers, _)] = got
    return status == 400 and headers.get("connection") == "close"


@pytest.mark.parametrize("length, sent", [(9, 5), (9, 0), (3000000, 2000000)])
def test_a_body_that_ends_early_is_answered_with_400(running, length, sent):
    raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % length + b"x" * sent
    assert refused_once(answers(exchange(running.address, raw, half_close=True)))


def test_a_chunked_body_that_ends_early_is_answered_with_400(running):
    for body in (b"", b"5", b"5\r\nhel", b"5\r\nhello\r\n", b"5\r\nhello\r\n0\r\n",
                 b"5\r\nhello\r\n0\r\nX: y\r\n"):
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + body
        assert refused_once(answers(exchange(running.address, raw, half_close=True))), body


def test_a_target_is_raw_in_raw_uri_and_decoded_in_path_info(running):
    raw = b"GET /a%20b%zz%00?c%20d HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    [(status, _, body)] = answers(exchange(running.address, raw))
    echo = json.loads(body)
    assert status == 200
    assert (echo["raw"], echo["path"], echo["query"]) == ("/a%20b%zz%00?c%20d", "/a b%zz\0",
                                                          "c%20d")


def test_underscore_fields_never_reach_the_environ(running):
    raw = (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\nX_Y: 1\r\nX-Z: 2\r\n"
           b"Content_Length: 1\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
    [(status, _, body)] = answers(exchange(running.address, raw))
    echo = json.loads(body)
    assert (status, echo["body"]) == (200, "hello")
    assert "HTTP_TRANSFER_ENCODING" not in echo["headers"]
    assert "HTTP_X_Y" not in echo["headers"] and echo["headers"]["HTTP_X_Z"] == "2"
    assert echo["headers"]["CONTENT_LENGTH"] == "5"


UNREAD = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''


@pytest.mark.parametrize("kind", KINDS)
def test_an_unread_body_is_drained_or_the_connection_closes(kind):
    """What the application leaves is never read as the next request."""
    second = b"GET /second HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with Server(*KINDS[kind], "--keep-alive", "5", app=UNREAD) as server:
        for count, wanted in ((1000, [2]), (60000, [2]), (2000000, [2])):
            smuggled = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
            body = (smuggled * (count // len(smuggled) + 1))[:count]
            assert len(body) == count
            raw = (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % count
                   + body + second)
            got = answers(exchange(server.address, raw))
            assert len(got) in wanted + [1], count
            assert {status for status, _, _ in got} == {200}
