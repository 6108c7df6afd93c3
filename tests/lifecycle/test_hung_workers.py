"""A worker that hangs, in every way it can: replaced within the limit plus 1.5 s, the stack with
the function's name in the log, the client told."""
import os
import select
import signal
import socket
import threading
import time

import pytest

from harness import LEAKS_UNKNOWN, SANITIZED, Running, app_folder, sweep, until

APP = '''
import collections, itertools, os, signal, time

def python_loop_here():
    while True:
        pass

def sleep_here():
    time.sleep(600)

def gil_held_here():
    collections.deque(itertools.repeat(None), maxlen=0)  # C code that never looks up

def stopped_here():
    os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)

ways = {"/loop": python_loop_here, "/sleep": sleep_here, "/gil": gil_held_here,
        "/stop": stopped_here}

def app(environ, start_response):
    way = ways.get(environ["PATH_INFO"])
    if way is not None:
        way()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
'''

LIMIT_S = 2
NAMES = {"/loop": "python_loop_here", "/sleep": "sleep_here", "/gil": "gil_held_here",
         "/stop": "stopped_here"}
KINDS = {
    "sync_by_timeout": lambda limit_s: ["-t", str(limit_s)],
    "gthread_by_request_timeout": lambda limit_s: ["--threads", "2", "--request-timeout", str(limit_s)],
    "sync_by_request_timeout": lambda limit_s: ["-t", "0", "--request-timeout", str(limit_s)],
}
#: Longer where it is the client who takes the time: a request is given up by a quarter of it earlier,
#: and on a machine with other work the worker must get its turn within that quarter.
CLIENT_LIMIT_S = 12 if SANITIZED else 4


def ask(port, path):
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.settimeout(60)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        text = b""
        try:
            while piece := client.recv(4096):
                text += piece
        except ConnectionResetError:
            pass
        return text


@pytest.mark.parametrize("kind, path", sweep(
    [(kind, path) for kind in KINDS for path in NAMES],
    quick=[("sync_by_timeout", "/loop"), ("gthread_by_request_timeout", "/gil"),
           ("sync_by_request_timeout", "/stop"), ("sync_by_timeout", "/sleep")]))
def test_a_hung_worker_is_replaced_with_its_stack_told(kind, path):
    """On a machine that has time for it, so one of three tries has to be right: the master waits a
    third of a second for the stack and then goes on without it."""
    limit_s = LIMIT_S + (10 if SANITIZED else 1.5)
    tries = []
    for _ in range(3):
        tries.append(seconds_to_replace(kind, path))
        if tries[-1] is not None and tries[-1] <= limit_s:
            return
    raise AssertionError(f"seconds, None without a stack: {tries}")


def seconds_to_replace(kind, path):
    """None when the worker could not write its stack in time."""
    with app_folder(APP) as folder:
        with Running(["--no-tracing", *KINDS[kind](LIMIT_S), "app:app"], folder,
                     LEAKS_UNKNOWN) as server:
            server.ready()
            hung = server.workers()
            answers = []
            begun = time.monotonic()
            asking = threading.Thread(target=lambda: answers.append(ask(server.port, path)))
            asking.start()
            server.line(r"WORKER TIMEOUT \(pid:%d\)" % hung[0])
            server.line("Booting worker", count=2)
            took = time.monotonic() - begun
            has_stack = "could not write its stacks" not in server.text
            if has_stack:
                server.line(NAMES[path])
            asking.join(60)
            assert answers[0].startswith(b"HTTP/1.1 500"), answers[0]
            assert ask_until_ok(server)
            until(lambda: not set(hung) & set(server.workers()), "the old one's end")
            assert server.stop() == 0
            return took if has_stack else None


CLIENT_APP = '''
def app(environ, start_response):
    if environ["PATH_INFO"] == "/flood":
        start_response("200 OK", [])
        return (b"x" * (1 << 20) for _ in range(200))
    data = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
'''


def told_while_dribbling(client):
    """All that the server says to one that sends a byte twenty times a second."""
    for _ in range(990):
        if select.select([client], [], [], 0.05)[0]:
            return client.recv(4096)
        client.sendall(b"x")
    raise AssertionError("nothing was said")


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_takes_too_long_is_the_clients_fault_and_not_a_hung_worker(kind):
    """Expect: 100-continue makes the application wait for the client, in its thread."""
    with app_folder(CLIENT_APP) as folder:
        with Running(["--no-tracing", *KINDS[kind](CLIENT_LIMIT_S), "app:app"], folder) as server:
            server.ready()
            workers = server.workers()
            with socket.create_connection(("127.0.0.1", server.port), 30) as client:
                client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n"
                               b"Expect: 100-continue\r\n\r\n")
                assert client.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
                assert told_while_dribbling(client).startswith(b"HTTP/1.1 408 ")
            assert server.get("/") == b"ok\n"
            assert server.workers() == workers and "WORKER TIMEOUT" not in server.text
            assert server.stop() == 0


@pytest.mark.parametrize("kind", ["sync_by_timeout", "sync_by_request_timeout"])
def test_a_client_that_does_not_read_a_large_reply_gets_no_worker_killed(kind):
    """More than is put by, so the application waits. The next request is answered when the first
    was given up, as there is only this thread."""
    with app_folder(CLIENT_APP) as folder:
        with Running(["--no-tracing", *KINDS[kind](CLIENT_LIMIT_S), "app:app"], folder) as server:
            server.ready()
            workers = server.workers()
            with socket.create_connection(("127.0.0.1", server.port), 30) as client:
                client.sendall(b"GET /flood HTTP/1.1\r\nHost: t\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
                assert server.get("/") == b"ok\n"
            assert server.workers() == workers and "WORKER TIMEOUT" not in server.text
            assert server.stop() == 0


def ask_until_ok(server):
    def answered():
        try:
            return server.get("/") == b"ok\n"
        except OSError:
            return False
    return until(answered, lambda: server.text)


def test_a_slow_import_is_no_hang():
    """Boot is exempt from timeout, as in gunicorn."""
    with app_folder("import time; time.sleep(3)\n" + APP) as folder:
        with Running(["--no-tracing", "-t", "1", "app:app"], folder) as server:
            server.ready()
            assert "WORKER TIMEOUT" not in server.text
            assert server.stop() == 0


def test_gthreads_timeout_does_not_limit_one_request():
    """As in gunicorn: the worker is not silent, so a long request is its own business."""
    app = APP.replace('"/sleep": sleep_here', '"/sleep": lambda: time.sleep(3)')
    with app_folder(app) as folder:
        with Running(["--no-tracing", "--threads", "2", "-t", "1", "app:app"], folder) as server:
            server.ready()
            assert server.get("/sleep") == b"ok\n"
            assert "WORKER TIMEOUT" not in server.text
            assert server.stop() == 0


def test_a_worker_that_does_not_leave_is_killed_after_graceful_timeout():
    with app_folder(APP) as folder:
        with Running(["--no-tracing", "--threads", "2", "--graceful-timeout", "1", "app:app"],
                     folder, LEAKS_UNKNOWN) as server:
            server.ready()
            asking = threading.Thread(target=ask, args=(server.port, "/sleep"))
            asking.start()
            until(lambda: len(os.listdir(f"/proc/{server.workers()[0]}/task")) >= 2, "its threads")
            time.sleep(0.3)  # the request is in the application by then; the test holds without it
            assert server.stop() == 0
            asking.join(60)
