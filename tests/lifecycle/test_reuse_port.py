"""--reuse-port: a listening socket per place of the service, whatever happens to who stands there."""
import collections
import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import threading

import pytest

from harness import Running, app_folder, state_of, until

APP = '''
import os, pathlib, time
while os.environ.get("SLOW_AGE") == os.environ.get("MY_AGE", "0") and not pathlib.Path("go").exists():
    time.sleep(0.01)

def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
'''
CONF = '''
import os
def when_ready(server):
    server.log.info("the master has %d sockets", len(server.LISTENERS))
def post_fork(server, worker):
    os.environ["MY_AGE"] = str(worker.age)
    worker.log.info("the worker has %d sockets, of port %d", len(worker.sockets),
                    worker.sockets[0].getsockname()[1])
'''
KINDS = {"sync": ["-k", "sync"], "gthread": ["-k", "gthread", "--threads", "2"]}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder():
    with app_folder(APP, gunicorn_conf_py=CONF) as made:
        yield made


def begin(folder, *arguments, **environment):
    return Running(["--no-tracing", "--reuse-port", "--timeout", "120", *arguments, "app:app"],
                   folder, environment=environment)


def ask(port):
    """One request on a connection of its own: the pid that answered."""
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        data = b""
        while piece := client.recv(4096):
            data += piece
    found = re.match(rb"HTTP/1.1 200 .*\r\n\r\n(\d+)$", data, re.DOTALL)
    assert found, data
    return int(found[1])


def listening(port):
    """How many sockets listen on the port."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


class Load:
    """`with Load(port) as load`: clients that ask on a new connection each time, until the end."""

    def __init__(self, port, clients=6):
        self.port, self.over = port, threading.Event()
        self.counts, self.failures = collections.Counter(), []
        self.pool = concurrent.futures.ThreadPoolExecutor(clients)
        self.lives = [self.pool.submit(self.life) for _ in range(clients)]

    def life(self):
        while not self.over.is_set():
            try:
                self.counts[ask(self.port)] += 1
            except (OSError, AssertionError) as error:
                self.failures.append(repr(error))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        self.pool.shutdown()


def test_every_worker_has_a_socket_of_its_own(kind, folder):
    with begin(folder, "-w", "3", *kind) as server:
        server.ready()
        until(lambda: listening(server.port) == 3, lambda: f"{listening(server.port)} sockets")
        counts = collections.Counter(ask(server.port) for _ in range(150))
        assert set(counts) == set(server.workers()), counts
        assert min(counts.values()) >= 15, counts      # 50 each, by the kernel's hash
        server.line("the master has 0 sockets")
        server.line(rf"the worker has 1 sockets, of port {server.port}", count=3)
        assert "reuse_port" not in server.text         # no warning that it does nothing
        assert server.stop() == 0
        assert listening(server.port) == 0


def test_unix_sockets_are_shared_all_the_same(kind, folder, tmp_path):
    path = tmp_path / "s.sock"
    with begin(folder, "-w", "2", "-b", f"unix:{path}", *kind) as server:
        server.line("Listening at: unix:")

        def answer():
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(20)
                client.connect(str(path))
                client.sendall(b"GET / HTTP/1.0\r\nHost: t\r\n\r\n")
                return client.recv(4096)
        assert until(answer, "an answer").startswith(b"HTTP/1.0 200 ")
        assert server.stop() == 0
        assert not path.exists()


def test_reloads_under_load_lose_no_request(kind, folder):
    with begin(folder, "-w", "2", *kind) as server:
        server.ready()
        with Load(server.port) as load:
            for _ in range(4):
                before = set(server.workers())
                server.process.send_signal(signal.SIGHUP)
                until(lambda: len(server.workers()) == 2 and not before & set(server.workers()),
                      lambda: "two new workers:\n" + server.text)
            until(lambda: sum(load.counts.values()) > 50 or load.failures, "50 answers")
        assert load.failures == []
        assert listening(server.port) == 2
        assert server.stop() == 0


def test_a_killed_worker_leaves_its_queue_to_its_successor(kind, folder):
    """The only worker stands still while clients connect and ask; killed, it answers none of them,
    and all are answered."""
    with begin(folder, "-w", "1", *kind) as server:
        server.ready()
        victim = server.workers()[0]
        os.kill(victim, signal.SIGSTOP)
        until(lambda: state_of(victim) == "T", "a process that stands still")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(ask, server.port) for _ in range(8)]
            until(lambda: queued(server.port) == 8, lambda: f"{queued(server.port)} wait")
            os.kill(victim, signal.SIGKILL)
            pids = {one.result() for one in answers}
        assert pids == set(server.workers()) and victim not in pids
        assert server.stop() == 0


def queued(port):
    """Clients that wait to be accepted."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum(int(row[4].split(":")[1], 16) for row in rows
               if row[1].endswith(f":{port:04X}") and row[3] == "0A")


