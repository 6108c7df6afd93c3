"""The plain WSGI applications that every server of the bench runs."""
import os
import time

BODY = b"Hello, World!"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
JSON_1K = b'{"items": [' + b", ".join(b'{"id": %d, "name": "item %d"}' % (i, i) for i in range(33)) + b"]}"
PLAIN = {f"/{kilobytes}k": b"x" * (kilobytes * 1024) for kilobytes in (10, 100, 256)}


def app(environ, start_response):
    """13 bytes, two headers."""
    start_response("200 OK", HEADERS)
    return [BODY]


def sleeping(environ, start_response):
    """The same after a millisecond of waiting, as for a database."""
    time.sleep(0.001)
    start_response("200 OK", HEADERS)
    return [BODY]


def routes(environ, start_response):
    """/json, /10k, /100k, /256k, /count (bytes of the request body), /pid, /file; anything else
    says hello."""
    path = environ["PATH_INFO"]
    kind = "text/plain"
    if path in PLAIN:
        body = PLAIN[path]
    elif path == "/json":
        body, kind = JSON_1K, "application/json"
    elif path == "/count":
        body = str(counted(environ["wsgi.input"])).encode()
    elif path == "/pid":
        body = str(os.getpid()).encode()
    elif path == "/file":
        return file_reply(environ, start_response)
    else:
        body = BODY
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]


class Closing:
    """A reply that is not a list and has a close(), as frameworks return."""

    was_closed = False

    def __iter__(self):
        yield BODY

    def close(self):
        Closing.was_closed = True


def closing(environ, start_response):
    """hello with a close() that PEP 3333 obliges the server to call; /closed says whether it ever did."""
    if environ["PATH_INFO"] == "/closed":
        body = b"yes" if Closing.was_closed else b"no"
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    start_response("200 OK", HEADERS)
    return Closing()


def counted(stream):
    """How many bytes the stream has, read in pieces."""
    count = 0
    while True:
        piece = stream.read(65536)
        if not piece:
            return count
        count += len(piece)


def file_reply(environ, start_response):
    """The file that BENCH_FILE names, through wsgi.file_wrapper where the server has one."""
    stream = open(os.environ["BENCH_FILE"], "rb")
    start_response("200 OK", [("Content-Type", "application/octet-stream"),
                              ("Content-Length", str(os.fstat(stream.fileno()).st_size))])
    if "wsgi.file_wrapper" in environ:
        return environ["wsgi.file_wrapper"](stream, 65536)
    return iter(lambda: stream.read(65536), b"")
