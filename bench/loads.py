"""Loads: what clients do to a server, and whether it answered rightly.

Every load names one request as bytes and the reply it must get. It can be sent three ways: a
known number in turn over a few connections (counts that repeat: instructions), by wrk from
another core for some seconds (CPU time, system calls), or once as a check before anything is
measured, because a server that answers wrongly has no figures.
"""
import pathlib
import re
import socket
import subprocess
import tempfile
import time

HOST = b"Host: 127.0.0.1:8000\r\n"
BROWSER = (b"GET /index.html?from=search HTTP/1.1\r\nHost: shop.example.org\r\n"
           b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
           b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8\r\n"
           b"Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
           b"Connection: keep-alive\r\nCookie: session=8f14e45fceea167a5a36dedd4bea2543; theme=dark\r\n"
           b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nSec-Fetch-Mode: navigate\r\n"
           b"Sec-Fetch-Site: cross-site\r\nPriority: u=0, i\r\n\r\n")
CLIENT_CORE = "1"


class WrongAnswer(RuntimeError):
    pass


def get(path="/", *headers):
    return b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n"


def post(path, body_bytes):
    return (b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/octet-stream\r\n"
            b"Content-Length: %d\r\n\r\n" % body_bytes + b"u" * body_bytes)


def chunked(path, chunks, chunk_bytes):
    chunk = b"%x\r\n" % chunk_bytes + b"u" * chunk_bytes + b"\r\n"
    return (b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + b"Content-Type: application/octet-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunk * chunks + b"0\r\n\r\n")


class Load:
    """Small requests over kept connections, unless told otherwise.

    request      the bytes of one request
    body         what the reply's body must be; an int means only its length
    connections  how many are open under wrk
    deep         how many requests are sent at once before the first reply is read
    is_new       a new connection for every request (the request says `Connection: close`)
    batch        requests per count of instructions; as many as make the count steady
    """

    def __init__(self, request, body=b"Hello, World!", connections=64, deep=1, is_new=False, batch=800):
        self.request, self.body, self.connections = request, body, connections
        self.deep, self.is_new, self.batch = deep, is_new, batch

    # -- once, looked at -----------------------------------------------------------------------
    def check(self, port):
        """WrongAnswer unless the server answers as it must."""
        try:
            with connected(port, 10) as client:
                self._send(client)
                reader = Reader(client)
                for _ in range(self.deep):
                    reader.reply(self.body)
        except OSError as error:
            raise WrongAnswer(f"no right answer to the first request: {error}") from None

    def _send(self, client):
        client.sendall(self.request * self.deep)

    # -- a known number ------------------------------------------------------------------------
    def in_turn(self, port, count, connections=16):
        """At least `count` requests, one (or one pipeline) after the other; returns how many."""
        if self.is_new:
            for _ in range(count):
                with connected(port, 120) as client:
                    self._send(client)
                    Reader(client).reply(self.body)
            return count
        clients = [connected(port, 120) for _ in range(min(connections, self.connections))]
        readers = [Reader(client) for client in clients]
        turns = -(-count // self.deep)
        try:
            for turn in range(turns):
                self._send(clients[turn % len(clients)])
                for _ in range(self.deep):
                    readers[turn % len(clients)].reply(self.body)
        finally:
            for client in clients:
                client.close()
        return turns * self.deep

    # -- for a while ---------------------------------------------------------------------------
    def for_seconds(self, port, seconds):
        """wrk from the client's core; returns how many requests were answered."""
        with tempfile.NamedTemporaryFile(suffix=".request") as file:
            file.write(self.request * self.deep)
            file.flush()
            script = pathlib.Path(__file__).with_name("raw.lua")
            out = subprocess.run(["taskset", "-c", CLIENT_CORE, "wrk", "-t1", f"-c{self.connections}",
                                  f"-d{max(1, round(seconds))}s", "--timeout", "10s", "-s", str(script),
                                  f"http://127.0.0.1:{port}/", "--", file.name],
                                 capture_output=True, text=True, timeout=seconds + 60).stdout
        found = re.search(r"(\d+) requests in", out)
        if not found or int(found[1]) == 0:
            raise WrongAnswer("wrk got no answer: " + " ".join(out.split())[-200:])
        if "Non-2xx" in out:
            raise WrongAnswer(re.search(r"Non-2xx.*", out)[0])
        return int(found[1])


class Upload(Load):
    """One client that streams bodies too large to be held, one after the other."""

    PIECE = b"u" * (1 << 20)

    def __init__(self, path, megabytes):
        super().__init__(b"", body=str(megabytes << 20).encode(), connections=1, batch=1)
        self.megabytes = megabytes
        self.head = (b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST +
                     b"Content-Length: %d\r\n\r\n" % (megabytes << 20))

    def _send(self, client):
        client.settimeout(60)
        client.sendall(self.head)
        for _ in range(self.megabytes):
            client.sendall(self.PIECE)

    def for_seconds(self, port, seconds):
        """At least two uploads."""
        deadline = time.monotonic() + seconds
        answered = 0
        with connected(port, 60) as client:
            reader = Reader(client)
            while answered < 2 or time.monotonic() < deadline:
                self._send(client)
                reader.reply(self.body)
                answered += 1
        return answered


def connected(port, timeout_s):
    client = socket.create_connection(("127.0.0.1", port), timeout_s)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


class Reader:
    """Replies with a Content-Length, one by one from one connection; keeps what came too early."""

    def __init__(self, client):
        self.client, self.rest = client, b""

    def _more(self):
        piece = self.client.recv(1 << 20)
        if not piece:
            raise WrongAnswer("the server closed the connection")
        return piece

    def reply(self, wanted):
        """The next reply; WrongAnswer unless it is 200 with the wanted body (or length)."""
        data = self.rest
        while b"\r\n\r\n" not in data:
            data += self._more()
        head, _, data = data.partition(b"\r\n\r\n")
        if not re.match(rb"HTTP/1\.[01] 200\b", head):
            raise WrongAnswer("answered " + head.decode(errors="replace").splitlines()[0])
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not length:
            raise WrongAnswer("a reply without Content-Length")
        length = int(length[1])
        pieces, have = [data], len(data)
        while have < length:
            piece = self._more()
            pieces.append(piece)
            have += len(piece)
        if isinstance(wanted, int):
            body_fits = length == wanted
        else:
            data = b"".join(pieces)
            body_fits = data[:length] == wanted
        if not body_fits:
            raise WrongAnswer(f"a body of {length} bytes that is not the one wanted")
        self.rest = pieces[-1][len(pieces[-1]) - (have - length):] if have > length else b""