def test_ttou_takes_the_socket_away_and_ttin_brings_one(kind, folder):
    with begin(folder, "-w", "3", *kind) as server:
        server.ready()
        until(lambda: listening(server.port) == 3, "three sockets")
        server.process.send_signal(signal.SIGTTOU)
        until(lambda: len(server.workers()) == 2 and listening(server.port) == 2,
              lambda: f"two workers, {server.workers()} {listening(server.port)}")
        assert {ask(server.port) for _ in range(60)} == set(server.workers())
        server.process.send_signal(signal.SIGTTIN)
        until(lambda: len(server.workers()) == 3 and listening(server.port) == 3,
              lambda: f"three workers, {server.workers()} {listening(server.port)}")
        assert {ask(server.port) for _ in range(90)} == set(server.workers())
        assert server.stop() == 0


def test_whom_a_leaving_socket_holds_is_answered(kind, folder):
    """TTOU while its worker stands still with clients in the queue: it answers them before it goes."""
    with begin(folder, "-w", "2", *kind) as server:
        server.ready()
        until(lambda: listening(server.port) == 2, "two sockets")
        oldest = server.workers()[0]
        os.kill(oldest, signal.SIGSTOP)
        until(lambda: state_of(oldest) == "T", "a process that stands still")
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            answers = [pool.submit(ask, server.port) for _ in range(24)]
            until(lambda: sum(one.done() for one in answers) + queued(server.port) == 24,
                  "clients that are answered or wait")
            server.process.send_signal(signal.SIGTTOU)
            server.line("Handling signal: ttou")
            os.kill(oldest, signal.SIGCONT)
            counts = collections.Counter(one.result() for one in answers)
        assert counts[oldest] > 0, counts
        until(lambda: oldest not in server.workers(), "the oldest has left")
        assert listening(server.port) == 1
        assert server.stop() == 0


def test_a_worker_that_boots_gets_no_clients_yet(folder):
    """The second of two imports until it may go on; meanwhile the first answers everybody."""
    with begin(folder, "-w", "2", SLOW_AGE="2") as server:
        server.port = int(server.line(r"Listening at: .*?:(\d+)")[1])
        until(lambda: listening(server.port) == 1 and len(server.workers()) == 2, "one that listens")
        assert len({ask(server.port) for _ in range(40)}) == 1
        (folder / "go").write_text("")
        try:
            until(lambda: listening(server.port) == 2, "two that listen")
            assert server.stop() == 0
        finally:
            (folder / "go").unlink()


def test_an_address_that_somebody_has_is_still_refused(folder):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        server = begin(folder, "-b", f"127.0.0.1:{other.getsockname()[1]}")
        assert server.process.wait(60) == 1
        server.line("the address is in use")


def test_a_new_master_takes_the_reservation_over(folder):
    """USR2, then the old one leaves: the new one has the port."""
    with begin(folder, "-w", "2") as server:
        server.ready()
        old = set(server.workers())
        server.process.send_signal(signal.SIGUSR2)
        new_master = int(server.line(r"Listening at: .*\((\d+)\)", count=2)[1])
        try:
            until(lambda: listening(server.port) == 4, "two sockets more")
            server.process.send_signal(signal.SIGTERM)
            until(lambda: listening(server.port) == 2, "the old ones have left")
            assert not {ask(server.port) for _ in range(20)} & old
        finally:
            os.kill(new_master, signal.SIGTERM)
        until(lambda: listening(server.port) == 0, "nobody listens")
