"""Exit codes are gunicorn's, and the text says what to do."""
import os
import signal
import socket
import subprocess

import pytest

from harness import CTSERVE, Running, app_folder

APP = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
number = 5
'''


def run(arguments, app=APP, environment=None, **files):
    with app_folder(app, **files) as folder:
        done = subprocess.run([CTSERVE, "--no-tracing", *arguments], cwd=folder, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, **(environment or {})})
        return done.returncode, done.stdout


LOOPBACK = ["-b", "127.0.0.1:0"]
CASES = {
    "an_unknown_option": (["--wrokers", "4", "app:app"], 2, "--workers"),
    "a_number_that_is_none": (["-w", "four", "app:app"], 2, "four"),
    "no_application": ([], 1, ""),
    "a_missing_config_file": (["-c", "nowhere.py", "app:app"], 1, "nowhere.py"),
    "a_bad_address": (["-b", "127.0.0.1:port", "app:app"], 1, "port"),
    "a_missing_module": ([*LOOPBACK, "nowhere:app"], 3, "Worker failed to boot."),
    "a_missing_attribute": ([*LOOPBACK, "app:nothing"], 4, "App failed to load."),
    "something_not_callable": ([*LOOPBACK, "app:number"], 4, "App failed to load."),
    "a_missing_module_with_preload": ([*LOOPBACK, "--preload", "nowhere:app"], 1, "nowhere"),
    "a_missing_attribute_with_four_workers": ([*LOOPBACK, "-w", "4", "app:nothing"], 4,
                                              "App failed to load."),
    "a_pid_file_in_no_folder": ([*LOOPBACK, "-p", "nowhere/pid", "app:app"], 1, "nowhere/pid"),
    "a_folder_that_is_not_there": (["--chdir", "nowhere", "app:app"], 1, "nowhere"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_start_ends_with_the_right_code_for(case):
    arguments, code, word = CASES[case]
    got, text = run(arguments)
    assert got == code, text
    assert word in text


HOOKS = {
    "on_starting": ("def on_starting(server): raise RuntimeError('told to')", 1),
    "when_ready": ("def when_ready(server): raise RuntimeError('told to')", 1),
    "nworkers_changed": ("def nworkers_changed(server, new, old): raise RuntimeError('told to')", 1),
    "pre_fork": ("def pre_fork(server, worker): raise RuntimeError('told to')", 255),
    "post_fork": ("def post_fork(server, worker): raise RuntimeError('told to')", 3),
    "post_worker_init": ("def post_worker_init(worker): raise RuntimeError('told to')", 3),
}


@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_that_raises_at_the_start_ends_it(hook):
    source, code = HOOKS[hook]
    got, text = run([*LOOPBACK, "app:app"], gunicorn_conf_py=source)
    assert got == code, text
    assert "told to" in text


def test_a_child_exit_hook_that_raises_is_logged_and_the_service_goes_on():
    conf = "def child_exit(server, worker): raise RuntimeError('told to')"
    with app_folder(APP, gunicorn_conf_py=conf) as folder:
        with Running(["--no-tracing", "app:app"], folder) as server:
            server.ready()
            first = server.workers()[0]
            os.kill(first, signal.SIGKILL)
            server.line("child_exit hook failed")
            server.line("Booting worker", count=2)
            assert server.get("/") == b"ok\n"
            assert server.stop() == 0


def test_an_on_exit_hook_that_raises_makes_the_code_one():
    conf = "def on_exit(server): raise RuntimeError('told to')"
    with app_folder(APP, gunicorn_conf_py=conf) as folder:
        server = Running(["--no-tracing", "app:app"], folder).ready()
        assert server.stop() == 1
        assert "told to" in server.text


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_the_service_with_zero(signo):
    with app_folder(APP) as folder:
        server = Running(["--no-tracing", "app:app"], folder).ready()
        assert server.stop(signo) == 0
        assert "Shutting down: Master" in server.text


def test_check_config_says_0_for_a_good_one_and_1_for_a_bad_one():
    assert run(["--check-config", "app:app"])[0] == 0
    assert run(["--check-config", "app:nothing"])[0] == 1
    assert run(["--check-config", "nowhere:app"])[0] == 1


def test_print_config_prints_every_setting():
    code, text = run(["--print-config", "-w", "7", "app:app"])
    assert code == 0, text
    assert any(line.split("=")[0].strip() == "workers" and line.split("=")[1].strip() == "7"
               for line in text.splitlines() if "=" in line)


def test_a_port_in_use_is_tried_five_times_then_its_holder_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, text = run(["-b", f"127.0.0.1:{port}", "app:app"])
    assert code == 1, text
    assert text.count("Connection in use") == 4
    assert f"pid {os.getpid()}" in text
    assert "next free port" in text
