"""Every reference count ends where it began.

The application runs under a debug build of CPython, which counts all references there are, and
tells the total after a garbage collection. A leak of one reference per request shows as at least
REQUESTS_COUNT; what moves by itself (interned numbers, a log record kept for a while) stays far
below. PYDEBUG names the interpreter (default: python3.11-dbg or python3-dbg on PATH); it needs a
_core of its own (-Dpythons=...,python3.11-dbg). The interpreter that CTSERVE_CMD_ARGS chooses is
measured too, by the memory blocks it has allocated. CTSERVE_REFS says which of them to measure.
"""

import os
import shutil
import signal

import pytest

from exchanges import APP, HOOKS, KINDS, exchange, total_of
from harness import SANITIZED, Running, until

PYDEBUG = os.environ.get("PYDEBUG") or shutil.which("python3.11-dbg") or shutil.which("python3-dbg")

#: embed and host mean PYDEBUG in that mode, chosen the interpreter of CTSERVE_CMD_ARGS.
WHICH = os.environ.get("CTSERVE_REFS", "embed,host,chosen").split(",")

REQUESTS_COUNT = 300
WARM_UP_COUNT = 60
NOISE_MAX = 30
ATTEMPTS_COUNT = 8

def arguments_for(which):
    """What chooses the interpreter for one parameter of `served`, or a skip."""
    if which == "chosen":
        if SANITIZED:
            pytest.skip("PYTHONMALLOC=malloc counts no blocks")
        return []
    if not PYDEBUG:
        pytest.skip("no debug build of CPython (Debian: apt install python3-dbg)")
    if SANITIZED and which == "host":
        pytest.skip("a sanitized _core cannot be loaded by a python that is not")
    return ["--python", PYDEBUG, "--interpreter", which]


def ready(server):
    try:
        return server.ready()
    except AssertionError as error:
        for reason in ("no _core.", "no shared libpython"):
            if reason in str(error):
                pytest.skip(reason + " for " + str(PYDEBUG))
        raise


@pytest.fixture(scope="module", params=WHICH)
def served(request, tmp_path_factory):
    arguments = arguments_for(request.param)
    folder = tmp_path_factory.mktemp("refs")
    (folder / "app.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(HOOKS)
    with Running([*arguments, "--workers", "1", "--trace-api", "off", "app:app"],
                 cwd=folder) as server:
        ready(server)
        server.folder = folder
        yield server


@pytest.mark.parametrize("kind", KINDS)
def test_requests_leave_no_reference_behind(kind, served):
    raw = KINDS[kind]
    for _ in range(WARM_UP_COUNT):
        exchange(served.port, raw)
    total_of(served.port)
    growths = []
    for _ in range(ATTEMPTS_COUNT):
        before = total_of(served.port)
        for _ in range(REQUESTS_COUNT):
            exchange(served.port, raw)
        growths.append(total_of(served.port) - before)
        if abs(growths[-1]) <= NOISE_MAX:
            return
    pytest.fail("%d requests of kind %r changed the total by %s" % (REQUESTS_COUNT, kind, growths))


def test_the_measurement_sees_a_leak(tmp_path):
    """The same measurement finds one reference per request, so that its silence means something."""
    arguments = arguments_for("chosen" if "chosen" in WHICH and not SANITIZED else WHICH[0])
    (tmp_path / "app.py").write_text(APP + "\nkept = []\ninner = app\n"
                                     "def app(environ, start_response):\n"
                                     "    kept.append(object())\n"
                                     "    return inner(environ, start_response)\n")
    with Running([*arguments, "--workers", "1", "--trace-api", "off", "app:app"],
                 cwd=tmp_path) as server:
        ready(server)
        before = total_of(server.port)
        for _ in range(REQUESTS_COUNT):
            exchange(server.port, KINDS["plain"])
        assert total_of(server.port) - before >= REQUESTS_COUNT


def test_workers_that_come_and_go_leave_no_reference_in_the_master(served):
    """TTIN and TTOU; the master tells its total in child_exit."""
    told = served.folder / "master-total"
    told.unlink(missing_ok=True)

    def totals():
        return [int(line) for line in told.read_text().split()] if told.exists() else []

    rounds = 30
    for i in range(rounds):
        served.process.send_signal(signal.SIGTTIN)
        until(lambda: len(served.workers()) == 2, lambda: "a second worker\n" + served.text)
        served.process.send_signal(signal.SIGTTOU)
        until(lambda: len(totals()) == i + 1, lambda: "child_exit %d\n%s" % (i + 1, served.text))
    seen = totals()
    # The first rounds fill caches; after that a worker that is gone costs nothing.
    assert abs(seen[-1] - seen[rounds // 3]) <= NOISE_MAX, seen
