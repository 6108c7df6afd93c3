"""Order and arguments of the hooks, per process, compared with gunicorn run side by side.

The config file writes one line per hook: the process, the hook, its arguments with objects shown
by what identifies them. Processes are named after what they are (master, worker by age), so two
servers can be compared whatever their pids.
"""
import importlib.util
import os
import pathlib
import signal
import sys
import threading

import pytest

from harness import CTSERVE, LEAKS_UNKNOWN, Running, app_folder, sweep, until

needs_gunicorn = pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None,
                                    reason="gunicorn is not installed here")

APP = '''
import os, time
def app(environ, start_response):
    if environ["PATH_INFO"] == "/hang":
        time.sleep(60)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")])
    return [b"ok\\n"]
'''

CONF = '''
import os
workers = 2
timeout = int(os.environ.get("TEST_TIMEOUT", "30"))
graceful_timeout = 10
control_socket_disable = True
me = ["master"]

def shown(value):
    if value is None or isinstance(value, (int, str)):
        return repr(value)
    if hasattr(value, "age"):
        return "worker:%d" % value.age
    if hasattr(value, "WORKERS"):
        return "server"
    if hasattr(value, "path"):
        return "request:" + value.path
    if isinstance(value, dict):
        return "environ" if value else "{}"
    if hasattr(value, "status"):
        return "response:" + str(value.status)
    return type(value).__name__

def say(hook, *arguments):
    line = " ".join([me[0], hook] + [shown(one) for one in arguments]) + "\\n"
    fd = os.open(os.environ["TEST_HOOKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(fd, line.encode())
    os.close(fd)

def nworkers_changed(server, new, old): say("nworkers_changed", server, new, old)
def on_starting(server): say("on_starting", server)
def when_ready(server): say("when_ready", server)
def on_reload(server): say("on_reload", server)
def on_exit(server): say("on_exit", server)
def pre_fork(server, worker): say("pre_fork", server, worker)
def child_exit(server, worker): say("child_exit", server, worker)
def post_fork(server, worker):
    me[0] = "worker:%d" % worker.age
    say("post_fork", server, worker)
    with open("%s.pid-%d" % (os.environ["TEST_HOOKS"], worker.age), "w") as file:
        file.write(str(os.getpid()))
def post_worker_init(worker): say("post_worker_init", worker)
def worker_int(worker): say("worker_int", worker)
def worker_abort(worker): say("worker_abort", worker)
def worker_exit(server, worker): say("worker_exit", server, worker)
def pre_request(worker, req): say("pre_request", worker, req)
def post_request(worker, req, environ, resp): say("post_request", worker, req, environ, resp)
'''


class Hooks:
    """The lines that the hooks wrote."""

    def __init__(self, path):
        self.path = path

    def lines(self):
        return self.path.read_text().splitlines() if self.path.exists() else []

    def wait(self, hook, count):
        until(lambda: sum(1 for one in self.lines() if one.split()[1] == hook) >= count,
              lambda: f"{hook} x{count}; hooks were:\n" + "\n".join(self.lines()))

    def by_process(self):
        """{process: [hook with arguments]}; neighbouring child_exit lines have no order."""
        found = {}
        for line in self.lines():
            process, _, rest = line.partition(" ")
            found.setdefault(process, []).append(rest)
        master, run, ordered = found.get("master", []), [], []
        for line in master + [""]:
            if line.startswith("child_exit"):
                run.append(line)
                continue
            ordered += sorted(run) + [line]
            run = []
        found["master"] = ordered[:-1]
        return found


def pid_of_age(server, hooks, age):
    """The pid of the worker with that age, as it wrote it down: pids wrap around, so their order
    says nothing."""
    pid = int(pathlib.Path("%s.pid-%d" % (hooks.path, age)).read_text())
    assert pid in server.workers()
    return pid


