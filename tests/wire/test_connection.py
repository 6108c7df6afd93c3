"""One client and the worker that serves it: pipelining, slow and rude clients, bodies, time limits,
leaving. Every case runs against both kinds of worker, over raw sockets."""
import concurrent.futures
import os
import pathlib
import re
import resource
import signal
import socket
import struct
import time

import pytest

from harness import SANITIZED, Running, app_folder, sweep, until

APP = """
import time

def app(environ, start_response):
    path = environ["PATH_INFO"]
    body = b"hello\\n"
    if path == "/echo":
        body = environ["wsgi.input"].read()
    elif path in ("/sleep", "/wait"):
        time.sleep(int(environ["QUERY_STRING"]) / 1000)
        body = b"slept\\n"
    elif path == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"piece\\n"] * 3)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""

KINDS = {
    "sync": ["-w", "1", "--keep-alive", "5"],
    "gthread": ["-w", "1", "-k", "gthread", "--threads", "4", "--keep-alive", "5"],
    "gthread-1": ["-w", "1", "-k", "gthread", "--threads", "1", "--keep-alive", "5"],
}


@pytest.fixture(scope="module")
def folder():
    with app_folder(APP) as made:
        yield made


@pytest.fixture(scope="module", params=KINDS)
def server(request, folder):
    with Running(KINDS[request.param] + ["--trace-api", "off", "app:app"], folder) as running:
        yield running.ready()


@pytest.fixture(params=["sync", "gthread"])
def own_server(request, folder):
    """A server of its own for a test that ends or bends it: call it with more arguments."""
    started = []

    def start(*more):
        running = Running(KINDS[request.param] + ["--trace-api", "off", *more, "app:app"], folder)
        started.append(running)
        return running.ready()

    yield start
    for running in started:
        running.__exit__(None, None, None)


def connect(server, timeout=30):
    client = socket.create_connection(("127.0.0.1", server.port), timeout)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def get(path="/", more=b""):
    return b"GET " + path.encode() + b" HTTP/1.1\r\nHost: t\r\n" + more + b"\r\n"


def post(body, path="/echo", more=b""):
    return (b"POST " + path.encode() + b" HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n" % len(body)
            + more + b"\r\n" + body)


class Replies:
    """Replies of one connection, one after another."""

    def __init__(self, client):
        self.client, self.bytes = client, b""

    def _more(self):
        piece = self.client.recv(65536)
        self.bytes += piece
        return bool(piece)

    def _until(self, mark):
        while mark not in self.bytes:
            if not self._more():
                raise EOFError(self.bytes)
        taken, self.bytes = self.bytes.split(mark, 1)
        return taken

    def _exactly(self, count):
        pieces, have = [self.bytes], len(self.bytes)
        while have < count:
            piece = self.client.recv(65536)
            if not piece:
                raise EOFError(b"".join(pieces))
            pieces.append(piece)
            have += len(piece)
        whole = b"".join(pieces)
        taken, self.bytes = whole[:count], whole[count:]
        return taken

    def next(self):
        """(status, head, body)"""
        head = self._until(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if status in (100, 204, 304):
            return status, head, b""
        if length:
            return status, head, self._exactly(int(length[1]))
        body = b""
        while True:
            size = int(self._until(b"\r\n"), 16)
            body += self._exactly(size)
            self._exactly(2)
            if size == 0:
                return status, head, body

    def rest(self):
        """Everything up to the end; b"" when the peer just closed."""
        try:
            while self._more():
                pass
        except ConnectionResetError:
            pass
        taken, self.bytes = self.bytes, b""
        return taken


def worker_of(server):
    """The process that serves (a single process serves by itself)."""
    found = server.workers()
    return found[0] if found else server.process.pid


# -- requests in order ---------------------------------------------------------------------------
def test_sixteen_pipelined_requests_in_one_segment_are_answered_in_order(server):
    with connect(server) as client:
        client.sendall(b"".join(post(b"number %d" % i) for i in range(16)))
        replies = Replies(client)
        assert [replies.next()[2] for _ in range(16)] == [b"number %d" % i for i in range(16)]


def test_sixteen_pipelined_requests_one_byte_per_segment_are_answered_in_order(server):
    with connect(server) as client:
        wire = b"".join(post(b"%d" % i) for i in range(16))
        for i in range(len(wire)):
            client.sendall(wire[i:i + 1])
        replies = Replies(client)
        assert [replies.next()[2] for _ in range(16)] == [b"%d" % i for i in range(16)]


def test_two_thousand_pipelined_requests_are_all_answered(server):
    with connect(server) as client:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(client.sendall, get() * 2000)
            replies = Replies(client)
            assert all(replies.next()[0] == 200 for _ in range(2000))
            sent.result()


@pytest.mark.parametrize("cut", [1, 20, 45, 70])
def test_a_request_in_two_segments_is_served_like_one(server, cut):
    wire = post(b"abcdefgh", more=b"X-Long: 12345678\r\n")
    with connect(server) as client:
        client.sendall(wire[:cut])
        client.sendall(wire[cut:])
        assert Replies(client).next()[2] == b"abcdefgh"


def test_a_valid_request_and_then_garbage_give_200_400_and_the_end(server):
    with connect(server) as client:
        client.sendall(get() + b"\x01\x02\r\n\r\n" + get())
        replies = Replies(client)
        assert replies.next()[0] == 200
        assert replies.next()[0] == 400
        assert replies.rest() == b""


def test_a_refused_request_ends_the_connection_and_nothing_after_it_is_served(server):
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\nHost: t\n\n" + get())
        replies = Replies(client)
        status, head, _ = replies.next()
        assert status == 400 and b"connection: close" in head.lower()
        client.sendall(get())
        assert replies.rest() == b""


def test_connection_close_is_obeyed_and_a_request_behind_it_is_not_served(server):
    with connect(server) as client:
        client.sendall(get(more=b"Connection: close\r\n") + get())
        replies = Replies(client)
        assert replies.next()[0] == 200
        assert replies.rest() == b""


def test_http_1_0_closes_and_keeps_only_when_asked(server):
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        replies = Replies(client)
        assert replies.next()[0] == 200
        assert replies.rest() == b""


# -- ends ----------------------------------------------------------------------------------------
def test_a_request_with_the_end_of_stream_right_behind_it_is_answered(server):
    with connect(server) as client:
        client.sendall(get("/wait?50"))
        client.shutdown(socket.SHUT_WR)
        replies = Replies(client)
        assert replies.next()[0] == 200
        assert replies.rest() == b""


def test_clients_that_reset_in_the_middle_of_anything_harm_nobody(server):
    for wire in (b"GET / HT", post(b"12345")[:-2], get("/wait?20"), get("/stream"), get() * 50):
        for _ in range(10):
            client = connect(server)
            client.sendall(wire)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
    with connect(server) as client:
        client.sendall(get())
        assert Replies(client).next()[0] == 200


def test_an_end_of_stream_inside_the_head_closes_silently(server):
    with connect(server) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHos")
        client.shutdown(socket.SHUT_WR)
        assert Replies(client).rest() == b""


# -- bodies --------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", [0, 1, 70000, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 3_000_000])
def test_a_body_of_any_size_arrives_whole_and_the_connection_goes_on(server, size):
    body = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    with connect(server) as client:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(client.sendall, post(body) + get())
            replies = Replies(client)
            assert replies.next()[2] == body
            assert replies.next()[2] == b"hello\n"
            sent.result()


def chunked(pieces):
    return (b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in pieces) + b"0\r\n\r\n")


@pytest.mark.parametrize("pieces", [[], [b"a"], [b"abc", b"x" * 5000, b"z"], [b"y" * 60000] * 40])
def test_a_chunked_body_arrives_whole_and_the_next_request_is_served(server, pieces):
    with connect(server) as client:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            sent = pool.submit(client.sendall, chunked(pieces) + get())
            replies = Replies(client)
            assert replies.next()[2] == b"".join(pieces)
            assert replies.next()[2] == b"hello\n"
            sent.result()


def test_a_chunked_body_byte_by_byte_arrives_whole(server):
    with connect(server) as client:
        for byte in chunked([b"abc", b"0123456789abcdef"]) + get():
            client.sendall(bytes([byte]))
        replies = Replies(client)
        assert replies.next()[2] == b"abc0123456789abcdef"
        assert replies.next()[2] == b"hello\n"


@pytest.mark.parametrize("wire", [
    b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nshort",
    b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1_500_000,
    b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
])
def test_a_body_that_ends_early_is_never_answered_with_2xx(server, wire):
    with connect(server) as client:
        client.sendall(wire)
        client.shutdown(socket.SHUT_WR)
        answer = Replies(client).rest()
        assert not answer.startswith(b"HTTP/1.1 2"), answer[:200]


def test_a_bad_chunk_gets_one_400_and_nothing_after_it_is_parsed(server):
    with connect(server) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
                       b"3\r\nabc\r\nnot hex\r\n" + get())
        replies = Replies(client)
        assert replies.next()[0] == 400
        assert replies.rest() == b""


def test_expect_is_answered_with_100_only_when_the_application_reads(server):
    with connect(server) as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        replies = Replies(client)
        assert replies.next()[0] == 100
        client.sendall(b"12345")
        assert replies.next()[2] == b"12345"
        client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        assert replies.next()[0] == 200
        assert replies.rest() == b""


def test_a_body_that_came_along_with_expect_needs_no_100(server):
    with connect(server) as client:
        client.sendall(post(b"12345", more=b"Expect: 100-continue\r\n") + get())
        replies = Replies(client)
        assert replies.next()[2] == b"12345"
        assert replies.next()[2] == b"hello\n"


def test_a_body_nobody_reads_does_not_become_the_next_request(server):
    with connect(server) as client:
        client.sendall(post(get("/echo") * 100, path="/") + get("/stream"))
        replies = Replies(client)
        assert replies.next()[2] == b"hello\n"
        assert replies.next()[2] == b"piece\n" * 3


def test_a_huge_body_nobody_reads_is_answered_and_closed(server):
    """A client that asks first may be told at once; one that sends all the same is not read on."""
    with connect(server) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 5000000000\r\n"
                       b"Expect: 100-continue\r\n\r\n" + b"x" * ((1 << 20) + 1000))
        replies = Replies(client)
        assert replies.next()[0] == 200
        assert replies.rest() == b""


# -- slow clients --------------------------------------------------------------------------------
def test_slow_clients_occupy_no_thread(server):
    """Many half-sent heads and bodies, and a good client is served at once."""
    slow = []
    try:
        for i in range(150):
            client = connect(server)
            client.sendall([b"GET / HT", post(b"12345")[:-2], get()[:-2]][i % 3])
            slow.append(client)
        for _ in range(20):
            with connect(server) as client:
                client.sendall(get())
                assert Replies(client).next()[0] == 200
        for i, client in enumerate(slow):
            client.sendall([b"TP/1.1\r\nHost: t\r\n\r\n", b"45", b"\r\n"][i % 3])
        for client in slow:
            assert Replies(client).next()[0] == 200
    finally:
        for client in slow:
            client.close()


def test_a_client_that_reads_slowly_gets_everything(server):
    with connect(server) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(get() * 500)
        time.sleep(0.2)
        replies = Replies(client)
        assert all(replies.next()[0] == 200 for _ in range(500))


@pytest.mark.parametrize("own_server", sweep(KINDS, quick=["sync"]), indirect=True)
def test_a_head_that_takes_longer_than_ten_seconds_gets_408(own_server):
    server = own_server()
    started = time.monotonic()
    with connect(server) as slow, connect(server) as silent:
        replies = Replies(slow)
        slow.settimeout(0.9)
        slow.sendall(b"GET / HTTP/1.1\r\n")
        while b"\r\n\r\n" not in replies.bytes:
            try:
                replies._more()
            except TimeoutError:
                slow.sendall(b"X: y\r\n")
            assert time.monotonic() < started + 30
        assert replies.next()[0] == 408
        assert 9 < time.monotonic() - started < 13
        assert Replies(silent).rest() == b""


def test_an_idle_connection_is_closed_after_keepalive(own_server):
    server = own_server("--keep-alive", "1")
    with connect(server) as client:
        client.sendall(get())
        replies = Replies(client)
        assert replies.next()[0] == 200
        started = time.monotonic()
        assert replies.rest() == b""
        assert 0.7 < time.monotonic() - started < 10


# -- many ----------------------------------------------------------------------------------------
def rss_kb(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def cpu_ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


@pytest.mark.skipif(SANITIZED, reason="a sanitizer keeps memory of its own for each allocation")
def test_a_thousand_idle_connections_cost_little(own_server):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("too few descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, hard))
    server = own_server("--keep-alive", "60", "--worker-connections", "3000")
    clients = []

    def add(count):
        for _ in range(count):
            client = connect(server)
            clients.append(client)
            client.sendall(get())
            assert Replies(client).next()[0] == 200

    try:
        add(200)
        before = rss_kb(worker_of(server))
        add(1000)
        # A sanitizer keeps room around every allocation.
        assert (rss_kb(worker_of(server)) - before) / 1000 <= (4.0 if SANITIZED else 2.0)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_the_worker_neither_spins_nor_dies(own_server):
    server = own_server("--keep-alive", "60")
    pid = worker_of(server)
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    open_now = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_now + 5, limits[1]))
    clients = [connect(server) for _ in range(40)]
    try:
        until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= open_now + 5, "descriptors used up")
        before, started = cpu_ticks(pid), time.monotonic()
        time.sleep(1)
        used = (cpu_ticks(pid) - before) / os.sysconf("SC_CLK_TCK")
        assert used / (time.monotonic() - started) < 0.10
    finally:
        for client in clients:
            client.close()
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    with connect(server) as client:
        client.sendall(get())
        assert Replies(client).next()[0] == 200


# -- leaving -------------------------------------------------------------------------------------
def test_idle_it_leaves_at_once_and_idle_connections_are_closed(own_server):
    server = own_server("--keep-alive", "600", "--graceful-timeout", "600")
    clients = [connect(server) for _ in range(5)]
    for client in clients:
        client.sendall(get())
        assert Replies(client).next()[0] == 200
    assert server.stop() == 0
    for client in clients:
        assert Replies(client).rest() == b""
        client.close()


def test_told_to_stop_it_answers_what_runs_and_what_waits_in_the_backlog(own_server):
    server = own_server()
    clients = []
    for _ in range(4):
        client = connect(server)
        client.sendall(get("/sleep?300"))
        clients.append(client)
    time.sleep(0.1)
    server.process.send_signal(signal.SIGTERM)
    for client in clients:
        assert Replies(client).next()[2] == b"slept\n"
        client.close()
    assert server.stop() == 0


def test_sync_keeps_no_connection_unless_keepalive_was_set(folder):
    with Running(["-w", "1", "--trace-api", "off", "app:app"], folder) as running:
        with connect(running.ready()) as client:
            client.sendall(get() + get())
            replies = Replies(client)
            status, head, _ = replies.next()
            assert status == 200 and b"connection: close" in head.lower()
            assert replies.rest() == b""


def test_max_requests_loses_no_request_of_kept_connections(own_server):
    server = own_server("--max-requests", "40", "--keep-alive", "5")
    if not server.workers():
        pytest.skip("a single process without a master ends with its worker")
    pids = set(server.workers())

    def client_life(_):
        done = 0
        while done < 100:
            with connect(server) as client:
                replies = Replies(client)
                while done < 100:
                    client.sendall(get())
                    status, head, _body = replies.next()
                    assert status == 200
                    done += 1
                    if b"connection: close" in head.lower():
                        break
        return done

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(client_life, range(4))) == 400
    assert set(server.workers()) != pids
