"""The environ beside gunicorn's, key by key: the same bytes to both servers, both kinds of worker.

What may differ is written down: in the lists of test_wsgi.py, and for single requests in ODD.
"""
import concurrent.futures
import json
import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
from test_wsgi import CTSERVE, Reply, Server, assert_alike, gunicorn_command  # noqa: E402

KINDS = {"sync": ["--worker-class", "sync"],
         "gthread": ["--worker-class", "gthread", "--threads", "2"]}
V1_4 = b"PROXY TCP4 203.0.113.7 198.51.100.2 51000 443\r\n"
V1_6 = b"PROXY TCP6 2001:db8::7 2001:db8::2 51000 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_4 = V2 + b"\x21\x11\0\x0c" + bytes((203, 0, 113, 7, 198, 51, 100, 2)) + b"\xc7\x38\x01\xbb"
V2_6 = V2 + b"\x21\x21\0\x24" + bytes.fromhex("20010db8" + "0" * 22 + "07" + "20010db8" + "0" * 22
                                              + "02") + b"\xc7\x38\x01\xbb"
V2_TLV = V2 + b"\x21\x11\0\x13" + V2_4[16:] + b"\x03\0\x04abcd"
V2_LOCAL = V2 + b"\x20\0\0\0"


def ask(*fields, line=b"GET /a/b?c=d HTTP/1.1", body=b"", host=b"shop.example:8080"):
    return b"\r\n".join((line, b"Host: " + host, b"Connection: close") + fields) + b"\r\n\r\n" + body


POST = b"POST /p%20q/%C3%A9/%2f//x;y=1 HTTP/1.1"
REQUESTS = {
    "a request": ask(),
    "a body": ask(b"Content-Length: 3", b"Content-Type: a/b", line=POST, body=b"abc"),
    "a chunked body": ask(b"Transfer-Encoding: chunked", line=POST, body=b"3\r\nabc\r\n0\r\n\r\n"),
    "an empty type and no length": ask(b"Content-Type:"),
    "HTTP/1.0": ask(line=b"GET / HTTP/1.0"),
    "HTTP/1.0 without fields": b"GET / HTTP/1.0\r\n\r\n",
    "an absolute target": ask(line=b"GET http://shop.example:8080/x?y HTTP/1.1"),
    "an asterisk": ask(line=b"OPTIONS * HTTP/1.1"),
    "two question marks": ask(line=b"GET /?a?b=%zz+ HTTP/1.1"),
    "slashes first": ask(line=b"GET ///x//y HTTP/1.1"),
    "fields of one name": ask(b"X-A: 1", b"x-a: 2", b"Cookie: a=b", b"Cookie: c=d", b"Accept: x"),
    "bytes of Latin-1": ask(b"X-A: caf\xe9", b"X-B: \xff\xa0"),
    "whitespace around values": ask(b"X-A:  a \t", b"X-B:", b"X-C:\tc d"),
    "underscores": ask(b"X_A: 1", b"X-B_C: 2", b"Remote_User: eve", b"Path_Info: /z"),
    "names of CGI": ask(b"Server-Name: x", b"Request-Method: y", b"Remote-Addr: 1.2.3.4",
                        b"Proxy: http://evil", b"Https: on", b"Path-Info: z"),
    "an upgrade": ask(b"Upgrade: h2c", b"HTTP2-Settings: AA"),
    "an expectation": ask(b"Expect: 100-continue", b"Content-Length: 3", line=POST, body=b"abc"),
    "a proxy that says https": ask(b"X-Forwarded-Proto: https", b"X-Forwarded-For: 192.0.2.1",
                                   b"X-Forwarded-Host: other.example"),
    "a proxy that says http": ask(b"X-Forwarded-Proto: http"),
    "a proxy that says ssl": ask(b"X-Forwarded-Ssl: on"),
    "a proxy that says something": ask(b"X-Forwarded-Protocol: SSL", b"Forwarded: for=1.2.3.4"),
    "a script name": ask(b"Script_Name: /a"),
    "a script name that is all": ask(b"SCRIPT_NAME: /a/b"),
    "a port in Host": ask(host=b"shop.example:1"),
    "an address in Host": ask(host=b"[::1]:81"),
    "an empty Host": ask(host=b""),
}
PROXIED = {
    "PROXY v1 and TCP4": V1_4 + ask(), "PROXY v1 and TCP6": V1_6 + ask(),
    "PROXY v2 and IPv4": V2_4 + ask(), "PROXY v2 and IPv6": V2_6 + ask(),
    "PROXY v2 with more": V2_TLV + ask(b"X-Forwarded-Proto: https"),
    "PROXY v1 and a body": V1_4 + ask(b"Content-Length: 3", line=POST, body=b"abc"),
    "no PROXY line": ask(),
}
PATHS = {"below the prefix": ask(), "the prefix": ask(line=b"GET /a HTTP/1.1"),
         "an escaped prefix": ask(line=b"GET /%61/x HTTP/1.1")}
