"""Each allocation and system call on the way of a request fails once, at its first, second ...
call: the process lives, or ends with a message and is replaced. Nothing hangs, nothing crashes, and
a good request afterwards is answered."""
import contextlib
import errno
import os
import signal
import socket
import time

import pytest

from faulty import Faulty, library, until
from harness import SANITIZED, app_folder, is_read
from harness import sweep as chosen

pytestmark = pytest.mark.skipif(SANITIZED or not library().exists(),
                                reason="needs a build with tests/faults and without sanitizers")

APP = '''
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/file":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return environ["wsgi.file_wrapper"](open("large", "rb"))
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"l" * 1000000] * 12)
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return iter([b"piece\\n" * 2000] * 8)
    start_response("200 OK", [("Content-Length", str(len(body) + 2))])
    return [b"ok" + body]
'''
KINDS = {"sync": ["-w", "1", "--keep-alive", "5"],
         "gthread": ["-w", "1", "-k", "gthread", "--threads", "2", "--keep-alive", "5"]}
#: Every way through a connection: split head, kept, pipelined, bodies whole, streamed, chunked.
LAST = b"GET /last HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
REQUESTS = [
    b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 3 + LAST,
    b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000 + LAST,
    b"POST /stream HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
    + b"4e20\r\n" + b"y" * 20000 + b"\r\n0\r\n\r\n" + LAST,
    b"GET / HTTP/1.1\nbad\n\n",
    b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1200000\r\n\r\n" + b"z" * 1200000 + LAST,
    b"GET /file HTTP/1.1\r\nHost: t\r\n\r\n" + LAST,
]
IN_WORKER = ["malloc", "calloc", "realloc", "mmap", "read", "recv", "send", "sendmsg", "write",
             "accept4", "epoll_ctl", "epoll_wait", "poll", "shutdown", "eventfd", "pread", "pwrite",
             "sendfile"]
#: Made by every service on these ways; the others only sometimes.
ALWAYS = {"malloc", "calloc", "realloc", "read", "send", "accept4", "epoll_ctl", "epoll_wait",
          "shutdown", "pread", "pwrite", "sendfile"}


@pytest.fixture(scope="module", params=KINDS)
def master(request):
    with app_folder(APP) as folder:
        (folder / "large").write_bytes(b"f" * 200000)
        with Faulty([*KINDS[request.param], "--timeout", "0", "--trace-api", "off", "app:app"],
                    folder) as running:
            yield running.ready()


@pytest.fixture
def service(master):
    """A service whose worker is new, so that what is made at its first request is made again."""
    master.nothing_fails()
    before = master.workers()
    for pid in before:
        os.kill(pid, signal.SIGTERM)
    until(lambda: replaced(master, before, len(before)), lambda: "another worker:\n" + master.text)
    # One that has answered can be killed, and the next one starts at once.
    assert master.is_sound()
    return master


def worker_of(service):
    return until(service.workers, "a worker")[0]


def sweep(service, function, first_calls):
    """Let each of these calls fail once, up to the first that the requests do not make; how many."""
    count = 0
    for first in first_calls:
        service.fail(worker_of(service), function, first)
        for raw in REQUESTS:
            service.exchange(raw)
            if service.failed_count() > 0:
                break
        fired = service.failed_count() > 0
        service.nothing_fails()
        service.is_sound()
        if not fired:
            break
        count += 1
    return count


@pytest.mark.parametrize("function", IN_WORKER)
def test_the_first_calls_on_the_way_of_a_request_fail_in_the_worker(service, function):
    fired = sweep(service, function, range(1, 4))
    assert fired >= (1 if function in ALWAYS else 0)


@pytest.mark.slow
@pytest.mark.parametrize("function", IN_WORKER)
def test_the_nth_call_on_the_way_of_a_request_fails_in_the_worker(service, function):
    sweep(service, function, range(4, 13))


@pytest.mark.nightly
@pytest.mark.parametrize("function", IN_WORKER)
def test_every_call_on_the_way_of_a_request_fails_in_the_worker(service, function):
    sweep(service, function, range(13, 400))


