"""A process that the application forks inside a worker is the application's: our signal handlers
are not in it, so it ends when it is told to (under gunicorn Pool.terminate() hangs there)."""
import json
import signal
import textwrap

import pytest

from harness import SANITIZED, Running, app_folder

APP = textwrap.dedent('''
    import json, multiprocessing, os, signal, threading, time

    context = multiprocessing.get_context("fork")

    def square(number):
        return number * number

    def pool():
        # leaving the block is Pool.terminate(): SIGTERM to children that wait for work
        with context.Pool(2) as workers:
            found = workers.map(square, range(5))
        return {"found": found}

    def process():
        child = context.Process(target=time.sleep, args=(600,))
        child.start()
        child.terminate()
        child.join(30)
        return {"exitcode": child.exitcode}

    def plain():
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            status = open("/proc/self/status").read()
            os.write(writable, status.encode())
            os._exit(0)
        os.close(writable)
        status = b""
        while True:
            part = os.read(readable, 65536)
            if not part:
                break
            status += part
        os.close(readable)
        os.waitpid(child, 0)
        fields = dict(line.split(":", 1) for line in status.decode().splitlines() if ":" in line)
        return {"caught": int(fields["SigCgt"], 16), "blocked": int(fields["SigBlk"], 16)}

    def app(environ, start_response):
        path = environ["PATH_INFO"].strip("/")
        body = json.dumps({"pool": pool, "process": process, "plain": plain}.get(
            path, lambda: {"pid": os.getpid()})()).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
''')
KINDS = {"sync": ["-k", "sync"], "gthread": ["-k", "gthread", "--threads", "3"]}
# A sanitized _core cannot be loaded by a python that is not.
MODES = ["embed"] if SANITIZED else ["embed", "host"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_the_application_forks_ends_when_it_is_told_to(kind, mode):
    with app_folder(APP) as folder:
        with Running([*KINDS[kind], "--interpreter", mode, "-t", "60", "app:app"], folder) as server:
            server.ready()
            worker = json.loads(server.get("/"))["pid"]
            for _ in range(3):
                assert json.loads(server.get("/pool")) == {"found": [0, 1, 4, 9, 16]}
            assert json.loads(server.get("/process")) == {"exitcode": -signal.SIGTERM}
            seen = json.loads(server.get("/plain"))
            for signo in (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGABRT,
                          signal.SIGINT, signal.SIGTTIN, signal.SIGWINCH):
                assert not seen["caught"] >> (signo - 1) & 1, signo
                assert not seen["blocked"] >> (signo - 1) & 1, signo
            # The worker has kept its own.
            assert json.loads(server.get("/"))["pid"] == worker
            assert server.stop() == 0
            assert "was sent" not in server.text
