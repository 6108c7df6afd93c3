"""Spans arrive over gRPC and over HTTP, complete and alike, also with preload."""
import http.client
import secrets

import pytest

from harness import GrpcCollector, HttpCollector, Running, app_folder, until

APP = '''
import os
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise LookupError("nothing there")
    if path == "/context":
        body = environ["traceparent"].encode()
    else:
        body = str(os.getpid()).encode()
    start_response("404 Not Found" if path == "/missing" else "200 OK",
                   [("Content-Length", str(len(body)))])
    return [body]
'''
CONF = '''
def post_fork(server, worker):
    pass
'''
REQUESTS = [("/", 200), ("/a?b=c&sig=secret", 200), ("/missing", 404), ("/raise", 500)]


def ask(server, path):
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path, headers={"traceparent": f"00-{trace_id}-{parent}-01",
                                             "User-Agent": "ctserve-test/1"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return trace_id, parent, answer.status, body


def shape(span):
    """What must be the same whichever way a span travelled."""
    attributes = {key: value for key, value in span.attributes.items()
                  if key not in ("network.peer.port", "client.port", "server.port")
                  and not key.startswith("ctserve.phase") and not key.endswith("_ns")}
    return (span.name, span.kind, span.is_error, tuple(sorted(map(repr, attributes.items()))),
            tuple(name for name, _ in span.events))


def run(collector, *more):
    with app_folder(APP, gunicorn_conf_py=CONF) as folder, collector, \
            Running(["app:app", "--workers", "4", "-c", "gunicorn.conf.py",
                     "--trace-otlp-endpoint", collector.endpoint,
                     "--trace-otlp-protocol", collector.protocol, *more], folder,
                    environment={"OTEL_SERVICE_NAME": "shop",
                                 "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}) as server:
        server.ready()
        sent = {}
        for _ in range(10):
            for path, status in REQUESTS:
                trace_id, parent, got, body = ask(server, path)
                assert got == status
                sent[trace_id] = (parent, path, status, body)
        until(lambda: len({s.trace_id for s in collector.seen()} & set(sent)) == len(sent),
              lambda: f"{len(sent)} traces, {len({s.trace_id for s in collector.seen()} & set(sent))} there")
        workers, master = server.workers(), server.process.pid
        assert server.stop() == 0
        return sent, collector.seen(), workers, master


@pytest.mark.parametrize("more", [(), ("--preload",)], ids=["load-per-worker", "preload"])
@pytest.mark.parametrize("make", [HttpCollector, GrpcCollector], ids=["http", "grpc"])
def test_every_request_has_one_server_span_from_the_worker_that_served_it(make, more):
    sent, spans, workers, master = run(make(), *more)
    for trace_id, (parent, path, status, body) in sent.items():
        found = [span for span in spans if span.trace_id == trace_id]
        assert len(found) == 1
        span = found[0]
        assert span.is_server and span.parent_id == parent
        assert span.attributes["http.request.method"] == "GET"
        assert span.attributes["url.path"] == path.partition("?")[0]
        assert span.attributes["http.response.status_code"] == status
        assert span.attributes["url.scheme"] == "http"
        assert span.attributes["user_agent.original"] == "ctserve-test/1"
        assert span.attributes["network.peer.address"] == "127.0.0.1"
        assert "secret" not in repr(span.attributes)
        assert span.is_error == (status == 500)
        if status == 500:
            assert span.attributes["error.type"] == "LookupError"
        if status == 200:
            assert span.resource["process.pid"] == int(body)
        assert span.resource["process.pid"] in workers
        assert span.resource["service.name"] == "shop"
        assert span.resource["deployment.environment.name"] == "test"
        assert 0 < span.start_ns < span.end_ns
    instances = {}
    for span in spans:
        instances.setdefault(span.resource["service.instance.id"], set()).add(span.resource["process.pid"])
    assert all(len(pids) == 1 for pids in instances.values())
    assert len(instances) >= 2
    names = {span.name for span in spans if span.resource["process.pid"] == master}
    assert {"ctserve.boot", "ctserve.config", "ctserve.fork", "ctserve.worker.ready"} <= names, names


def test_both_protocols_deliver_the_same_set():
    by_http = run(HttpCollector())
    by_grpc = run(GrpcCollector())
    def shapes(of):
        return sorted(shape(span) for span in of[1] if span.trace_id in of[0])
    assert shapes(by_http) == shapes(by_grpc)


def test_the_application_gets_the_context_of_its_server_span():
    with app_folder(APP) as folder, HttpCollector() as collector, \
            Running(["app:app", "--trace-otlp-endpoint", collector.endpoint], folder) as server:
        server.ready()
        trace_id, _, _, body = ask(server, "/context")
        version, trace, span_id, flags = body.decode().split("-")
        assert (version, trace) == ("00", trace_id) and int(flags, 16) & 1
        found = until(lambda: [s for s in collector.seen() if s.trace_id == trace_id], "the span")
        assert found[0].span_id == span_id
