"""Slow and greedy clients: none occupies a thread, whatever it is slow with, and each gets exactly
what it asked for in the end. The servers here have one worker with one thread."""
import hashlib
import json
import os
import pathlib
import resource
import socket
import subprocess
import sys

import pytest

from harness import ROOT, Running, app_folder, sweep, until
from test_connection import Replies, connect, get

MANY = 1000
APP = r'''
import hashlib, random

BYTES = random.Random(4).randbytes(6_000_000)
PIECES = [BYTES[i:i + 100_000] for i in range(0, len(BYTES), 100_000)]
with open("file", "wb") as file:
    file.write(b"before" + BYTES)
ended = []

class Stream:
    def __init__(self, name, pieces):
        self.name, self.pieces = name, iter(pieces)
    def __iter__(self):
        return self.pieces
    def close(self):
        ended.append(self.name)

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/ended":
        body = ",".join(ended).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/sha":
        read = hashlib.sha256()
        while piece := environ["wsgi.input"].read(50_000):
            read.update(piece)
        body = read.hexdigest().encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/256k":
        start_response("200 OK", [("Content-Type", "x/y")])
        return [BYTES[:1 << 18]]
    if path == "/list":
        start_response("200 OK", [("Content-Type", "x/y")])
        ended.append(path)
        return [BYTES]
    if path == "/pieces":
        start_response("200 OK", [("Content-Type", "x/y")])
        ended.append(path)
        return list(PIECES)
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "x/y")])
        return Stream(path, PIECES)
    if path == "/length":
        start_response("200 OK", [("Content-Length", str(len(BYTES)))])
        return Stream(path, PIECES)
    if path == "/endless":
        start_response("200 OK", [("Content-Type", "x/y")])
        return Stream(path, iter(lambda: b"again", None))
    if path == "/write":
        write = start_response("200 OK", [("Content-Type", "x/y")])
        for piece in PIECES:
            write(piece)
        ended.append(path)
        return []
    if path == "/file":
        start_response("200 OK", [("Content-Type", "x/y")])
        file = open("file", "rb")
        file.read(6)
        close = file.close
        class File:
            read, fileno, tell = file.read, file.fileno, file.tell
            def close(self):
                close()
                ended.append("/file")
        return environ["wsgi.file_wrapper"](File(), 65536)
    start_response("200 OK", [("Content-Length", "6")])
    return [b"hello\n"]
'''
KINDS = {"sync": ["-w", "1", "--threads", "1", "--keep-alive", "5"],
         "gthread": ["-w", "1", "-k", "gthread", "--threads", "1", "--keep-alive", "5",
                     "--worker-connections", "4096"]}
REPLIES = ["/list", "/pieces", "/stream", "/length", "/write", "/file"]


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with app_folder(APP) as folder:
        with Running([*KINDS[request.param], "--trace-api", "off", "app:app"], folder) as running:
            running.folder = folder
            yield running.ready()


def body_of(server):
    return (server.folder / "file").read_bytes()[6:]


def reads_at_last(client):
    """From now on it takes what comes."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    return Replies(client)


def slow_reader(server, path):
    """A client whose window takes a few kilobytes and who reads nothing."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(60)
    client.connect(("127.0.0.1", server.port))
    client.sendall(get(path))
    return client


@pytest.mark.parametrize("path", REPLIES)
def test_an_application_is_done_before_its_client_has_read_and_the_client_gets_it_all(server, path):
    before = server.get("/ended").decode().split(",").count(path)
    with slow_reader(server, path) as client:
        until(lambda: server.get("/ended").decode().split(",").count(path) == before + 1,
              "the application is done")
        replies = reads_at_last(client)
        status, _, body = replies.next()
        assert status == 200
        assert hashlib.sha256(body).digest() == hashlib.sha256(body_of(server)).digest()
        client.sendall(get())
        assert replies.next()[2] == b"hello\n"


def test_replies_that_wait_leave_in_the_order_of_the_requests(server):
    with slow_reader(server, "/stream") as client:
        client.sendall(get("/file") + get("/list") + get("/write") + get())
        replies = reads_at_last(client)
        wanted = body_of(server)
        for _ in range(4):
            assert replies.next()[2] == wanted
        assert replies.next()[2] == b"hello\n"


@pytest.mark.parametrize("path", REPLIES)
def test_a_client_that_leaves_while_its_reply_waits_harms_nobody(server, path):
    before = server.get("/ended").decode().split(",").count(path)
    with slow_reader(server, path):
        until(lambda: server.get("/ended").decode().split(",").count(path) == before + 1,
              "the application is done")
    for _ in range(3):
        assert server.get("/") == b"hello\n"


def test_an_endless_reply_is_closed_when_its_client_leaves(server):
    before = server.get("/ended").decode().split(",").count("/endless")
    with connect(server) as client:
        client.sendall(get("/endless"))
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    until(lambda: server.get("/ended").decode().split(",").count("/endless") == before + 1,
          "the iterable is closed")


def spools(pid):
    """Nameless files that a process has open."""
    found = 0
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue
        found += target.startswith(("/tmp/#", "/tmp/ctserve-")) and target.endswith("(deleted)")
    return found


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_body_waits_on_the_disk_and_arrives_whole(server, chunked):
    body = body_of(server)
    with connect(server) as client:
        if chunked:
            wire = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 70001]), body[i:i + 70001])
                            for i in range(0, len(body), 70001)) + b"0\r\n\r\n"
            head = b"POST /sha HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
        else:
            wire = body
            head = b"POST /sha HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(body)
        client.sendall(head + wire[:3_000_000])
        pid = server.workers()[0]
        until(lambda: spools(pid) == 1, "a spool")
        assert server.get("/") == b"hello\n"
        client.sendall(wire[3_000_000:] + get())
        replies = Replies(client)
        assert replies.next()[2] == hashlib.sha256(body).hexdigest().encode()
        assert replies.next()[2] == b"hello\n"
        until(lambda: spools(pid) == 0, "no spool")


@pytest.mark.parametrize("length", [32_768, 70_000, 1_000_000, 1 << 20])
def test_a_body_in_pieces_that_fits_in_memory_arrives_whole(server, length):
    body = body_of(server)[:length]
    with connect(server) as client:
        client.sendall(b"POST /sha HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % length)
        client.sendall(body[:10])
        client.sendall(body[10:] + get())
        replies = Replies(client)
        assert replies.next()[2] == hashlib.sha256(body).hexdigest().encode()
        assert replies.next()[2] == b"hello\n"


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"{wanted} descriptors are needed, the limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("many", sweep([MANY // 10, MANY], quick=[MANY // 10]))
def test_thousands_of_slow_clients_at_once_and_a_good_one_is_served(server, many_descriptors, many):
    """bench/slow_clients.py: 1,000 slow heads, 1,000 slow bodies and 1,000 slow readers, each of
    them doing a small step a second. And some that read nothing of what no kernel takes at once."""
    greedy = [slow_reader(server, path) for path in REPLIES]
    slow = subprocess.Popen([sys.executable, str(pathlib.Path(ROOT, "bench", "slow_clients.py")),
                             str(server.port), str(many)],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert slow.stdout.readline() == "ready\n"
        with connect(server) as client:
            replies = Replies(client)
            for _ in range(200):
                client.sendall(get())
                assert replies.next()[2] == b"hello\n"
        for _ in range(50):
            assert server.get("/") == b"hello\n"
    finally:
        told, _ = slow.communicate()
        for client in greedy:
            client.close()
    # One that did not get in within its fifth of a second tries again a second later.
    assert json.loads(told)["connected"] >= 3 * many * 0.99, told
