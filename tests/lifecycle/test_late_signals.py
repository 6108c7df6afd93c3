"""The second order: what comes while a process is already on its way out changes nothing."""
import os
import pathlib
import signal
import textwrap

import pytest

from harness import Running, app_folder, until

# The end of the interpreter is held open where the default handlers are back: what a module holds
# is finalized after every atexit function. It says so and waits for the permission to go on.
APP = textwrap.dedent('''
    import os, pathlib, sys, time, types

    class Last:
        def __init__(self):
            self.pid = os.getpid()
        def __del__(self, os=os, pathlib=pathlib, time=time):
            if self.pid != os.getpid():
                return
            pathlib.Path("last.%d" % self.pid).write_text("")
            for _ in range(6000):
                if pathlib.Path("go").exists():
                    break
                time.sleep(0.01)

    # In a module that nobody holds but the interpreter.
    keeper = types.ModuleType("keeper")
    keeper.last = Last()
    sys.modules["keeper"] = keeper
    del keeper

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "3")])
        return [b"ok\\n"]
''')
LATE = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT]


@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_a_worker_that_leaves_exits_with_zero_however_often_it_is_told_to(kind):
    with app_folder(APP) as folder:
        with Running(["--no-tracing", "-k", kind, "--threads", "2", "app:app"], folder) as server:
            server.ready()
            worker = server.workers()[0]
            os.kill(worker, signal.SIGTERM)
            until((folder / f"last.{worker}").exists, lambda: "the end; the log:\n" + server.text)
            for signo in LATE:
                os.kill(worker, signo)
            (folder / "go").write_text("")
            server.line("Booting worker", count=2)
            until(lambda: not pathlib.Path(f"/proc/{worker}").exists(), "the worker is reaped")
            assert server.stop() == 0
            assert f"(pid:{worker}) was sent" not in server.text
            assert f"(pid:{worker}) exited with code" not in server.text


CONF = textwrap.dedent('''
    import app
    def on_exit(server):
        open("on_exit", "a").write("once\\n")
''')


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_master_that_leaves_exits_with_zero_however_often_it_is_told_to(signo):
    with app_folder(APP, gunicorn_conf_py=CONF) as folder:
        server = Running(["--no-tracing", "app:app"], folder).ready()
        master = server.process.pid
        for worker in server.workers():
            (folder / f"last.{worker}").touch()
        os.kill(master, signal.SIGTERM)
        until((folder / f"last.{master}").exists, lambda: "the end; the log:\n" + server.text)
        for late in (signo, signal.SIGTERM):
            os.kill(master, late)
        (folder / "go").write_text("")
        assert server.stop(signo) == 0
        assert (folder / "on_exit").read_text() == "once\n"


def test_every_worker_of_a_service_that_stops_is_seen_to_leave_and_none_to_be_killed():
    with app_folder(APP) as folder:
        (folder / "go").write_text("")
        server = Running(["--no-tracing", "-w", "4", "app:app"], folder).ready()
        assert server.stop() == 0
        assert "was sent" not in server.text
