"""CVEs of other servers that take more than bytes and statuses, and the lists behind the cases."""
import os
import pathlib
import re
import socket
import struct
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
import attacks  # noqa: E402
import cases  # noqa: E402
import llhttp_classes  # noqa: E402
from harness import Running, app_folder, until  # noqa: E402
from server import exchange  # noqa: E402

APP = '''
import sys

BAD = ["a\\r\\nX-Injected: 1", "a\\nX-Injected: 1", "a\\rX-Injected: 1", "a\\0b", "a\\r\\n\\r\\nX-Injected",
       "\\r\\nX-Injected: 1", "a\\x7fb", "a\\x1bb", "a\\nb"]

def app(environ, start_response):
    where, _, number = environ["QUERY_STRING"].partition("=")
    if where == "value":
        start_response("200 OK", [("X-Leak", "leaked"), ("Location", BAD[int(number)])])
    elif where == "name":
        start_response("200 OK", [("X-Leak", "leaked"), ("X" + BAD[int(number)], "1")])
    elif where == "status":
        start_response("200 " + BAD[int(number)], [("X-Leak", "leaked")])
    elif where == "later":
        start_response("200 OK", [("X-Leak", "leaked")])
        try:
            raise ValueError("first")
        except ValueError:
            start_response("500 x", [("X-Bad", BAD[int(number)])], sys.exc_info())
    else:
        environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
'''
BAD_COUNT = 9
KINDS = {"sync": ["-k", "sync", "--keep-alive", "5"],
         "gthread": ["-k", "gthread", "--threads", "4"]}


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with app_folder(APP) as folder:
        with Running(["-w", "1", *KINDS[request.param], "--trace-api", "off", "--access-logfile",
                      str(folder / "accesses"), "app:app"], folder) as running:
            running.place = folder
            yield running.ready()


def send(server, raw):
    return exchange(("127.0.0.1", server.port), raw, half_close=True)


def get(target, *fields):
    return b"\r\n".join((b"GET " + target + b" HTTP/1.1", b"Host: a", b"Connection: close")
                        + fields) + b"\r\n\r\n"


# -- the lists -------------------------------------------------------------------------------------
def test_every_cve_has_a_case_or_a_test_that_bears_its_number():
    named = {case.name.split()[0] for case in cases.CASES if case.row == "CVE"}
    for cve, file in attacks.ELSEWHERE.items():
        number = cve.lower().replace("-", "_")
        assert f"def test_{number}_" in pathlib.Path(cases.__file__).parents[2].joinpath(
            file).read_text(), cve
    assert sorted(named | set(attacks.ELSEWHERE)) == sorted(attacks.WANTED)


def test_where_llhttp_decides_otherwise_a_rule_says_so():
    assert len(llhttp_classes.RULES) <= 10
    used = set()
    for name, raw, llhttp, answers, rule, end, _ in llhttp_classes.CASES:
        differs = llhttp_classes.verdict_of(raw, answers, end) != llhttp
        assert differs == (rule is not None), name
        used.add(rule)
    assert used - {None} == set(llhttp_classes.RULES)


# -- the CVEs --------------------------------------------------------------------------------------
def test_cve_2020_7694_a_target_writes_no_line_and_no_escape_into_the_log(server):
    """uvicorn wrote the decoded path."""
    log = server.place / "accesses"
    before = log.stat().st_size
    send(server, get(b"/a%0a%1b[31mroot%0d%0afake?b%0a%1b", b"User-Agent: u\t\x9b31m"))
    send(server, get(b"/last"))
    # Lines of two threads come in any order.
    until(lambda: log.read_bytes()[before:].count(b"\n") >= 2, "two lines")
    lines = log.read_bytes()[before:].splitlines()
    assert len(lines) == 2 and any(b"/last" in line for line in lines)
    assert all(0x20 <= byte <= 0x7E for line in lines for byte in line)


@pytest.mark.parametrize("number", range(BAD_COUNT))
@pytest.mark.parametrize("where", ["value", "name"])
def test_cve_2020_7695_a_field_of_the_application_adds_none(server, where, number):
    """uvicorn wrote names and values as they came."""
    check_nothing_left(send(server, get(b"/?%s=%d" % (where.encode(), number))))


@pytest.mark.parametrize("number", range(BAD_COUNT))
@pytest.mark.parametrize("where", ["status", "later"])
def test_cve_2023_27522_a_status_or_a_later_head_adds_no_field(server, where, number):
    """uWSGI handed on what the origin said."""
    check_nothing_left(send(server, get(b"/?%s=%d" % (where.encode(), number))))


def check_nothing_left(data):
    assert re.match(rb"HTTP/1\.1 500 [^\r\n]*\r\n", data)
    assert data.count(b"HTTP/1.1 ") == 1
    assert b"Injected" not in data and b"leaked" not in data


def test_cve_2024_49769_clients_that_are_gone_before_they_are_asked_for_their_name(server):
    """waitress asked for the address of a client that had left, for ever."""
    pid = server.workers()[0] if server.workers() else server.process.pid
    for _ in range(200):
        client = socket.create_connection(("127.0.0.1", server.port), 10)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
    assert send(server, get(b"/")).endswith(b"ok")
    until(lambda: connections_of(pid) == 0, lambda: f"{connections_of(pid)} connections left")
    assert asleep_twice(pid)


def connections_of(pid):
    """Established or half-closed sockets of the process: those with a peer."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        try:
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry.path))
        except FileNotFoundError:
            continue
        if found:
            inodes.add(found[1])
    lines = pathlib.Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[9] in inodes and line.split()[3] != "0A" for line in lines)


def asleep_twice(pid):
    """The process uses no processor: its ticks stand still at least once between two looks."""
    def ticks():
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12]), fields[0]
    before = ticks()
    return until(lambda: ticks()[1] == "S" and ticks()[0] - before[0] < 50, "sleep")


def test_cve_2025_47287_a_body_of_bad_parts_is_no_flood_of_the_log(server):
    """tornado wrote a warning for each part that it did not understand."""
    before = len(server.lines)
    body = b"--x\r\nnonsense\r\n\r\n" * 5000
    data = send(server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: multipart/form-data; "
                b"boundary=x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert data.endswith(b"ok")
    send(server, b"BAD\x01" * 5000)
    server.line(r"Invalid request from .*")
    until(lambda: len(server.lines) > before, "a line for the bad request")
    assert send(server, get(b"/")).endswith(b"ok")
    assert len(server.lines) - before == 1
