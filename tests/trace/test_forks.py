"""A thousand forks: Python's callbacks ran in each, nothing is copied, the master stays bare."""
import json
import os
import signal

import pytest

from harness import LEAKS_UNKNOWN, SANITIZED, HttpCollector, Running, app_folder, until

APP = '''
import os
def app(environ, start_response):
    if environ["PATH_INFO"] == "/fork":      # an application may fork as it likes
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
CONF = '''
import json, os, random, threading
CALLED_IN = []
os.register_at_fork(after_in_child=lambda: CALLED_IN.append(os.getpid()))
FILE = os.open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "facts"),
               os.O_WRONLY | os.O_CREAT | os.O_APPEND)
random.random()
%s

def has_grpc():
    with open("/proc/self/maps") as maps:
        return "libgrpc" in maps.read()

def say(**facts):
    os.write(FILE, (json.dumps(facts) + "\\n").encode())

def pre_fork(server, worker):
    say(kind="pre", threads=len(os.listdir("/proc/self/task")), grpc=has_grpc(), age=worker.age)

def post_fork(server, worker):
    say(kind="post", pid=os.getpid(), called=CALLED_IN[-1:] == [os.getpid()], grpc=has_grpc(),
        random=random.random(), age=worker.age, threads=threading.active_count())
'''
THREAD = "threading.Thread(target=threading.Event().wait, daemon=True).start()"


def facts_of(folder, kind):
    try:
        lines = (folder / "facts").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [fact for fact in map(json.loads, lines) if fact["kind"] == kind]


@pytest.mark.parametrize("threads_of_conf", [0, 1])
@pytest.mark.parametrize("forks", [40, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.skipif(
    SANITIZED, reason="forty forks and a thousand are the same to a sanitizer")])])
def test_each_fork_runs_the_callbacks_and_shares_no_randomness(forks, threads_of_conf):
    conf = CONF % (THREAD if threads_of_conf else "")
    with app_folder(APP, gunicorn_conf_py=conf) as folder, HttpCollector() as collector, \
            Running(["app:app", "--workers", "2", "--trace-otlp-endpoint", collector.endpoint,
                     "--trace-otlp-protocol", "http/protobuf", "--log-level", "info"], folder,
                    environment=LEAKS_UNKNOWN if threads_of_conf else {}) as server:
        server.ready()
        until(lambda: len(facts_of(folder, "post")) == 2, "both workers: each fork is counted below")
        killed = set()
        while len(facts_of(folder, "post")) < forks:
            count = len(facts_of(folder, "post"))
            for _ in range(5):
                server.process.send_signal(signal.SIGTTIN)
                until(lambda: len(facts_of(folder, "post")) > count, "a fork after TTIN")
                count = len(facts_of(folder, "post"))
            pid = int(server.get("/fork"))
            if pid not in killed:
                killed.add(pid)
                os.kill(pid, signal.SIGKILL)
                until(lambda: len(facts_of(folder, "post")) > count, "a fork after KILL")
            for _ in range(5):   # one by one: equal signals that wait are merged
                many = len(server.workers())
                server.process.send_signal(signal.SIGTTOU)
                until(lambda: len(server.workers()) < many,
                      lambda: f"fewer workers than {many}; the log was:\n{server.text[-3000:]}")
            server.get("/fork")
        pre, post = facts_of(folder, "pre"), facts_of(folder, "post")
        assert server.stop() == 0
    assert {fact["threads"] for fact in pre} == {1 + threads_of_conf}
    assert not any(fact["grpc"] for fact in pre + post)
    assert all(fact["called"] for fact in post)
    assert {fact["threads"] for fact in post} == {1}
    assert len({fact["random"] for fact in post}) == len(post)
    assert len({fact["pid"] for fact in post}) == len(post)
    ages = [fact["age"] for fact in pre]
    assert ages == list(range(1, len(ages) + 1))
    # without a traceparent each request is a root of its own: no id twice
    roots = [span.trace_id for span in collector.seen() if span.is_server]
    assert len(roots) > len(killed)
    assert len(set(roots)) == len(roots)
