"""gunicorn's request corpus under settings: the switches that loosen the parser, header_map, limits
and the PROXY protocol, over TCP. One server per set of settings."""
import json
import os
import pathlib
import re
import socket
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
import corpus  # noqa: E402
from server import Server, answers, command, exchange  # noqa: E402
from test_corpus import check_echo  # noqa: E402

try:
    CASES, WHY = corpus.load_with_settings(), ""
except corpus.NoCorpus as error:
    CASES, WHY = [], str(error)

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")

ENVIRON = '''
import json
KEYS = ("REMOTE_ADDR", "REMOTE_PORT", "PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT", "PATH_INFO",
        "SCRIPT_NAME", "HTTP_SCRIPT_NAME", "HTTP_REMOTE_USER", "wsgi.url_scheme", "REQUEST_METHOD",
        "SERVER_PROTOCOL", "HTTP_X")
def app(environ, start_response):
    data = json.dumps({key: environ[key] for key in KEYS if key in environ}).encode()
    start_response("200 OK", [("Content-Length", str(len(data)))])
    return [data]
'''


def flags_of(settings):
    flags = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-").replace("field-size", "field_size")
        flags += [flag] if value is True else [flag, str(value)]
    return flags


@pytest.fixture(scope="module")
def servers():
    running = {}

    def get(*flags, app=None):
        key = (flags, app)
        if key not in running:
            options = {} if app is None else {"app": app}
            server = Server("--http-policy", "gunicorn", "--keep-alive", "2", *flags, **options)
            running[key] = server.__enter__()
        return running[key].address

    yield get
    for server in running.values():
        server.__exit__(None, None, None)


def test_the_corpus_has_24_cases_with_settings():
    if WHY:
        pytest.skip(WHY)
    assert len(CASES) == 24


