"""The applications that every server of the bench runs."""
import os

BODY = b"Hello, World!"
HEADERS = [("Content-Type", "text/plain"), ("Content-Length", str(len(BODY)))]
JSON_1K = b'{"items": [' + b", ".join(b'{"id": %d, "name": "item %d"}' % (i, i) for i in range(33)) + b"]}"
BIG = {10: b"x" * 10_240, 100: b"x" * 102_400}


def app(environ, start_response):
    """13 bytes, two headers."""
    start_response("200 OK", HEADERS)
    return [BODY]


def routes(environ, start_response):
    """/json, /10k, /100k, POST /echo-length, anything else says hello."""
    path = environ["PATH_INFO"]
    if path == "/json":
        body, kind = JSON_1K, "application/json"
    elif path == "/10k":
        body, kind = BIG[10], "text/plain"
    elif path == "/100k":
        body, kind = BIG[100], "text/plain"
    elif path == "/echo-length":
        count = 0
        while True:
            piece = environ["wsgi.input"].read(65536)
            if not piece:
                break
            count += len(piece)
        body, kind = str(count).encode(), "text/plain"
    elif path == "/pid":
        body, kind = str(os.getpid()).encode(), "text/plain"
    else:
        body, kind = BODY, "text/plain"
    start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body)))])
    return [body]
