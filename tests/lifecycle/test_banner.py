"""A terminal gets a few lines, one per fact; a log gets gunicorn's lines."""
import os
import pty
import re
import signal
import subprocess
import threading

import pytest

from harness import CTSERVE, Running, app_folder, until

APP = '''
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "3")])
    return [b"ok\\n"]
'''


class Terminal:
    """ctserve with a pseudo terminal as its stderr."""

    def __init__(self, arguments, cwd, **environment):
        ours, theirs = pty.openpty()
        known = {name: value for name, value in os.environ.items()
                 if name not in ("NO_COLOR", "FORCE_COLOR")}
        self.process = subprocess.Popen(
            [CTSERVE, "-b", "127.0.0.1:0", *arguments], cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=theirs, stderr=theirs, env={**known, "TERM": "xterm", **environment})
        os.close(theirs)
        self.fd, self.text = ours, ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        while True:
            try:
                part = os.read(self.fd, 65536)
            except OSError:
                return
            if not part:
                return
            self.text += part.decode(errors="replace").replace("\r", "")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._reader.join(10)
        os.close(self.fd)


def facts(text):
    return [line for line in text.splitlines() if line and not line.startswith("[")]


def test_a_terminal_hears_in_six_lines_what_runs_where_before_the_workers_boot():
    with app_folder(APP) as folder:
        with Terminal(["-w", "2", "app:app"], folder) as terminal:
            until(lambda: "ready in" in terminal.text and "traces " in terminal.text,
                  lambda: terminal.text)
        lines = facts(terminal.text.split("Handling signal")[0])
        assert len(lines) == 6, terminal.text
        assert re.match(r"\x1b\[1mctserve \S+\x1b\[0m · CPython 3\.\d+\.\d+ \(.*, (embedded|hosted)\) "
                        r"· pid \d+$", lines[0])
        assert lines[1] == "app      app:app"
        assert re.match(r"listen   http://127\.0\.0\.1:\d+$", lines[2])
        assert lines[3] == "workers  2 sync, timeout 30 s"
        last = sorted(lines[4:])
        assert re.match(r"ready in \d+ ms · WSGI \(callable takes 2 arguments\)$", last[0])
        assert re.match(r"traces   http://127\.0\.0\.1:\d+/\?t=\w+$", last[1])
        assert terminal.text.index("workers  2") < terminal.text.index("Booting worker")


def test_with_preload_the_kind_of_application_stands_beside_its_name():
    with app_folder(APP) as folder:
        with Terminal(["--preload", "--no-tracing", "app:app"], folder) as terminal:
            until(lambda: "ready in" in terminal.text, lambda: terminal.text)
        assert "app      app:app  WSGI (callable takes 2 arguments)\n" in terminal.text
        assert re.search(r"^ready in \d+ ms$", terminal.text, re.M)


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}])
def test_who_wants_no_colour_gets_none(environment):
    with app_folder(APP) as folder:
        with Terminal(["--no-tracing", "app:app"], folder, **environment) as terminal:
            until(lambda: "ready in" in terminal.text, lambda: terminal.text)
        assert "\x1b" not in terminal.text


def test_a_dumb_terminal_and_a_log_get_the_lines_that_people_grep_for():
    with app_folder(APP) as folder:
        with Terminal(["--no-tracing", "app:app"], folder, TERM="dumb") as terminal:
            until(lambda: "Booting worker with pid" in terminal.text, lambda: terminal.text)
        with Running(["--no-tracing", "app:app"], folder) as server:
            server.ready()
        for text in (terminal.text, server.text):
            assert "Listening at: http://127.0.0.1:" in text
            assert "Using worker: sync" in text
            assert "ready in" not in text


def test_titles_and_settings_name_the_application():
    with app_folder(APP, gunicorn_conf_py="default_proc_name = 'till'\n") as folder:
        for extra, name in ((["-c", "none"], "app:app"), ([], "till"), (["-n", "shop"], "shop")):
            if extra[:1] == ["-c"]:
                (folder / "none").write_text("")
            with Running(["--no-tracing", *extra, "app:app"], folder) as server:
                server.ready()

                def title(pid):
                    return open(f"/proc/{pid}/cmdline").read().split("\0")[0]

                until(lambda: title(server.process.pid) == f"ctserve: master [{name}]",
                      lambda: title(server.process.pid))
                assert title(server.workers()[0]) == f"ctserve: worker [{name}]"