#: name -> (options, environment, requests)
SETS = {
    "plain": ((), {}, REQUESTS),
    "PROXY": (("--proxy-protocol", "auto"), {}, PROXIED),
    "SCRIPT_NAME": ((), {"SCRIPT_NAME": "/a"}, PATHS),
    "nobody trusted": (("--forwarded-allow-ips", "192.0.2.1", "--header-map", "dangerous"), {},
                       REQUESTS),
    "some names trusted": (("--forwarder-headers", "REMOTE_USER,PATH_INFO"), {}, REQUESTS),
}
#: The second kind of worker only where it could matter.
PAIRS = [("sync", name) for name in SETS] + [("gthread", "plain"), ("gthread", "PROXY")]
#: (over, request) -> (key, ours, gunicorn's): the written list
ODD = {
    # gunicorn cuts Host at its first colon, also within an address.
    ("unix", "an address in Host"): ("SERVER_NAME", "[::1]", "["),
}


class Pair:
    """Both servers, each on a port and on a unix socket."""

    def __init__(self, kind, name, folder):
        options, environment, self.requests = SETS[name]
        self.sockets = [f"{folder}/{whose}.sock" for whose in ("ours", "them")]
        commands = (CTSERVE, gunicorn_command())
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            self.servers = list(pool.map(
                lambda command, path: Server(command, "environ", "127.0.0.1:0", "--bind",
                                             "unix:" + path, *KINDS[kind], *options,
                                             env=environment), commands, self.sockets))

    def ask(self, raw, over):
        """[(status, environ or None)] of ours and theirs."""
        found = []
        for server, path in zip(self.servers, self.sockets):
            server.path = path if over == "unix" else None
            wire = server.ask(raw).wire
            reply = Reply(wire.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
            told = None
            if reply.status == 200:
                told = json.loads(reply.body.replace(path.encode(), b"THE SOCKET"))
            found.append((reply.status, told))
        return found


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request, tmp_path_factory):
    made = Pair(*request.param, tmp_path_factory.mktemp("sockets"))
    yield made
    for server in made.servers:
        server.stop()


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_the_environ_is_gunicorns_key_by_key(pair, over):
    wrong = {}
    for name, raw in pair.requests.items():
        (our_status, ours), (their_status, theirs) = pair.ask(raw, over)
        if our_status != their_status:
            wrong[name] = (our_status, their_status)
        elif ours is not None:
            if (over, name) in ODD:
                key, our_value, their_value = ODD[over, name]
                assert (ours.pop(key)[1], theirs.pop(key)[1]) == (our_value, their_value)
            try:
                assert_alike(ours, theirs)
            except AssertionError as error:
                wrong[name] = str(error).splitlines()[:6]
    assert not wrong, "\n".join(f"{name}: {what}" for name, what in wrong.items())


def test_every_set_asks_what_it_is_for(pair):
    """That both agree says nothing when neither did what the set is about."""
    said = {name: pair.ask(raw, "tcp")[0] for name, raw in pair.requests.items()}
    schemes = {told["wsgi.url_scheme"][1] for _, told in said.values() if told}
    if pair.requests is PROXIED:
        assert [said[name][1]["REMOTE_ADDR"][1] for name in PROXIED] == [
            "203.0.113.7", "2001:db8::7", "203.0.113.7", "2001:db8::7", "203.0.113.7",
            "203.0.113.7", "127.0.0.1"]
    elif pair.requests is PATHS:
        assert [status for status, _ in said.values()] == [200, 200, 500]
        assert {told["SCRIPT_NAME"][1] for _, told in said.values() if told} == {"/a"}
    elif "192.0.2.1" in str(pair.servers[0].process.args):
        assert schemes == {"http"}
    else:
        assert schemes == {"http", "https"}
