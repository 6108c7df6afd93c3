"""An application that goes every way through the gateway, and one request for each of them.

The application tells the total of all references, or of memory blocks where the interpreter does
not count references, after garbage collections.
"""

import socket

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
    if path == "/hints":
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload"), (b"X-B", b"1")])
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
def post_request(worker, req, environ, resp): str(resp.status); environ.get("x"); len(req.trailers)
def child_exit(server, worker):
    for _ in range(3):
        gc.collect()
    with open("master-total", "a") as file:
        file.write("%d\\n" % total())
def pre_fork(server, worker): worker.mine = [worker]
'''


def request(line, body=b"", fields=(), chunked=False, trailers=b""):
    head = [line + " HTTP/1.1", "Host: refs.test", "Cookie: a=b; c=d", "X-Other: 1", *fields]
    if chunked:
        head.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%s\r\n0\r\n%s\r\n" % (len(body), body, trailers)
    elif body:
        head.append("Content-Length: %d" % len(body))
    head.append("Connection: close")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


KINDS = {
    "plain": request("GET /hello?a=b"),
    "percent signs in the path": request("GET /h%C3%A4llo%20x?q=%41"),
    "head only": request("HEAD /hello"),
    "a body that is read": request("POST /read", b"0123456789" * 300),
    "a body that is not read": request("POST /hello", b"0123456789" * 300),
    "a chunked body": request("POST /read", b"0123456789" * 30, chunked=True),
    "a chunked body with trailers": request("POST /read", b"0123456789" * 30, chunked=True,
                                            trailers=b"X-Sum: 1\r\nX-Other: \xe9\r\n"),
    "a long chunked body": request("POST /read", b"0123456789" * 120000, chunked=True,
                                   trailers=b"X-Sum: 1\r\n"),
    "a body read by lines": request("POST /lines", b"one\ntwo\nthree\n"),
    "expect 100-continue": request("POST /read", b"body", ["Expect: 100-continue"]),
    "an iterator with close": request("GET /streamed"),
    "write()": request("GET /write"),
    "early hints": request("GET /hints"),
    "a file": request("GET /file"),
    "an exception before the head": request("GET /raise"),
    "an exception after the head": request("GET /broken"),
    "start_response with exc_info": request("GET /exc-info"),
    "a bad status": request("GET /bad-status"),
    "a bad header": request("GET /bad-header"),
    "a bad request": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "a client that leaves early": b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\nab",
    "traced from outside": request("GET /hello", fields=[
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
}


def connected(where):
    """To a port of the loopback, or to the path of a unix socket."""
    if isinstance(where, int):
        return socket.create_connection(("127.0.0.1", where), 30)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(30)
    client.connect(str(where))
    return client


def exchange(where, raw):
    with connected(where) as client:
        client.settimeout(30)
        parts = []
        try:
            client.sendall(raw)
            client.shutdown(socket.SHUT_WR)
            while True:
                part = client.recv(65536)
                if not part:
                    break
                parts.append(part)
        except TimeoutError:
            raise
        except OSError:   # the server may end a connection in the middle of a request
            pass
        return b"".join(parts)


def total_of(where):
    """As the second of two questions: what the worker keeps of the request before (its environ) is
    of the first one then, whatever came before that."""
    exchange(where, request("GET /total"))
    return int(exchange(where, request("GET /total")).rpartition(b"\r\n\r\n")[2])
