"""How workers share clients: nobody waits for a sibling that does not come, one client wakes one
sleeper, kept connections spread, and limits make room for siblings."""
import collections
import contextlib
import os
import pathlib
import re
import signal
import socket
import time

import pytest

from harness import SANITIZED, Running, app_folder, until

APP = '''
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
'''
#: The worker with this number imports until the file `go` is there.
SLOW_BOOT = '''
import os, pathlib, time
if os.environ.get("SLOW_AGE") == os.environ.get("MY_AGE"):
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
''' + APP
AGE_HOOK = '''
import os
def post_fork(server, worker):
    os.environ["MY_AGE"] = str(worker.age)
'''
SYNC = ["-k", "sync", "--keep-alive", "30"]
GTHREAD = ["-k", "gthread", "--threads", "2", "--keep-alive", "30"]
KINDS = {"sync": SYNC, "gthread": GTHREAD}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def begin(folder, *arguments, **environment):
    return Running(["--no-tracing", *arguments, "app:app"], folder, environment=environment)


class Client:
    """One connection; ask() gives the pid of the worker that answered."""

    def __init__(self, port, timeout=30, family=socket.AF_INET):
        self.socket = socket.socket(family)
        self.socket.settimeout(timeout)
        self.socket.connect(port if family == socket.AF_UNIX else ("127.0.0.1", port))

    def send(self, path="/", close=False):
        self.socket.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n".encode()
                            + (b"Connection: close\r\n" if close else b"") + b"\r\n")
        return self

    def answer(self):
        data = b""
        while not (found := re.match(rb"HTTP/1.1 200 .*?\r\n\r\n(\d+)$", data, re.DOTALL)):
            piece = self.socket.recv(4096)
            if not piece:
                raise EOFError(f"closed after {data!r}")
            data += piece
        return int(found[1])

    def ask(self, path="/", close=False):
        return self.send(path, close).answer()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()


def ask_once(port):
    with Client(port) as client:
        return client.ask(close=True)


def everybody_serves(server, count):
    """A pid is there before its worker is ready: wait until `count` of them have answered clients
    that stay, and until these are gone again. Returns the pids."""
    with contextlib.ExitStack() as stack:
        def answered():
            found.add(stack.enter_context(Client(server.port)).ask())
            return len(found) == count
        found = set()
        until(answered, lambda: f"{count} workers that answer, not {found}\n{server.text}")
    until(lambda: not any(connections_of(pid) for pid in found), "clients that are gone")
    until(lambda: all(is_asleep(pid) for pid in found), "workers that sleep")
    return sorted(found)


def is_asleep(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def sleeps_of(pid):
    """Voluntary context switches of all threads of a process."""
    count = 0
    for status in pathlib.Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):
            count += int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", status.read_text())[1])
    return count


def connections_of(pid):
    """How many clients a worker has accepted and not closed: sockets that have a peer."""
    inodes = set()
    for one in pathlib.Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.update(re.findall(r"socket:\[(\d+)\]", os.readlink(one)))
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in inodes and row[3] == "01" for row in rows)