@pytest.mark.parametrize("case, raw", CASES, ids=[case["name"] for case, _ in CASES])
@pytest.mark.parametrize("pieces", [None, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("kind", [(), ("-k", "gthread", "--threads", "2")], ids=["sync", "gthread"])
def test_case(servers, kind, case, raw, pieces):
    if pieces == 1 and len(raw) > 4000:
        pieces = 997
    data = exchange(servers(*kind, *flags_of(case["settings"])), raw, half_close=True, pieces=pieces)
    got = answers(data)
    if case["valid"]:
        assert [status for status, _, _ in got] == [200] * len(case["requests"])
        for (_, _, body), wanted in zip(got, case["requests"]):
            check_echo(json.loads(body), wanted, "gunicorn")
    else:
        assert [status for status, _, _ in got] == [case["status"]]
        assert got[0][1].get("connection") == "close"


# -- what the corpus does not say ------------------------------------------------------------------
def ask(address, raw):
    [(status, _, body)] = answers(exchange(address, raw, half_close=True))
    return status, json.loads(body) if status == 200 else body


def head(*fields, path="/"):
    return "\r\n".join((f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *fields, "", "")).encode()


def test_a_trusted_proxy_says_https_and_an_unknown_one_does_not(servers):
    trusted = servers(app=ENVIRON)
    unknown = servers("--forwarded-allow-ips", "10.0.0.0/8", app=ENVIRON)
    assert ask(trusted, head("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "https"
    assert ask(trusted, head("X-Forwarded-Proto: HTTPS"))[1]["wsgi.url_scheme"] == "http"
    assert ask(unknown, head("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "http"
    assert ask(unknown, head("X-Forwarded-Proto: https", "X-Forwarded-Ssl: no"))[0] == 200


def test_the_third_time_is_as_the_first(servers):
    """The same fields again take the way of the memo."""
    for _ in range(3):
        assert ask(servers(app=ENVIRON), head("X-Forwarded-Ssl: on", "X: 1"))[1] | {"REMOTE_PORT": ""} == {
            "wsgi.url_scheme": "https", "HTTP_X": "1", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "",
            "PATH_INFO": "/", "SCRIPT_NAME": "", "REQUEST_METHOD": "GET", "SERVER_PROTOCOL": "HTTP/1.1"}
        assert ask(servers(app=ENVIRON), head("X-Forwarded-Ssl: on", "X-Forwarded-Proto: http"))[0] == 400


def test_a_network_is_trusted_by_its_bits(servers):
    loopback = servers("--forwarded-allow-ips", "10.0.0.1,127.0.0.0/8", app=ENVIRON)
    assert ask(loopback, head("X-Forwarded-Proto: https"))[1]["wsgi.url_scheme"] == "https"


@pytest.mark.parametrize(("source", "is_trusted"), (
    ("127.0.0.1", False), ("127.9.10.99", False), ("127.63.255.254", False), ("127.64.0.0", True),
    ("127.100.7.255", True), ("127.127.255.200", True), ("127.128.1.1", False)))
def test_a_client_has_its_address_and_is_trusted_by_it(servers, source, is_trusted):
    picky = servers("--forwarded-allow-ips", "127.64.0.0/10", app=ENVIRON)
    with socket.create_connection(picky, 30, source_address=(source, 0)) as client:
        port = client.getsockname()[1]
        client.sendall(head("X-Forwarded-Proto: https"))
        data = b"".join(iter(lambda: client.recv(4096), b""))
    environ = json.loads(data.partition(b"\r\n\r\n")[2])
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == (source, str(port))
    assert environ["wsgi.url_scheme"] == ("https" if is_trusted else "http")


@pytest.mark.parametrize(("allowed", "scheme"), (("::/64", "https"), ("::2", "http"), ("0.0.0.0/0", "http")))
def test_a_client_over_v6_is_trusted_by_its_address(allowed, scheme):
    if not socket.has_ipv6 or not pathlib.Path("/proc/net/if_inet6").exists():
        pytest.skip("no IPv6 here")
    with Server("--forwarded-allow-ips", allowed, "--bind", "[::1]:0", app=ENVIRON) as server:
        port = int(re.search(r"http://\[::1\]:(\d+)", server.text())[1])
        got = ask(("::1", port), head("X-Forwarded-Proto: https"))[1]
        assert (got["REMOTE_ADDR"], got["wsgi.url_scheme"]) == ("::1", scheme)


def test_script_name_of_a_trusted_proxy_is_cut_off_the_path(servers):
    trusted = servers(app=ENVIRON)
    got = ask(trusted, head("Script_Name: /shop", path="/shop/cart"))[1]
    assert (got["SCRIPT_NAME"], got["PATH_INFO"], got["HTTP_SCRIPT_NAME"]) == ("/shop", "/cart", "/shop")
    assert ask(trusted, head("Script_Name: /other", path="/shop/cart"))[0] == 500
    unknown = servers("--forwarded-allow-ips", "10.0.0.1", app=ENVIRON)
    got = ask(unknown, head("Script_Name: /shop", path="/shop/cart"))[1]
    assert (got["SCRIPT_NAME"], got["PATH_INFO"]) == ("", "/shop/cart")
    assert "HTTP_SCRIPT_NAME" not in got


def test_only_named_forwarder_headers_pass(servers):
    some = servers("--forwarder-headers", "REMOTE_USER", "--header-map", "refuse", app=ENVIRON)
    assert ask(some, head("Remote_User: eve"))[1]["HTTP_REMOTE_USER"] == "eve"
    assert ask(some, head("Script_Name: /x"))[0] == 400
    assert "HTTP_REMOTE_USER" not in ask(servers(app=ENVIRON), head("Remote_User: eve"))[1]


def test_a_folded_value_is_one_value(servers):
    folds = servers("--permit-obsolete-folding", app=ENVIRON)
    assert ask(folds, head("X: a \r\n\t b\r\n   c", "Y: 1"))[1]["HTTP_X"] == "a b c"
    assert ask(folds, head("X:\r\n a"))[1]["HTTP_X"] == "a"
    assert ask(folds, head("X: a\r\n \x01"))[0] == 400
    assert ask(servers(app=ENVIRON), head("X: a\r\n b"))[0] == 400


def test_unconventional_versions_are_served_when_permitted(servers):
    old = servers("--permit-unconventional-http-version", app=ENVIRON)
    raw = head().replace(b"HTTP/1.1", b"HTTP/0.9")
    assert ask(old, raw)[1]["SERVER_PROTOCOL"] == "HTTP/0.9"
    assert ask(servers(app=ENVIRON), raw)[0] == 400


V1 = b"PROXY TCP4 203.0.113.7 198.51.100.2 51000 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes((203, 0, 113, 7, 198, 51, 100, 2, 0xC7, 0x38, 1, 0xBB))


@pytest.mark.parametrize("said", [V1, V2], ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", [None, 1], ids=["whole", "bytes"])
def test_what_the_proxy_said_holds_for_the_whole_connection(servers, said, pieces):
    address = servers("--proxy-protocol", app=ENVIRON)
    raw = said + head().replace(b"Connection: close\r\n", b"") + head()
    got = answers(exchange(address, raw, half_close=True, pieces=pieces))
    assert len(got) == 2
    for status, _, body in got:
        echo = json.loads(body)
        assert (status, echo["REMOTE_ADDR"], echo["REMOTE_PORT"], echo["PROXY_PROTOCOL"]) == (
            200, "203.0.113.7", "51000", "TCP4")
        assert (echo["PROXY_ADDR"], echo["PROXY_PORT"]) == ("198.51.100.2", "443")


def test_a_proxy_that_may_not_speak_is_refused(servers):
    address = servers("--proxy-protocol", "v1", "--proxy-allow-from", "10.0.0.1", app=ENVIRON)
    assert ask(address, V1 + head())[0] == 403
    assert ask(address, head())[0] == 200


def test_a_request_of_its_own_proxy_line_is_refused_and_a_local_one_is_as_seen(servers):
    address = servers("--proxy-protocol", app=ENVIRON)
    assert ask(address, V1 + V1 + head())[0] == 400
    local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
    got = ask(address, local + head())[1]
    assert (got["REMOTE_ADDR"], got["PROXY_PROTOCOL"]) == ("127.0.0.1", "LOCAL")
    assert ask(servers(app=ENVIRON), V1 + head())[0] == 400


@pytest.mark.parametrize("line", [b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n", b"PROXY UNKNOWN\r\n",
                                  b"PROXY TCP4 1.2.3.4  1 2\r\n", b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
                                  b"PROXY " + b"A" * 200, b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"])
def test_a_bad_line_is_refused_before_anything_is_read_behind_it(servers, line):
    data = exchange(servers("--proxy-protocol", app=ENVIRON), line + head(), half_close=True)
    assert [status for status, _, _ in answers(data)] == [400]