def ttin(server, hooks):
    server.process.send_signal(signal.SIGTTIN)
    hooks.wait("post_worker_init", 3)


def ttou(server, hooks):
    server.process.send_signal(signal.SIGTTOU)
    hooks.wait("child_exit", 1)


def hup(server, hooks):
    server.process.send_signal(signal.SIGHUP)
    hooks.wait("post_worker_init", 4)
    hooks.wait("child_exit", 2)


def kill(server, hooks):
    os.kill(pid_of_age(server, hooks, 1), signal.SIGKILL)
    hooks.wait("child_exit", 1)
    hooks.wait("post_worker_init", 3)


def term_one(server, hooks):
    os.kill(pid_of_age(server, hooks, 1), signal.SIGTERM)
    hooks.wait("child_exit", 1)
    hooks.wait("post_worker_init", 3)


def int_one(server, hooks):
    os.kill(pid_of_age(server, hooks, 1), signal.SIGINT)
    hooks.wait("child_exit", 1)
    hooks.wait("post_worker_init", 3)


def hang(server, hooks):
    def ask():
        try:
            server.get("/hang", timeout=60)
        except OSError:
            pass
    asking = threading.Thread(target=ask)
    asking.start()
    hooks.wait("child_exit", 1)
    asking.join(60)
    hooks.wait("post_worker_init", 3 if server.workers_wanted == 2 else 2)


def one_request(server, hooks):
    server.get("/one")
    hooks.wait("post_request", 1)


def nothing(server, hooks):
    pass


SCENARIOS = {
    "boot_and_term": (nothing, {}, signal.SIGTERM),
    "boot_and_int": (nothing, {}, signal.SIGINT),
    "boot_and_quit": (nothing, {}, signal.SIGQUIT),
    "ttin": (ttin, {}, signal.SIGTERM),
    "ttou": (ttou, {}, signal.SIGTERM),
    "hup": (hup, {}, signal.SIGTERM),
    "kill_of_a_worker": (kill, {}, signal.SIGTERM),
    "term_of_a_worker": (term_one, {}, signal.SIGTERM),
    "int_of_a_worker": (int_one, {}, signal.SIGTERM),
    "a_request": (one_request, {"workers": "1"}, signal.SIGTERM),
    "sync_timeout": (hang, {"workers": "1", "TEST_TIMEOUT": "2"}, signal.SIGTERM),
    "preload": (nothing, {"preload": "1"}, signal.SIGTERM),
}


def play(command, scenario):
    action, options, end = SCENARIOS[scenario]
    with app_folder(APP, gunicorn_conf_py=CONF) as folder:
        hooks = Hooks(folder / "hooks.txt")
        arguments = ["app:app"]
        count = int(options.get("workers", "2"))
        if count != 2:
            arguments += ["-w", str(count)]
        if "preload" in options:
            arguments += ["--preload"]
        environment = {"TEST_HOOKS": str(hooks.path),
                       "TEST_TIMEOUT": options.get("TEST_TIMEOUT", "30"),
                       **(LEAKS_UNKNOWN if "TEST_TIMEOUT" in options else {})}
        with Running(arguments, folder, environment, command=command) as server:
            server.workers_wanted = count
            hooks.wait("post_worker_init", count)
            server.port = int(server.line(r"Listening at: .*?:(\d+)")[1])
            until(lambda: len(server.workers()) >= count, "the workers run")
            action(server, hooks)
            assert server.stop(end) == 0, server.text
        return hooks.by_process()


@needs_gunicorn
@pytest.mark.parametrize("scenario", sweep(SCENARIOS, quick=[
    "boot_and_quit", "hup", "kill_of_a_worker", "a_request"]))
def test_hooks_come_in_gunicorns_order_with_its_arguments(scenario):
    theirs = play([sys.executable, "-m", "gunicorn"], scenario)
    ours = play([CTSERVE, "--no-tracing"], scenario)
    assert ours == theirs
