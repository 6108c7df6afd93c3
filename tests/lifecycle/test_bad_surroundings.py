"""What is broken around the server is said in one sentence, and what served goes on serving."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest

from harness import CTSERVE, SANITIZED, Running, app_folder, until

APP = textwrap.dedent('''
    import os

    def app(environ, start_response):
        body = b"%d %s\\n" % (os.getpid(), os.environb.get(b"GENERATION", b"?"))
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
''')
GOOD = "raw_env = ['GENERATION=one']\n"


def a_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def no_permission(path):
    path.write_text(GOOD)
    path.chmod(0)


BROKEN = {
    "a folder": (a_folder, r"IsADirectoryError|[Ii]s a directory"),
    "rubbish": (lambda path: path.write_bytes(bytes(range(256)) * 16), r"null bytes|SyntaxError"),
    "another encoding": (lambda path: path.write_bytes(b"name = '\xff\xfe'\n"), r"utf-8|SyntaxError"),
    "a syntax error": (lambda path: path.write_text("workers = (\n"), r"SyntaxError"),
    "a value of the wrong kind": (lambda path: path.write_text("workers = 'many'\n"), r"workers: 'many'"),
    "an exit": (lambda path: path.write_text("raise SystemExit('enough')\n"), r"enough"),
}
if os.geteuid() != 0:  # root may read everything
    BROKEN["unreadable"] = (no_permission, r"Permission denied")


@pytest.mark.parametrize("what", BROKEN)
def test_a_config_file_that_cannot_be_read_ends_the_start_with_one(what):
    breaks, sentence = BROKEN[what]
    with app_folder(APP) as folder:
        breaks(folder / "gunicorn.conf.py")
        done = subprocess.run([CTSERVE, "-b", "127.0.0.1:0", "app:app"], cwd=folder, timeout=60,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace")
    assert done.returncode == 1, done.stdout
    assert re.search(sentence, done.stdout), done.stdout
    assert "gunicorn.conf.py" in done.stdout or "workers" in done.stdout or what == "an exit"
    # No frame that the user did not write.
    assert "importlib" not in done.stdout and "_config.py" not in done.stdout
    assert len(done.stdout.splitlines()) <= 8, done.stdout


@pytest.mark.parametrize("what", BROKEN)
def test_a_config_file_that_cannot_be_read_leaves_the_old_generation_serving(what):
    breaks, sentence = BROKEN[what]
    with app_folder(APP, gunicorn_conf_py=GOOD) as folder:
        with Running(["--no-tracing", "app:app"], folder) as server:
            server.ready()
            first = server.get()
            assert first.endswith(b"one\n")
            breaks(folder / "gunicorn.conf.py")
            server.process.send_signal(signal.SIGHUP)
            server.line("Reload failed, the old workers go on serving")
            until(lambda: re.search(sentence, server.text), lambda: server.text)
            assert server.get() == first
            # A worker that dies now is replaced by one of the old generation.
            os.kill(int(first.split()[0]), signal.SIGKILL)
            server.line("Booting worker", count=2)
            assert server.get().endswith(b" one\n")
            assert server.stop() == 0


def test_the_directory_goes_back_to_the_start_when_chdir_has_left_the_file():
    app = APP.replace('os.environb.get(b"GENERATION", b"?")', "os.fsencode(os.getcwd())")
    with app_folder(app) as folder:
        (folder / "sub").mkdir()
        shutil.copy(folder / "app.py", folder / "sub" / "app.py")
        conf = folder / "gunicorn.conf.py"
        conf.write_text("chdir = 'sub'\n")
        with Running(["--no-tracing", "app:app"], folder) as server:
            server.ready()

            def directory():
                return pathlib.Path(os.fsdecode(server.get().split()[1]))

            assert directory() == (folder / "sub").resolve()
            conf.write_text("syntax error here\n")
            server.process.send_signal(signal.SIGHUP)
            server.line("Reload failed")
            os.kill(int(server.get().split()[0]), signal.SIGKILL)
            server.line("Booting worker", count=2)
            assert directory() == (folder / "sub").resolve()
            conf.write_text("")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: directory() == folder.resolve(), lambda: str(directory()))
            conf.write_text("chdir = 'sub'\n")
            server.process.send_signal(signal.SIGHUP)
            until(lambda: directory() == (folder / "sub").resolve(), lambda: str(directory()))


def test_what_was_handed_to_the_server_alone_is_not_handed_on():
    app = APP.replace('os.environb.get(b"GENERATION", b"?")',
                      "repr(sorted(n for n in os.environ if n[:7] in ('LISTEN_', 'GUNICOR'))).encode()")
    with app_folder(app) as folder:
        # exec keeps the pid, so LISTEN_PID is right; one socket is handed over as descriptor 3.
        launch = textwrap.dedent("""
            import os, socket, sys
            one = socket.create_server(("127.0.0.1", 0))
            os.dup2(one.fileno(), 3)
            os.set_inheritable(3, True)
            os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="web")
            os.execv(sys.argv[1], sys.argv[1:])
        """)
        with Running(["--no-tracing", "app:app"], folder, bind=False,
                     command=[sys.executable, "-c", launch, CTSERVE]) as server:
            server.ready()
            assert server.get().split(None, 1)[1] == b"[]\n"
            assert server.stop() == 0


HOSTILE = textwrap.dedent('''
    import functools, os, socket, stat

    @functools.cache
    def control():
        """The descriptor of the worker's end of its control socket."""
        for name in os.listdir("/proc/self/fd"):
            fd = int(name)
            try:
                if not stat.S_ISSOCK(os.fstat(fd).st_mode):
                    continue
            except OSError:
                continue
            found = socket.socket(fileno=os.dup(fd))
            if found.family == socket.AF_UNIX and found.type & socket.SOCK_SEQPACKET == socket.SOCK_SEQPACKET:
                return found

    def send(packet):
        try:
            control().send(packet)
        except BlockingIOError:
            pass

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/attack":
            for packet in [b"?", b"\\0" * 4000, b"R" * 4096, b"L", b"F", b"F\\0\\0", b"F" + b"A" * 4095,
                           b"F" + b"\\xff" * 10, bytes(range(256)) * 16, b"x" * 60000]:
                send(packet)
            for number in range(2000):
                send(os.urandom(number % 700 + 1).replace(b"L", b"M"))
        if environ["PATH_INFO"] == "/leaving":
            send(b"L\\xff")
        body = b"%d\\n" % os.getpid()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
