"""Every reference count ends where it began, also when a step on the way fails.

Under a debug build of CPython, whose objects lie in malloc for this (PYTHONMALLOC), the preloaded
library of tests/faults lets one allocation, of the C layer or of CPython, or one system call of
the worker fail while a request is served. A pass makes each chosen call fail once; a pass without
any growth of the total of all references shows that no failure leaves a reference behind, because
a leak is there in every pass. What fills a cache, or is let go later, is not.

Of malloc and realloc every second or third call is chosen, from another start for each kind of
request: what the kinds have in common is hit at every call. The nightly run takes all calls.
"""
import pathlib
import re
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faults"))
from exchanges import APP, HOOKS, KINDS, exchange, total_of  # noqa: E402
from faulty import Faulty, library, until  # noqa: E402
from harness import SANITIZED  # noqa: E402
from test_references import WHICH, arguments_for, ready  # noqa: E402

MODES = [which for which in WHICH if which != "chosen"]
if SANITIZED or not library().exists():
    pytest.skip("needs a build with tests/faults and without sanitizers", allow_module_level=True)
if not MODES:
    pytest.skip("only a debug build of CPython counts references", allow_module_level=True)

#: These are many, and most of them are CPython's.
MANY = ["malloc", "realloc"]
FUNCTIONS = [*MANY, "calloc", "recv", "send", "sendmsg", "read", "write", "accept4", "epoll_ctl",
             "epoll_wait", "poll", "shutdown"]
#: Their tracebacks go through Python's logging, with more allocations than all the rest.
LOGGED = ["an exception before the head", "an exception after the head", "a bad status",
          "a bad header"]
FAILURES_COUNT = 1000
PASSES_COUNT = 12
#: The debug build looks at itself while Python code (here that of logging and traceback) is unwound
#: without memory, and does not always like what it sees; that ends the worker.
CPYTHON_ASSERTS = re.compile(
    r"\.\./(?:Python|Objects|Modules|Parser)/\w+\.c:\d+: \w+: Assertion|"
    r"_Py_CheckSlotResult: Slot \S+ of type (?:int|str|list|tuple|dict|set) succeeded with")
CPYTHON_ASSERTS_MAX = 40   # of one kind of request
EXITING = 4   # PF_EXITING in the flags of /proc/PID/stat: set before its sockets are closed


class Service(Faulty):
    """One worker that fails on order, and what is known of it. Asked over a unix socket: each client
    of a TCP port has another port, which the worker remembers for a while."""

    def __init__(self, arguments, folder):
        self.where = folder / "refs.sock"
        super().__init__(["-b", "127.0.0.1:0", "-b", f"unix:{self.where}", *arguments], folder,
                         {"PYTHONMALLOC": "malloc_debug"})

    def start(self):
        ready(self)
        self.asserts_count = 0
        self.worker = self.workers()[0]
        for raw in list(KINDS.values()) * 2:
            exchange(self.where, raw)
        return self

    def calls_of(self, function, raw):
        """How many calls of `function` does this request make?"""
        self.fail(self.worker, function, 1 << 30)
        exchange(self.where, raw)
        self.nothing_fails()
        return self.calls_count()

    def is_there(self):
        try:
            fields = pathlib.Path(f"/proc/{self.worker}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return int(fields[6]) & EXITING == 0

    def failed_at(self, function, call, raw):
        """One request whose `call` fails. 1, or 0 when it made fewer calls this time."""
        self.fail(self.worker, function, call)
        exchange(self.where, raw)
        self.nothing_fails()
        return self.failed_count()

    def next_worker(self):
        """The worker is gone: then CPython has asserted, and said so; wait for another."""
        def asserts_count():
            return len(CPYTHON_ASSERTS.findall(self.text))

        until(lambda: asserts_count() > self.asserts_count,
              lambda: "why the worker died:\n" + self.text[-6000:], 10)
        self.asserts_count = asserts_count()
        until(lambda: self.workers() not in ([], [self.worker]), lambda: "a worker\n" + self.text)
        self.worker = self.workers()[0]
        until(self.answers_well, lambda: "a good answer\n" + self.text)


@pytest.fixture(scope="module", params=MODES)
def service(request, tmp_path_factory):
    arguments = arguments_for(request.param)
    folder = tmp_path_factory.mktemp("refs")
    (folder / "app.py").write_text(APP)
    (folder / "gunicorn.conf.py").write_text(HOOKS)
    with Service([*arguments, "--workers", "1", "--trace-api", "off", "app:app"], folder) as running:
        yield running.start()


def chosen(service, kind, functions, step):
    """(function, call, request) for the calls that shall fail while a request of `kind` is served."""
    raw, offset = KINDS[kind], list(KINDS).index(kind)
    return [(function, call, raw)
            for function in functions
            for call in range(1, service.calls_of(function, raw) + 1)
            if function not in MANY or (call + offset) % step == 0]


def one_pass(service, steps):
    """(growth, how many requests failed). A step at which CPython asserts is taken out of `steps`,
    and growth is None then: it would be another worker's."""
    before, fired = total_of(service.where), 0
    for step in list(steps):
        fired += service.failed_at(*step)
        if not service.is_there():
            steps.remove(step)
            service.next_worker()
            return None, fired
    return total_of(service.where) - before, fired


def settle(service, steps):
    """Passes until one of them leaves the total as it was; how many requests failed in that one."""
    growths = []
    while len(growths) < PASSES_COUNT:
        growth, fired = one_pass(service, steps)
        if growth == 0:
            return fired
        if growth is not None:
            growths.append(growth)
    pytest.fail(f"{len(steps)} failures changed the total by {growths}")


def sweep(service, kind, step):
    """Function by function, so that little has to settle at a time."""
    fired = asserts = 0
    for function in FUNCTIONS:
        steps = chosen(service, kind, [function], step)
        wanted = len(steps)
        fired += settle(service, steps)
        asserts += wanted - len(steps)
    assert asserts <= CPYTHON_ASSERTS_MAX
    print(f"{fired} requests failed, {asserts} calls left out")
    return fired


def test_a_thousand_mixed_requests_that_failed_leave_the_total_as_it_was(service):
    steps = [step for kind in KINDS
             for step in chosen(service, kind, [one for one in FUNCTIONS if one not in MANY or
                                                kind not in LOGGED], 2)]
    fired = settle(service, steps)
    print(f"{fired} requests failed")
    assert fired >= FAILURES_COUNT


@pytest.mark.parametrize("kind", LOGGED)
def test_an_exception_whose_report_fails_leaves_no_reference_behind(kind, service):
    assert sweep(service, kind, 3) >= 1


@pytest.mark.nightly
@pytest.mark.parametrize("kind", KINDS)
def test_a_request_that_fails_at_any_step_leaves_no_reference_behind(kind, service):
    assert sweep(service, kind, 1) >= 1


def test_the_measurement_sees_a_leak_where_a_step_failed(tmp_path):
    """An application that keeps one object for each failure it sees never settles."""
    (tmp_path / "app.py").write_text(APP + "\nkept = []\ninner = app\n"
                                     "def app(environ, start_response):\n"
                                     "    try:\n"
                                     "        return inner(environ, start_response)\n"
                                     "    except MemoryError:\n"
                                     "        kept.append([environ['PATH_INFO']])\n"
                                     "        raise\n")
    with Service([*arguments_for(MODES[0]), "--workers", "1", "--trace-api", "off", "app:app"],
                 tmp_path) as running:
        running.start()
        with pytest.raises(pytest.fail.Exception, match="failures changed the total"):
            settle(running, chosen(running, "a body that is read", ["malloc"], 1))
