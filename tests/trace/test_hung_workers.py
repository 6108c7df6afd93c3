"""A worker that hangs is replaced in time, says where it hung, and its client is told."""
import socket
import time

import pytest

from harness import LEAKS_UNKNOWN, SANITIZED, HttpCollector, Running, app_folder, sweep, until

APP = '''
import itertools, os, signal, time

def spin_for_ever(environ):
    while True:
        pass

def sleep_for_ever(environ):
    time.sleep(600)

def hold_the_lock_for_ever(environ):
    sum(itertools.repeat(0))    # a loop in C that keeps the GIL and looks at no signal

def stop_for_ever(environ):
    os.kill(os.getpid(), signal.SIGSTOP)
    while True:
        time.sleep(0.05)

WAYS = {"/loop": spin_for_ever, "/sleep": sleep_for_ever, "/lock": hold_the_lock_for_ever,
        "/stop": stop_for_ever}

def app(environ, start_response):
    way = WAYS.get(environ["PATH_INFO"])
    if way is not None:
        way(environ)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
FUNCTIONS = {"/loop": "spin_for_ever", "/sleep": "sleep_for_ever",
             "/lock": "hold_the_lock_for_ever", "/stop": "stop_for_ever"}
LIMIT_S = 2
KINDS = {"sync": ["--timeout", str(LIMIT_S)],
         "gthread": ["--threads", "2", "--timeout", "0", "--request-timeout", str(LIMIT_S)]}


@pytest.mark.parametrize("kind, path", sweep(
    [(kind, path) for kind in KINDS for path in FUNCTIONS],
    quick=[("sync", "/loop"), ("gthread", "/lock"), ("sync", "/stop"), ("gthread", "/sleep")]))
def test_a_hung_worker_is_replaced_in_time_with_its_stack_in_the_log_and_on_the_span(kind, path):
    with app_folder(APP) as folder, HttpCollector() as collector, \
            Running(["app:app", "--trace-otlp-endpoint", collector.endpoint,
                     "--trace-otlp-protocol", "http/protobuf", *KINDS[kind]], folder,
                    LEAKS_UNKNOWN) as server:
        server.ready()
        before = server.workers()
        assert len(before) == 1
        client = socket.create_connection(("127.0.0.1", server.port))
        client.settimeout(60)
        began = time.monotonic()
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        server.line(r"Booting worker with pid", count=2)
        replaced_s = time.monotonic() - began
        if not SANITIZED:   # the promise of the issue: the limit plus 1.5 s
            assert replaced_s <= LIMIT_S + 1.5, f"replaced after {replaced_s:.2f} s"
        answer = client.recv(65536)
        assert answer.startswith(b"HTTP/1.1 500 "), answer[:200]
        client.close()
        until(lambda: len(server.workers()) == 1 and server.workers() != before, "one other worker")
        assert server.get().decode().isdigit()
        assert FUNCTIONS[path] in server.text, server.text
        assert "WORKER TIMEOUT" in server.text

        def errors():
            return [span for span in collector.seen() if span.is_server and span.is_error
                    and span.attributes.get("url.path") == path]
        span = until(errors, "the span of the hung request")[0]
        assert len(errors()) == 1
        assert FUNCTIONS[path] in repr(span.events) + repr(span.attributes)
        assert span.resource["process.pid"] == before[0]
        assert (span.end_ns - span.start_ns) / 1e9 >= LIMIT_S * 0.9
        server.stop()


def test_a_gthread_request_longer_than_timeout_is_answered_as_under_gunicorn():
    app = APP.replace("time.sleep(600)", "time.sleep(3)")
    with app_folder(app) as folder, Running(["app:app", "--threads", "2", "--timeout", "1"], folder) as server:
        server.ready()
        assert server.get("/sleep").decode().isdigit()
        assert "WORKER TIMEOUT" not in server.text