# -- the master ----------------------------------------------------------------------------------
IN_MASTER = ["malloc", "calloc", "realloc", "mmap", "fork", "socketpair", "memfd_create",
             "ftruncate", "recv", "send", "sendmsg", "epoll_ctl", "epoll_wait", "read", "write",
             "posix_spawn"]


def replaced(service, before, count=2):
    """So many workers, and others than before. One of those may have gone by itself meanwhile."""
    now = service.workers()
    return len(now) == count and not set(now) & set(before)


def upset(service):
    """What makes a master work: a worker dies, one more, one less, the logs, the agent dies."""
    # A worker of a reload that failed may still be on its way out.
    yield "two workers", lambda: len(service.workers()) == 2
    before = service.workers()
    for pid in before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    yield f"others than {before}", lambda: replaced(service, before)
    service.process.send_signal(signal.SIGTTIN)
    yield "one more", lambda: len(service.workers()) == 3
    service.process.send_signal(signal.SIGTTOU)
    yield "one less", lambda: len(service.workers()) == 2
    service.process.send_signal(signal.SIGUSR1)
    agent = service.agent()
    if agent is not None:
        os.kill(agent, signal.SIGKILL)
        yield "another agent", lambda: service.agent() not in (None, agent)
    before = service.workers()
    said = service.text.count("Reload failed, the old workers go on serving")
    service.process.send_signal(signal.SIGHUP)
    yield f"a reload after {before}", lambda: replaced(service, before) or \
        service.text.count("Reload failed, the old workers go on serving") > said


#: A place whose workers died unasked, as here time and again, rightly waits for up to 30 s.
MASTER_PATIENCE_S = 25 + 30


def sweep_master(service, function, first_calls):
    for first in first_calls:
        service.fail(service.process.pid, function, first)
        for what, fact in upset(service):
            until(fact, lambda: f"call {first} of {function} failed and it never came right: {what}; "
                  f"workers {service.workers()}, agent {service.agent()}:\n{service.text[-3000:]}",
                  MASTER_PATIENCE_S)
        fired = service.failed_count() > 0
        service.nothing_fails()
        service.is_sound()
        if not fired:
            return True
    return False


@pytest.fixture
def two_workers():
    with app_folder(APP) as folder, \
            Faulty(["-w", "2", "--trace-api", "off", "app:app"], folder) as running:
        yield running.ready()


@pytest.mark.parametrize("first", chosen([1, 2], quick=[1]))
@pytest.mark.parametrize("function", IN_MASTER)
def test_the_nth_call_fails_in_the_master(two_workers, function, first):
    sweep_master(two_workers, function, [first])


@pytest.mark.nightly
@pytest.mark.parametrize("function", IN_MASTER)
def test_every_call_fails_in_the_master(two_workers, function):
    sweep_master(two_workers, function, range(3, 60))


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_reload_ends_though_the_line_of_a_worker_could_not_be_watched(two_workers, first):
    """The master hears that the new workers are ready over lines that epoll watches."""
    service = two_workers
    before = service.workers()
    service.fail(service.process.pid, "epoll_ctl", first)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: replaced(service, before), lambda: service.text)
    assert service.failed_count() > 0
    service.nothing_fails()
    assert service.is_sound()


def test_while_no_process_can_be_made_the_service_goes_on_and_then_recovers(two_workers):
    """One of two workers dies while fork fails; the other serves, and the slot is filled again."""
    service = two_workers
    service.fail(service.process.pid, "fork", 1, 1 << 30)
    victim = service.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: service.failed_count() >= 2, "more than one try")
    assert len(service.workers()) == 1
    for _ in range(20):
        assert service.answers_well()
    assert service.process.poll() is None
    service.nothing_fails()
    lifted = time.monotonic()
    until(lambda: len(service.workers()) == 2, lambda: "two workers:\n" + service.text)
    assert time.monotonic() - lifted < 10
    service.is_sound()


