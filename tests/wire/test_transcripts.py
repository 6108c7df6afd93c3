"""Replies to the byte: what a client reads is written out here, all of it but the date.

Each transcript is one connection on which the client closes its side last; both kinds of worker
give the same bytes.
"""
import os
import re
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from harness import Running, app_folder  # noqa: E402
from server import exchange  # noqa: E402

APP = '''
import io

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/one":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]
    if path == "/length":
        start_response("201 Made", [("X-Lower-And-Upper", " v "), ("content-length", "5")])
        return [b"he", b"llo"]
    if path == "/stream":
        start_response("200 OK", [("A", "1"), ("A", "2")])
        return iter([b"hello", b"", b"0123456789abcdef"])
    if path == "/write":
        write = start_response("200 OK", [])
        write(b"one")
        return [b"two"]
    if path == "/none":
        start_response("200 OK", [])
        return []
    if path.startswith("/status"):
        start_response(path[7:] + " Said So", [("Content-Length", "3")])
        return [b"abc"]
    if path == "/file":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](open("app.py", "rb"), 10)
    if path == "/memory":
        start_response("200 OK", [("Content-Length", "6")])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"0123456789"), 4)
    if path == "/long":
        start_response("200 OK", [("Content-Length", "3")])
        return [b"hello"]
    if path == "/short":
        start_response("200 OK", [("Content-Length", "30")])
        return [b"hello"]
    if path == "/late":
        start_response("200 OK", [])
        return broken()
    if path == "/echo":
        body = environ["wsgi.input"].read()
        start_response("200 OK", [])
        return [body]
    raise LookupError(path)

def broken():
    yield b"part"
    raise ValueError("in the middle")
'''
KINDS = {"sync": ["-k", "sync", "--keep-alive", "5"],
         "gthread": ["-k", "gthread", "--threads", "4"]}
OWN = b"Server: ctserve\r\nDate: DATE\r\nConnection: %s\r\n"
KEPT, CLOSED = OWN % b"keep-alive", OWN % b"close"
PAGE = (b"<html>\n  <head>\n    <title>%s</title>\n  </head>\n  <body>\n    <h1>%s</h1>\n"
        b"    <p>%s</p>\n  </body>\n</html>\n")


def page(status, reason, detail):
    body = PAGE % (reason, reason, detail)
    return (b"HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: text/html\r\n"
            b"Content-Length: %d\r\n\r\n" % (status, reason, len(body)) + body)


def ask(method, path, *fields, version=b"1.1", body=b""):
    return b"\r\n".join((method + b" " + path + b" HTTP/" + version, b"Host: a") + fields) \
        + b"\r\n\r\n" + body


def get(path, *fields):
    return ask(b"GET", path, *fields)


