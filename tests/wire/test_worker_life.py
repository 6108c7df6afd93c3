"""A worker from its first to its last moment: quick stops, orders when the application has taken
the signal handlers away, a master that is killed, logs that move, other kinds of address, limits,
and reloads and restarts under load."""
import collections
import concurrent.futures
import os
import pathlib
import re
import signal
import socket
import threading

import pytest

from harness import LEAKS_UNKNOWN, Running, app_folder, is_gone, is_read, sweep, until

APP = """
import asyncio, os, signal, time

def slowly():
    async def nap():
        await asyncio.sleep(0.01)
    asyncio.run(nap())

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path.startswith("/sleep"):
        os.write(2, b"asleep\\n")
        time.sleep(int(environ["QUERY_STRING"]) / 1000)
    elif path == "/asyncio":
        slowly()
    elif path == "/stuck":
        os.write(2, b"stuck\\n")
        while True:
            time.sleep(0.05)
    body = (environ.get("REMOTE_ADDR", "") + " " + str(os.getpid())).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
"""
TAKEN = """
import os, signal
def noted(signo, frame):
    os.write(2, b"the application saw %d\\n" % signo)
for one in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT):
    signal.signal(one, noted)
""" + APP
HOOKS = """
import os
def worker_int(worker):
    os.write(2, b"worker_int in %d\\n" % os.getpid())
def worker_exit(server, worker):
    os.write(2, b"worker_exit in %d\\n" % os.getpid())
"""
KINDS = {"sync": ["-k", "sync", "--keep-alive", "5"],
         "gthread": ["-k", "gthread", "--threads", "4", "--keep-alive", "5"]}
GET = b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.fixture(scope="module")
def folder():
    with app_folder(APP, gunicorn_conf_py=HOOKS, taken_py=TAKEN) as made:
        yield made


@pytest.fixture(params=KINDS)
def start(request, folder):
    """start(*arguments) -> a Running that is ready; all are stopped at the end."""
    started = []

    def begin(*more, app="app:app", ready=True, ends_threads=False):
        """ends_threads: a quick stop will find a request in a thread, if there are threads."""
        environment = LEAKS_UNKNOWN if ends_threads and request.param == "gthread" else {}
        running = Running([*KINDS[request.param], "--trace-api", "off", *more, app], folder, environment)
        started.append(running)
        return running.ready() if ready else running

    begin.kind = request.param
    yield begin
    for running in started:
        running.__exit__(None, None, None)


def ask(port, path="/", close=True, timeout=30):
    """An open connection with a request on its way."""
    client = socket.create_connection(("127.0.0.1", port), timeout)
    client.sendall(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: t\r\n"
                   + (b"Connection: close\r\n" if close else b"") + b"\r\n")
    return client


# -- quick stops ---------------------------------------------------------------------------------
@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_int_and_quit_to_a_worker_call_worker_int_once_and_end_it_at_once(start, signo, busy):
    server = start("-w", "1", ends_threads=busy)
    [pid] = server.workers()
    client = ask(server.port, "/sleep?30000") if busy else None
    if busy:
        server.line("asleep")
    os.kill(pid, signo)
    server.line(rf"worker_int in {pid}", patience_s=10)
    server.line(rf"worker_exit in {pid}", patience_s=10)
    until(lambda: server.workers() and pid not in server.workers(), "another worker", 10)
    assert server.text.count(f"worker_int in {pid}") == 1
    if client:
        client.close()
    assert server.get().decode().split()[1] != str(pid)