@contextlib.contextmanager
def stopped(pid):
    """The process stands still meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        until(lambda: pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T",
              "a process that stands still")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# -- nobody waits for one that does not come -----------------------------------------------------
def test_with_one_worker_stopped_and_one_booting_everybody_is_served(kind):
    """40 clients that stay: two of four workers take them all, though both see siblings that
    have none."""
    with app_folder(SLOW_BOOT, gunicorn_conf_py=AGE_HOOK) as folder:
        with begin(folder, "-w", "4", "--timeout", "120", *kind, SLOW_AGE="4") as server:
            server.port = int(server.line(r"Listening at: .*?:(\d+)")[1])
            pids = until(lambda: len(server.workers()) == 4 and server.workers(), "four workers")
            answered = set()
            # Who answers is ready; with one stopped, the others come to answer.
            until(lambda: answered.add(ask_once(server.port)) or answered, "somebody who answers")
            victim = answered.pop()
            with stopped(victim), contextlib.ExitStack() as stack:
                clients = [stack.enter_context(Client(server.port)).send() for _ in range(40)]
                served = collections.Counter(client.answer() for client in clients)
                assert sum(served.values()) == 40 and victim not in served
                (folder / "go").write_text("")
            assert set(served) <= set(pids)
            assert server.stop() == 0


def test_a_stopped_sibling_looks_asleep_but_not_for_ever(kind):
    """Two workers, one of them stopped while it sleeps without a connection. Every client that
    comes waits for a moment at most."""
    with app_folder(APP) as folder:
        with begin(folder, "-w", "2", "--timeout", "120", *kind) as server:
            server.ready()
            victim = everybody_serves(server, 2)[0]
            with stopped(victim), contextlib.ExitStack() as stack:
                for _ in range(12):
                    client = stack.enter_context(Client(server.port, timeout=5))
                    assert client.ask() != victim
            assert server.stop() == 0


# -- one client wakes one sleeper ----------------------------------------------------------------
def sleeps_per_client(workers, unix, arguments, count=200):
    """Clients one after the other, everybody else asleep."""
    with app_folder(APP) as folder:
        path = folder / "s.sock"
        addresses = ["-b", f"unix:{path}"] if unix else []
        with begin(folder, "-w", str(workers), "-b", "127.0.0.1:0", *addresses,
                   *arguments) as server:
            server.ready()
            pids = server.workers()

            def one():
                if not unix:
                    return ask_once(server.port)
                with Client(str(path), family=socket.AF_UNIX) as client:
                    return client.ask(close=True)
            until(lambda: all(is_asleep(pid) for pid in pids), "workers that sleep")
            one()
            before = sum(sleeps_of(pid) for pid in pids)
            for _ in range(count):
                one()
            after = sum(sleeps_of(pid) for pid in pids)
            assert server.stop() == 0
            return (after - before) / count


@pytest.mark.parametrize("arguments", [["-k", "sync"], ["-k", "gthread", "--threads", "1"]],
                         ids=["sync", "gthread"])
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix beside tcp"])
def test_one_client_wakes_one_worker(arguments, unix):
    """A worker sleeps until the client comes and, unless the request is there by then, once more.
    With three more that sleep, nobody else wakes; if all woke it would be three more."""
    assert sleeps_per_client(4, unix, arguments) < 2.7


# -- connections spread --------------------------------------------------------------------------
def test_kept_connections_spread(kind):
    with app_folder(APP) as folder:
        with begin(folder, "-w", "4", *kind) as server:
            server.ready()
            everybody_serves(server, 4)
            with contextlib.ExitStack() as stack:
                clients = []
                for _ in range(64):
                    clients.append(stack.enter_context(Client(server.port)))
                    clients[-1].ask()
                held = collections.Counter(client.ask() for client in clients)
                assert sum(held.values()) == 64 and len(held) == 4, held
                assert max(held.values()) <= 1.3 * 16, held
            assert server.stop() == 0


# -- limits --------------------------------------------------------------------------------------
def test_at_worker_connections_a_worker_steps_back_and_a_sibling_serves():
    """One of two workers stands still until the other is full of clients that have not said what
    they want; then whoever comes is served by the one that has room, at once and every time."""
    with app_folder(APP) as folder:
        with begin(folder, "-w", "2", *GTHREAD, "--worker-connections", "4",
                   "--timeout", "120") as server:
            server.ready()
            roomy, full = everybody_serves(server, 2)
            with contextlib.ExitStack() as stack:
                with stopped(roomy):
                    slow = [stack.enter_context(Client(server.port)) for _ in range(4)]
                    for client in slow:
                        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n")
                    until(lambda: connections_of(full) == 4, "a full worker")
                for _ in range(20):
                    assert ask_once(server.port) == roomy
                for client in slow:
                    client.socket.sendall(b"\r\n")
                assert {client.answer() for client in slow} == {full}
            assert server.stop() == 0


@pytest.mark.skipif(SANITIZED, reason="the kernel's queue is the same one")
def test_the_backlog_is_as_long_as_was_asked_for():
    """Linux lets one more wait than the number says. Nobody accepts: the worker stands still."""
    with app_folder(APP) as folder:
        with begin(folder, "-w", "1", "--backlog", "3", "--timeout", "120") as server:
            server.ready()
            with stopped(server.workers()[0]), contextlib.ExitStack() as stack:
                for _ in range(4):
                    stack.enter_context(Client(server.port, timeout=10))
                with pytest.raises(TimeoutError):
                    stack.enter_context(Client(server.port, timeout=0.5))
            assert server.stop() == 0


def seconds_for(sleeps, pids):
    """How long it takes until these processes have gone to sleep so many times more."""
    def count():
        return sum(sleeps_of(pid) for pid in pids)
    goal = count() + sleeps
    begun = time.monotonic()
    until(lambda: count() >= goal, f"{sleeps} sleeps")
    return time.monotonic() - begun


def test_idle_workers_wake_as_seldom_as_their_beat():
    """Once a second without clients; four times more for the clock of kept connections. Nobody who
    is in balance looks after the siblings."""
    with app_folder(APP) as folder:
        with begin(folder, "-w", "2", *SYNC, "--timeout", "120") as server:
            server.ready()
            one, other = everybody_serves(server, 2)
            # Other processes may wake them now and then; who wakes by itself does so all the time.
            until(lambda: seconds_for(6, [one, other]) > 1.6, "workers that wake once a second")
            with contextlib.ExitStack() as stack:
                for away, here in ((one, other), (other, one)):
                    with stopped(away):
                        kept = [stack.enter_context(Client(server.port)) for _ in range(3)]
                        assert {client.ask() for client in kept} == {here}
                until(lambda: is_asleep(one) and is_asleep(other), "workers that sleep")
                until(lambda: seconds_for(16, [one, other]) > 1.2,
                      "workers that wake five times a second")
            assert server.stop() == 0