CLOSE = b"Connection: close"
ONE = b"HTTP/1.1 200 OK\r\n%sContent-Type: text/plain\r\nContent-Length: 5\r\n\r\n"
APP_BYTES = APP.encode()
TRANSCRIPTS = {
    "a list of one gets a length": (get(b"/one"), ONE % KEPT + b"hello"),
    "Connection: close is said back": (get(b"/one", CLOSE), ONE % CLOSED + b"hello"),
    "two in a row": (get(b"/one") + get(b"/one", CLOSE),
                     ONE % KEPT + b"hello" + ONE % CLOSED + b"hello"),
    "HEAD of a list of one": (ask(b"HEAD", b"/one"),
                              b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Type: text/plain\r\n\r\n"),
    "HEAD, and the next request": (ask(b"HEAD", b"/length") + get(b"/one"),
                                   b"HTTP/1.1 201 Made\r\n" + KEPT +
                                   b"X-Lower-And-Upper: v\r\ncontent-length: 5\r\n\r\n" +
                                   ONE % KEPT + b"hello"),
    "a length of the application": (get(b"/length"), b"HTTP/1.1 201 Made\r\n" + KEPT +
                                    b"X-Lower-And-Upper: v\r\ncontent-length: 5\r\n\r\nhello"),
    "a generator is chunked": (get(b"/stream"), b"HTTP/1.1 200 OK\r\n" + KEPT +
                               b"Transfer-Encoding: chunked\r\nA: 1\r\nA: 2\r\n\r\n"
                               b"5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"),
    "a generator for HTTP/1.0 ends with the connection":
        (ask(b"GET", b"/stream", b"Connection: keep-alive", version=b"1.0"),
         b"HTTP/1.0 200 OK\r\n" + CLOSED + b"A: 1\r\nA: 2\r\n\r\nhello0123456789abcdef"),
    "HTTP/1.0 is kept when asked": (ask(b"GET", b"/one", b"Connection: keep-alive", version=b"1.0")
                                    + ask(b"GET", b"/one", version=b"1.0"),
                                    (ONE % KEPT + b"hello" + ONE % CLOSED + b"hello").replace(
                                        b"HTTP/1.1", b"HTTP/1.0")),
    "write, then a list": (get(b"/write"), b"HTTP/1.1 200 OK\r\n" + KEPT +
                           b"Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
    "no body": (get(b"/none"), b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 0\r\n\r\n"),
    "204 has neither length nor body": (get(b"/status204") + get(b"/none"),
                                        b"HTTP/1.1 204 Said So\r\n" + KEPT + b"\r\n"
                                        b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 0\r\n\r\n"),
    "304 has no body": (get(b"/status304") + get(b"/none"),
                        b"HTTP/1.1 304 Said So\r\n" + KEPT + b"Content-Length: 3\r\n\r\n"
                        b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 0\r\n\r\n"),
    "a status nobody knows": (get(b"/status799"), b"HTTP/1.1 799 Said So\r\n" + KEPT +
                              b"Content-Length: 3\r\n\r\nabc"),
    "a file": (get(b"/file"), b"HTTP/1.1 200 OK\r\n" + KEPT +
               b"Content-Length: %d\r\n\r\n" % len(APP_BYTES) + APP_BYTES),
    "a file in memory is cut at its length": (get(b"/memory"), b"HTTP/1.1 200 OK\r\n" + KEPT +
                                              b"Content-Length: 6\r\n\r\n012345"),
    "a body is cut at its length": (get(b"/long") + get(b"/none"),
                                    b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 3\r\n\r\nhel"
                                    b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 0\r\n\r\n"),
    "a body that is too short ends the connection":
        (get(b"/short") + get(b"/none"),
         b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 30\r\n\r\nhello"),
    "a failure within the body has no last chunk":
        (get(b"/late") + get(b"/none"), b"HTTP/1.1 200 OK\r\n" + KEPT +
         b"Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n"),
    "a failure before the head": (get(b"/nowhere") + get(b"/none"),
                                  page(500, b"Internal Server Error", b"")),
    "a body comes back": (ask(b"POST", b"/echo", b"Content-Length: 3", body=b"abc"),
                          b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 3\r\n\r\nabc"),
    "a chunked body comes back":
        (ask(b"POST", b"/echo", b"Transfer-Encoding: chunked", body=b"3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n"),
         b"HTTP/1.1 200 OK\r\n" + KEPT + b"Content-Length: 3\r\n\r\nabc"),
    "a refused name": (get(b"/one", b"X : 1") + get(b"/one"),
                       page(400, b"Bad Request", b"bad_field_name")),
    "a request, then a refused one": (get(b"/one") + b"\x16\x03\x01",
                                      ONE % KEPT + b"hello" + page(400, b"Bad Request", b"bad_method")),
    "an unknown coding": (get(b"/one", b"Transfer-Encoding: gzip"),
                          page(501, b"Not Implemented", b"unknown_transfer_coding")),
    "an expectation nobody can meet": (get(b"/one", b"Expect: tea"),
                                       page(417, b"Expectation Failed", b"unknown_expectation")),
    "a line that is too long": (get(b"/" + b"a" * 9000), page(414, b"URI Too Long", b"line_too_long")),
    "a field that is too long": (get(b"/", b"X: " + b"a" * 9000),
                                 page(431, b"Request Header Fields Too Large", b"field_too_long")),
    "another version": (ask(b"GET", b"/", version=b"2.0"),
                        page(505, b"HTTP Version Not Supported", b"unknown_version")),
}
DATE = re.compile(rb"\r\nDate: (?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} "
                  rb"\d\d:\d\d:\d\d GMT\r\n")


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with app_folder(APP) as folder:
        with Running(["-w", "1", *KINDS[request.param], "--trace-api", "off", "app:app"],
                     folder) as running:
            yield running.ready()


@pytest.mark.parametrize("name", TRANSCRIPTS)
@pytest.mark.parametrize("pieces", [None, 1], ids=["whole", "bytes"])
def test_transcript(server, name, pieces):
    asked, wanted = TRANSCRIPTS[name]
    if pieces == 1 and len(asked) > 4000:
        pieces = 997
    data = exchange(("127.0.0.1", server.port), asked, pieces=pieces, half_close=True)
    assert DATE.sub(b"\r\nDate: DATE\r\n", data) == wanted