''')


def test_a_worker_that_talks_rubbish_to_the_master_disturbs_nobody():
    with app_folder(HOSTILE) as folder:
        with Running(["-w", "2", "app:app"], folder) as server:
            server.ready()
            for _ in range(10):
                server.get("/attack")
            server.get("/leaving")
            assert server.get("/")
            victims = server.workers()
            os.kill(victims[0], signal.SIGKILL)
            server.line("Booting worker", count=3)
            assert server.get("/")
            assert server.stop() == 0


def elsewhere(folder):
    """A copy of the program in a prefix of its own, whose agent can be taken away."""
    build = pathlib.Path(CTSERVE).absolute().parent
    package = folder / "prefix/lib/ctserve/ctserve"
    shutil.copytree(pathlib.Path(__file__).resolve().parents[2] / "python/ctserve", package,
                    ignore=shutil.ignore_patterns("__pycache__"))
    for core in (build / "src/core").glob("_core.*.so"):
        shutil.copy(core, package)
    (folder / "prefix/bin").mkdir()
    shutil.copy(CTSERVE, folder / "prefix/bin/ctserve")
    return folder / "prefix/bin"


def missing(path):
    assert not path.exists()


def not_executable(path):
    path.write_text("#!/bin/sh\n")
    path.chmod(0o644)


def no_program(path):
    path.write_bytes(b"\x7fELF rubbish")
    path.chmod(0o755)


@pytest.mark.skipif(SANITIZED, reason="the copy would need the build's own folders")
@pytest.mark.parametrize("breaks", [missing, not_executable, no_program])
def test_an_agent_that_cannot_be_started_is_said_once_and_serving_goes_on(breaks):
    with app_folder(APP) as folder:
        binaries = elsewhere(folder)
        breaks(binaries / "ctserve-agent")
        with Running(["app:app"], folder, command=[binaries / "ctserve"]) as server:
            server.ready()
            assert server.get()
            server.line("ctserve-agent")
            for _ in range(20):
                assert server.get()
            assert server.stop() == 0
            said = [line for line in server.lines if "ctserve-agent" in line]
            assert len(said) == 1, server.text
