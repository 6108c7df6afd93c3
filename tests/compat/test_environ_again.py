"""An environ that nobody kept or changed may serve the next request: no request may notice."""
import json
import os
import pathlib
import socket
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
from server import Server, answers_if_whole, command  # noqa: E402

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")
APP = '''
import json
kept, inputs = [], []
def app(environ, start_response):
    path = environ["PATH_INFO"]
    said = {key: value for key, value in environ.items() if isinstance(value, str)}
    said["order"] = list(environ)
    said["body"] = environ["wsgi.input"].read().decode()
    if path == "/change":
        environ["mine"] = "left behind"
        environ["SCRIPT_NAME"] = "/moved"
        del environ["HTTP_HOST"]
    if path == "/change-back":
        host = environ.pop("HTTP_HOST")
        environ["HTTP_HOST"] = host
    if path == "/keep":
        kept.append(environ)
    if path == "/keep-input":
        inputs.append(environ["wsgi.input"])
    if path == "/kept":
        said["kept"] = [each["QUERY_STRING"] for each in kept]
        said["same"] = any(each is environ for each in kept)
        said["same input"] = any(each is environ["wsgi.input"] for each in inputs)
    body = json.dumps(said).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''
KINDS = {"sync": ("--keep-alive", "5"),
         "gthread": ("--worker-class", "gthread", "--threads", "2", "--keep-alive", "5")}
UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with Server(*KINDS[request.param], "--tracing", app=APP) as running:
        yield running


class Client:
    """One kept connection."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, 20)
        self.port = self.socket.getsockname()[1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def ask(self, target, method="GET", fields=(), body=""):
        """What the application found in its environ."""
        lines = [f"{method} {target} HTTP/1.1", "Host: shop.example", "Accept: text/plain", *fields]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.socket.sendall("\r\n".join([*lines, "", body]).encode())
        data = b""
        while not (found := answers_if_whole(data)):
            piece = self.socket.recv(65536)
            assert piece, "the server closed the connection"
            data += piece
        [(status, _, said)] = found
        assert status == 200
        return json.loads(said)


@pytest.fixture
def client(server):
    """A client whose fields the server has seen often enough to remember them."""
    with Client(server.address) as one:
        for _ in range(4):
            one.ask("/")
        yield one


def test_what_differs_between_two_requests_is_told_of_each(server, client):
    with Client(server.address) as other:
        for target, path, query, method in [("/a?x=1", "/a", "x=1", "GET"), ("/a", "/a", "", "GET"),
                                            ("/b%20c?y", "/b c", "y", "DELETE"), ("/", "/", "", "GET")]:
            for one in (client, other):
                said = one.ask(target, method)
                assert (said["RAW_URI"], said["PATH_INFO"], said["QUERY_STRING"],
                        said["REQUEST_METHOD"], said["REMOTE_PORT"], said["HTTP_HOST"]) == (
                            target, path, query, method, str(one.port), "shop.example")


def test_every_request_has_the_same_keys_in_the_same_order(client):
    first = client.ask("/one?q=1")["order"]
    assert first == client.ask("/two")["order"] == client.ask("/one?q=1")["order"]


def test_what_an_application_changed_is_gone_with_its_request(client):
    before = client.ask("/")
    for path in ("/change", "/change", "/change-back"):
        client.ask(path)
        after = client.ask("/")
        assert "mine" not in after
        for key in ("SCRIPT_NAME", "HTTP_HOST", "order"):
            assert after[key] == before[key]


def test_an_environ_that_an_application_keeps_stays_as_it_is(client):
    for query in ("first", "second"):
        client.ask("/keep?" + query)
        for _ in range(3):
            client.ask("/other?query=1")
    said = client.ask("/kept")
    assert said["kept"][-2:] == ["first", "second"]
    assert said["same"] is False


def test_a_kept_input_is_not_handed_to_another_request(client):
    client.ask("/keep-input")
    for _ in range(3):
        assert client.ask("/kept")["same input"] is False
    assert client.ask("/", "POST", body="ours")["body"] == "ours"


def test_other_fields_are_other_fields(client):
    for _ in range(4):
        assert client.ask("/", fields=["X-Other: 1"])["HTTP_X_OTHER"] == "1"
        assert client.ask("/", fields=["X-Other: 2"])["HTTP_X_OTHER"] == "2"
        assert "HTTP_X_OTHER" not in client.ask("/")


def test_every_request_has_the_span_of_its_own(client):
    seen = {client.ask("/")["traceparent"] for _ in range(4)}
    assert len(seen) == 4
    for _ in range(4):
        assert "traceparent" not in client.ask("/", fields=["traceparent: " + UNSAMPLED])
        assert client.ask("/")["traceparent"] not in seen
