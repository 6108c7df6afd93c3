"""`ctserve app:app --workers 4 -c gunicorn.conf.py` delivers, over gRPC and over HTTP.

The judge is a real OpenTelemetry Collector. Where none can be had that case is skipped with the
reason, and the receiver made of grpcio and opentelemetry-proto, which always runs, is what judged.
"""
import collections
import contextlib
import http.client
import secrets
import tempfile
import uuid

import pytest

from harness import GrpcCollector, HttpCollector, Running, app_folder, until
from otelcol import Collector, JsonSpan, collector_path

APP = '''
import os
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise LookupError("nothing there")
    body = str(os.getpid()).encode()
    start_response("404 Not Found" if path == "/missing" else "200 OK",
                   [("Content-Length", str(len(body)))])
    return [body]
'''
CONF = '''
trace_api = "127.0.0.1:0"
def on_starting(server):
    server.log.info("on_starting")
def post_fork(server, worker):
    pass
'''
PATHS = {"/": 200, "/cart?item=3": 200, "/missing": 404, "/raise": 500}
ROUNDS = 15
WORKERS = 4
PROTOCOLS = ["grpc", "http/protobuf"]
#: What the master tells of one life with WORKERS workers.
MASTER_SPANS = {"ctserve.boot": 1, "ctserve.config": 1, "ctserve.fork": WORKERS,
                "ctserve.worker.ready": WORKERS, "ctserve.worker.exit": WORKERS,
                "ctserve.shutdown": 1}


class RealReceiver:
    """The Collector; both protocols at once, so each run looks only at its own processes."""

    def __init__(self, collector, protocol):
        self.collector, self.protocol = collector, protocol
        self.endpoint = collector.endpoints[protocol]

    def seen(self):
        return [JsonSpan(resource, span) for resource, span in self.collector.spans()]


@pytest.fixture(params=["opentelemetry-collector", "grpcio-receiver"])
def receivers(request, record_property):
    """protocol -> something with endpoint and seen()."""
    with contextlib.ExitStack() as stack:
        if request.param == "opentelemetry-collector":
            path = collector_path(request.config)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            collector = stack.enter_context(Collector(path, folder))
            found = {protocol: RealReceiver(collector, protocol) for protocol in PROTOCOLS}
        else:
            found = {"grpc": stack.enter_context(GrpcCollector()),
                     "http/protobuf": stack.enter_context(HttpCollector())}
        record_property("receiver", request.param)
        print(f"receiver: {request.param}")
        yield found


def ask(port, path):
    """One request on a connection of its own: (trace id, status, body)."""
    trace_id = secrets.token_hex(16)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path, headers={
        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return trace_id, answer.status, body


def served(receiver):
    """One life of the server: (what was sent, its spans, instance id by pid, the master's pid)."""
    with app_folder(APP, gunicorn_conf_py=CONF) as folder, \
            Running(["app:app", "--workers", str(WORKERS), "-c", "gunicorn.conf.py"], folder,
                    environment={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
                                 "OTEL_EXPORTER_OTLP_PROTOCOL": receiver.protocol,
                                 "OTEL_SERVICE_NAME": "shop"}) as server:
        server.port = int(server.line(r"Listening at: .*?:(\d+)")[1])
        master = server.process.pid

        def all_ready():
            workers = server.api("status")["workers"]
            return workers if len(workers) == WORKERS and \
                all(one["state"] == "ready" for one in workers) else None
        server.line(r"/\?t=")
        workers = until(all_ready, lambda: f"{WORKERS} ready workers: {server.api('status')}")
        instances = {one["pid"]: one["instance_id"] for one in workers}
        sent = {}
        for _ in range(ROUNDS):
            for path, status in PATHS.items():
                trace_id, got, body = ask(server.port, path)
                assert got == status
                sent[trace_id] = (path, status, body)
        assert server.stop() == 0

        def mine():
            return [span for span in receiver.seen()
                    if span.resource["process.pid"] == master
                    or span.resource.get("process.parent_pid") == master]
        wanted = len(sent) + sum(MASTER_SPANS.values())
        until(lambda: len(mine()) >= wanted,
              lambda: f"{wanted} spans: {collections.Counter(span.name for span in mine())}")
        return sent, mine(), instances, master


def assert_complete(sent, spans, instances, master):
    """One server span per request, from the worker that answered; the master's; nothing else."""
    by_trace = collections.defaultdict(list)
    for span in spans:
        if span.is_server:
            by_trace[span.trace_id].append(span)
    assert set(by_trace) == set(sent)
    for trace_id, (path, status, body) in sent.items():
        span, = by_trace[trace_id]
        assert span.attributes["url.path"] == path.partition("?")[0]
        assert span.attributes["http.response.status_code"] == status
        assert span.is_error == (status == 500)
        pid = span.resource["process.pid"]
        assert span.resource["service.instance.id"] == instances[pid]
        if status != 500:
            assert pid == int(body)
    own = [span for span in spans if span.resource["process.pid"] == master]
    assert collections.Counter(span.name for span in own) == MASTER_SPANS
    own_id, = {span.resource["service.instance.id"] for span in own}
    ids = [own_id, *instances.values()]
    assert len(set(ids)) == 1 + WORKERS and all(str(uuid.UUID(one)) == one for one in ids)
    assert {span.resource["service.name"] for span in spans} == {"shop"}
    assert len(spans) == len(sent) + len(own)
    assert len({span.span_id for span in spans}) == len(spans)


def shape(span):
    """What must be the same whichever way a span travelled: all but ids, times, ports, processes."""
    attributes = {key: value for key, value in span.attributes.items()
                  if not key.endswith((".port", ".pid")) and not key.startswith("ctserve.phase")}
    return repr((span.name, span.kind, span.is_error, sorted(attributes.items()), span.events,
                 sorted(span.resource)))


def test_one_server_span_per_request_and_the_masters_spans_alike_over_both_protocols(receivers):
    lives = {protocol: served(receivers[protocol]) for protocol in PROTOCOLS}
    for life in lives.values():
        assert_complete(*life)
    by_grpc, by_http = (sorted(map(shape, lives[protocol][1])) for protocol in PROTOCOLS)
    assert by_grpc == by_http