def test_a_worker_that_can_make_no_thread_says_so_and_is_replaced():
    with app_folder(APP) as folder, \
            Faulty([*KINDS["gthread"], "--trace-api", "off", "app:app"], folder) as service:
        service.ready()
        service.fail(-1, "pthread_create", 1, 2)
        os.kill(worker_of(service), signal.SIGKILL)
        service.line("threads could not be started", patience_s=30)
        until(lambda: service.failed_count() == 2, "the second failure")
        service.is_sound()


# -- the disk ------------------------------------------------------------------------------------
LARGE = b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3000000


@pytest.mark.parametrize("error, status", [(errno.ENOSPC, 507), (errno.EDQUOT, 507),
                                           (errno.EIO, 500)])
def test_a_body_that_the_disk_does_not_take_fails_alone(service, error, status):
    service.fail(worker_of(service), "pwrite", 1, 1, error)
    assert service.exchange(LARGE).startswith(b"HTTP/1.1 %d " % status)
    assert service.failed_count() == 1
    service.nothing_fails()
    answer = service.exchange(LARGE.replace(b"Host: t", b"Host: t\r\nConnection: close"))
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok" + b"x" * 3000000)
    service.is_sound()


def test_a_body_that_cannot_be_read_back_is_an_error_of_its_request(service):
    service.fail(worker_of(service), "pread", 1, 1 << 30)
    assert service.exchange(LARGE).startswith(b"HTTP/1.1 500 ")
    service.nothing_fails()
    service.is_sound()


def test_a_reply_that_the_disk_does_not_take_waits_for_its_client(service):
    """The slow client gets all of it all the same."""
    service.fail(worker_of(service), "pwrite", 1, 1 << 30)
    with connect(service) as client:
        client.sendall(b"GET /large HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        until(lambda: service.failed_count() > 0, "a reply that is put by")
        assert read_all(client).count(b"l") >= 12000000
    service.nothing_fails()
    service.is_sound()


# -- time ----------------------------------------------------------------------------------------
def read_all(client):
    data = b""
    try:
        while piece := client.recv(65536):
            data += piece
    except ConnectionResetError:
        pass
    return data


def connect(service):
    return socket.create_connection(("127.0.0.1", service.port), 20)


def wait_until_taken_in(service, *clients):
    """The worker has accepted these, read what they sent, and sleeps again: its clocks run."""
    def sleeps():
        stat = open(f"/proc/{worker_of(service)}/stat").read()
        return stat.rpartition(")")[2].split()[0] == "S"
    until(lambda: all(map(is_read, clients)) and sleeps(), "a worker that has read and waits")


def move_clock_to(service, seconds, since):
    """So many seconds after `since` for the service, however long this machine took until now."""
    service.move_clock(max(0, int(seconds - (time.monotonic() - since))))


@pytest.mark.parametrize("length", [10, 3000000], ids=["before", "inside"])
def test_a_body_that_stops_for_thirty_seconds_is_answered_with_408(service, length):
    """Before the application runs, and while it reads a large body by itself."""
    with connect(service) as client:
        sent_at = time.monotonic()
        client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % length
                       + b"x" * (length - 5))
        wait_until_taken_in(service, client)
        move_clock_to(service, 25, sent_at)
        client.settimeout(0.6)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
        service.move_clock(6)
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    service.is_sound()


def test_a_body_that_drips_is_answered_with_408(service):
    """Each byte comes in time, but all of them are too few."""
    with connect(service) as client:
        sent_at = time.monotonic()
        client.sendall(b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n" + b"x" * 8000)
        wait_until_taken_in(service, client)
        move_clock_to(service, 14, sent_at)
        client.sendall(b"x")
        client.settimeout(0.6)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(20)
        service.move_clock(4)
        client.sendall(b"x")
        assert read_all(client).startswith(b"HTTP/1.1 408 ")
    service.is_sound()


def test_a_head_and_an_idle_connection_run_out_by_the_clock(service):
    with connect(service) as half, connect(service) as silent, connect(service) as kept:
        half.sendall(b"GET / HT")
        kept.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200 ")
        wait_until_taken_in(service, half, silent, kept)
        service.move_clock(11)
        assert read_all(half).startswith(b"HTTP/1.1 408 ")
        assert read_all(silent) == b""
        assert read_all(kept) == b""
    service.is_sound()