@pytest.mark.parametrize("signo", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_to_the_master_call_worker_int_once_in_each_worker(start, signo):
    server = start("-w", "2", ends_threads=True)
    pids = server.workers()
    client = ask(server.port, "/sleep?30000")
    server.line("asleep")
    assert server.stop(signo, patience_s=25) == 0  # before graceful_timeout, 30 s
    client.close()
    for pid in pids:
        assert server.text.count(f"worker_int in {pid}") == 1, server.text
        assert server.text.count(f"worker_exit in {pid}") == 1, server.text


# -- handlers that the application took ----------------------------------------------------------
@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_whose_handlers_were_taken_leaves_with_the_master(start, signo):
    server = start("-w", "1", app="taken:app")
    assert server.stop(signo, patience_s=25) == 0  # before graceful_timeout, 30 s
    assert "SIGKILL" not in server.text


def test_a_handler_of_the_application_runs_while_the_worker_is_idle(start):
    server = start("-w", "1", app="taken:app")
    [pid] = server.workers()
    os.kill(pid, signal.SIGUSR1)
    server.line(rf"the application saw {int(signal.SIGUSR1)}", patience_s=5)
    assert server.workers() == [pid]


def test_a_view_that_runs_an_event_loop_of_its_own_takes_no_order_away(start):
    server = start("-w", "1")
    for _ in range(3):
        assert server.get("/asyncio")
    [pid] = server.workers()
    os.kill(pid, signal.SIGQUIT)
    server.line(rf"worker_int in {pid}", patience_s=10)
    server.line("Booting worker", count=2)
    until(lambda: server.get("/asyncio"), "an answer")
    assert server.stop(patience_s=10) == 0


# -- a master that is killed ---------------------------------------------------------------------
def test_a_killed_master_leaves_nothing_behind_and_what_runs_is_answered(start):
    server = start("-w", "2", "--graceful-timeout", "600")
    pids = server.workers()
    running = ask(server.port, "/sleep?500")
    server.line("asleep")
    server.process.kill()
    server.process.wait()

    def refuses():
        try:
            ask(server.port).close()
        except OSError:
            return True
        return False
    assert running.recv(65536).startswith(b"HTTP/1.1 200 ")
    running.close()
    until(refuses, "a port where nobody listens")
    until(lambda: all(map(is_gone, pids)), "workers that are gone")
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", server.port))


def test_idle_workers_of_a_killed_master_stop_listening_at_once(start):
    server = start("-w", "2", "--graceful-timeout", "600")
    pids = server.workers()
    server.process.kill()
    server.process.wait()
    until(lambda: all(map(is_gone, pids)), "workers that are gone")


def test_a_request_that_never_ends_does_not_outlive_a_killed_master(start):
    server = start("-w", "1", "--graceful-timeout", "1", "--timeout", "0")
    [pid] = server.workers()
    stuck = ask(server.port, "/stuck")
    server.line("stuck")
    server.process.kill()
    server.process.wait()
    until(lambda: is_gone(pid), "the worker's end", 10)
    stuck.close()


# -- logs ----------------------------------------------------------------------------------------
def test_usr1_makes_master_and_workers_write_to_the_new_log_file(start, tmp_path):
    log = tmp_path / "error.log"
    server = start("-w", "1", "--error-logfile", str(log), ready=False)
    found = until(lambda: log.exists() and re.search(r"Listening at: .*?:(\d+)", log.read_text()),
                  "a log file")
    server.port = int(found[1])
    until(lambda: server.workers() and server._answers(), "an answer")
    log.rename(tmp_path / "old.log")
    server.process.send_signal(signal.SIGUSR1)
    until(log.exists, "the new file", 10)
    [pid] = server.workers()

    def told():
        bad = socket.create_connection(("127.0.0.1", server.port), 10)
        bad.sendall(b"bad\n\n")
        while bad.recv(4096):
            pass
        bad.close()
        return re.search(rf"\[{pid}\].*Invalid request", log.read_text())
    until(told, lambda: "a line of the worker: " + log.read_text(), 10)
    assert server.stop() == 0
    assert f"[{server.process.pid}]" in log.read_text()


# -- addresses -----------------------------------------------------------------------------------
def test_a_unix_socket_is_served(start, tmp_path):
    path = tmp_path / "s.sock"
    server = start("-w", "1", "-b", f"unix:{path}", ready=False)

    def answer():
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            try:
                client.connect(str(path))
            except OSError:
                return None
            client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            data = b""
            while piece := client.recv(65536):
                data += piece
            return data
    assert until(answer, "an answer").startswith(b"HTTP/1.1 200 ")
    assert server.stop() == 0
    assert not path.exists()


def test_an_ipv6_address_is_served_and_named(start):
    if not socket.has_ipv6 or not pathlib.Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    server = start("-w", "1", "-b", "[::1]:0", ready=False)
    port = int(server.line(r"Listening at: http://\[::1\]:(\d+)")[1])

    def answer():
        try:
            with socket.create_connection(("::1", port), 10) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                return client.recv(65536)
        except OSError:
            return None
    data = until(answer, "an answer")
    assert data.startswith(b"HTTP/1.1 200 ") and b"\r\n\r\n::1 " in data


# -- limits --------------------------------------------------------------------------------------
def test_beyond_worker_connections_a_client_waits_until_another_leaves(folder):
    with Running([*KINDS["gthread"], "-w", "1", "--worker-connections", "4", "--threads", "2",
                  "--trace-api", "off", "app:app"], folder) as server:
        server.ready()
        quiet = [socket.create_connection(("127.0.0.1", server.port), 30) for _ in range(4)]
        for one in quiet:
            one.sendall(GET[:-2])
        until(lambda: all(map(is_read, quiet)), "four connections that are taken")
        late = ask(server.port)
        late.settimeout(0.5)
        with pytest.raises(TimeoutError):
            late.recv(1)
        late.settimeout(20)
        quiet.pop().close()
        assert late.recv(65536).startswith(b"HTTP/1.1 200 ")
        for one in (*quiet, late):
            one.close()


# -- under load ----------------------------------------------------------------------------------
class Load:
    """Clients that ask one request after another, kept or not, until told to stop."""

    def __init__(self, server, path="/", kept=4, closing=4):
        self.server, self.path = server, path
        self.stop_now = threading.Event()
        self.count, self.failures = collections.Counter(), []
        self.pool = concurrent.futures.ThreadPoolExecutor(kept + closing)
        self.lives = [self.pool.submit(self.life, i < kept) for i in range(kept + closing)]

    def answer(self, client):
        data = b""
        while b"\r\n\r\n" not in data:
            piece = client.recv(65536)
            if not piece:
                raise EOFError("closed without an answer")
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = int(re.search(rb"(?i)content-length: (\d+)", head)[1])
        while len(body) < length:
            body += client.recv(65536)
        return b"connection: close" in head.lower()

    def life(self, keeps):
        client = None
        while not self.stop_now.is_set():
            try:
                if client is None:
                    client = socket.create_connection(("127.0.0.1", self.server.port), 30)
                    client.settimeout(30)
                client.sendall(b"GET " + self.path.encode() + b" HTTP/1.1\r\nHost: t\r\n"
                               + (b"" if keeps else b"Connection: close\r\n") + b"\r\n")
                closes = self.answer(client)
                self.count["answered"] += 1
            except (OSError, EOFError, AssertionError) as error:
                self.failures.append(repr(error))
                closes = True
            if closes and client is not None:
                client.close()
                client = None
        if client is not None:
            client.close()

    def end(self):
        self.stop_now.set()
        for one in self.lives:
            one.result(60)
        self.pool.shutdown()
        return self.count["answered"]


@pytest.mark.parametrize("path", sweep(["/", "/sleep?100"], quick=["/"]))
def test_eight_reloads_under_load_lose_no_request(start, path):
    server = start("-w", "2")
    load = Load(server, path)
    for _ in range(8):
        before = set(server.workers())
        server.process.send_signal(signal.SIGHUP)
        until(lambda: len(server.workers()) == 2 and not before & set(server.workers()),
              lambda: "two new workers:\n" + server.text, 30)
    assert load.end() > 50
    assert load.failures == []
    assert "SIGKILL" not in server.text


def test_max_requests_under_load_loses_no_request(start):
    server = start("-w", "2", "--max-requests", "60", "--max-requests-jitter", "20")
    load = Load(server)
    until(lambda: server.text.count("Autorestarting worker") >= 10 or load.failures,
          lambda: "ten restarts:\n" + server.text)
    load.end()
    assert load.failures == []
