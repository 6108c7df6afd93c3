"""What process-level tests share: a running ctserve, and a collector that only remembers.

Nothing here waits for a number of seconds: `until` polls a fact and fails with what it last saw.
"""
import contextlib
import http.server
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
CTSERVE = os.environ.get("CTSERVE", str(ROOT / "build" / "ctserve"))
SANITIZED = os.environ.get("CTSERVE_SANITIZED") == "1"
PATIENCE_S = 120 if SANITIZED else 60


def sanitizer(options):
    """Environment for a server that does on purpose what AddressSanitizer would report."""
    return {"ASAN_OPTIONS": f"{os.environ.get('ASAN_OPTIONS', '')}:{options}"} if SANITIZED else {}


#: For servers whose master has more than one thread, or whose workers hang. LeakSanitizer in a fork
#: looks for the stacks of threads that did not come along, and says itself that it is wrong then; a
#: thread that CPython ends in the middle of a request takes along what that request held; and the
#: search takes longer than the second in which a worker that hung has to be gone.
LEAKS_UNKNOWN = sanitizer("detect_leaks=0")


def until(fact, what, patience_s=PATIENCE_S):
    """Poll `fact()` until it is truthy and return it; AssertionError with `what` after patience_s."""
    deadline = time.monotonic() + patience_s
    while True:
        value = fact()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"never came true: {what() if callable(what) else what}")
        time.sleep(0.01)


def state_of(pid):
    """The kernel's letter for what a process does ("R", "S", "T" stopped, "Z"...); None: gone."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:   # also when it goes between open and read
        return None
    return stat.rpartition(")")[2].split()[0]


def is_gone(pid):
    """Has this process ended? One that nobody has waited for yet (a zombie) has."""
    return state_of(pid) in (None, "Z")


def is_read(client):
    """Has the server accepted this connection over 127.0.0.1 and read all that was sent on it?
    The kernel tells how many bytes lie unread in the server's end."""
    ours, theirs = ("0100007F:%04X" % end[1] for end in (client.getsockname(), client.getpeername()))
    for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1] == theirs and fields[2] == ours:
            return fields[4].endswith(":00000000") and fields[9] != "0"
    return False


def sweep(values, quick):
    """The values for pytest.mark.parametrize; those not in `quick` are left out by --quick."""
    import pytest
    values = list(values)
    assert all(value in values for value in quick), quick
    return [value if value in quick else
            pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
            for value in values]


class Running:
    """A ctserve started on a free loopback port, its log collected line by line.

    arguments: as typed behind `ctserve`; a bind to 127.0.0.1:0 is added unless one is there.
    """

    def __init__(self, arguments, cwd, environment=None, bind=True, command=None):
        self.lines = []
        self.arguments = [str(one) for one in arguments]
        self._grown = threading.Condition()
        command = list(command or [CTSERVE]) + list(arguments)
        if bind and not any(one in ("-b", "--bind") or one.startswith("--bind=") for one in arguments):
            command += ["-b", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace",
            env={**os.environ, **(environment or {})})
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = None

    def _read(self):
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()
        with self._grown:
            self._grown.notify_all()

    @property
    def text(self):
        with self._grown:
            return "\n".join(self.lines)

    def line(self, pattern, patience_s=PATIENCE_S, count=1):
        """Wait for the count-th line that matches; the match object."""
        deadline = time.monotonic() + patience_s
        with self._grown:
            while True:
                found = [m for m in (re.search(pattern, one) for one in self.lines) if m]
                if len(found) >= count:
                    return found[count - 1]
                left = deadline - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    raise AssertionError(f"no line like {pattern!r} (x{count}); the log was:\n"
                                         + "\n".join(self.lines[-80:]))
                self._grown.wait(min(left, 0.2))

    def ready(self):
        """Wait until a request is answered and all workers that were asked for are there;
        self.port is the port then."""
        self.port = int(self.line(r"Listening at: .*?:(\d+)")[1])
        until(lambda: self._answers(), lambda: "an answer; the log was:\n" + self.text)
        wanted = self._workers_wanted()
        until(lambda: len(self.workers()) >= wanted,
              lambda: f"{wanted} workers, not {self.workers()}; the log was:\n{self.text}")
        return self

    def _workers_wanted(self):
        """N of `-w N` or `--workers N` as typed; 0 when nothing was said."""
        for flag, value in zip(self.arguments, self.arguments[1:]):
            if flag in ("-w", "--workers"):
                return int(value)
        return 0

    def _answers(self):
        if self.process.poll() is not None:
            raise AssertionError("ended while it started:\n" + self.text)
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 5) as client:
                client.settimeout(10)
                client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
                return client.recv(64).startswith(b"HTTP/1.1")
        return False

    def get(self, path="/", headers=None, timeout=30):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers or {})
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read()

    def workers(self):
        """Pids of the children that are workers (the agent is no worker)."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    stat = pathlib.Path("/proc", entry, "stat").read_text()
                    name, _, rest = stat.rpartition(")")
                    fields = rest.split()
                    if int(fields[1]) == self.process.pid and fields[0] != "Z" \
                            and "ctserve-agent" not in name:
                        found.append(int(entry))
        return sorted(found)

    def agent(self):
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    stat = pathlib.Path("/proc", entry, "stat").read_text()
                    name, _, rest = stat.rpartition(")")
                    if int(rest.split()[1]) == self.process.pid and "ctserve-agent" in name \
                            and rest.split()[0] != "Z":
                        return int(entry)
        return None

    # -- the JSON API ---------------------------------------------------------------------
    def api(self, path):
        found = until(lambda: re.findall(r"http://127\.0\.0\.1:(\d+)/\?t=([0-9A-Za-z_-]+)", self.text),
                      lambda: "a line with the address of the trace API:\n" + self.text)
        port, token = found[-1]
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/{path}",
                                         headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stop(self, signo=signal.SIGTERM, patience_s=PATIENCE_S):
        """End it and return the exit code; KILL what does not go, and say so."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signo)
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                self._reader.join(5)
                raise AssertionError("did not stop; the log was:\n" + self.text) from None
        self._reader.join(10)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            self.stop()
        except AssertionError:
            if kind is None:
                raise


def attribute_value(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [attribute_value(one) for one in value.array_value.values]
    return getattr(value, kind) if kind else None


class Span:
    """One span as a collector saw it, with its resource."""

    def __init__(self, proto, resource):
        self.proto = proto
        self.trace_id, self.span_id = proto.trace_id.hex(), proto.span_id.hex()
        self.parent_id = proto.parent_span_id.hex()
        self.name, self.kind = proto.name, proto.kind
        self.is_error = proto.status.code == 2
        self.attributes = {one.key: attribute_value(one.value) for one in proto.attributes}
        self.resource = resource
        self.events = [(one.name, {a.key: attribute_value(a.value) for a in one.attributes})
                       for one in proto.events]
        self.start_ns, self.end_ns = proto.start_time_unix_nano, proto.end_time_unix_nano

    @property
    def is_server(self):
        return self.kind == 2


def spans_of(request):
    """Every span of an ExportTraceServiceRequest."""
    for group in request.resource_spans:
        resource = {one.key: attribute_value(one.value) for one in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Span(span, resource)


class HttpCollector:
    """An OTLP/HTTP receiver in this process (protobuf decoded by opentelemetry-proto)."""

    def __init__(self):
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
        collector = self
        self.spans = []
        self.lock = threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
                found = list(spans_of(request))
                with collector.lock:
                    collector.spans += found
                answer = trace_service_pb2.ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.protocol = "http/protobuf"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def seen(self):
        with self.lock:
            return list(self.spans)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class GrpcCollector:
    """An OTLP/gRPC receiver in this process (grpcio, opentelemetry-proto)."""

    def __init__(self):
        import concurrent.futures

        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
        collector = self
        self.spans = []
        self.lock = threading.Lock()

        class Service(trace_service_pb2_grpc.TraceServiceServicer):
            def Export(self, request, context):
                found = list(spans_of(request))
                with collector.lock:
                    collector.spans += found
                return trace_service_pb2.ExportTraceServiceResponse()

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), self.server)
        port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()
        self.endpoint = f"http://127.0.0.1:{port}"
        self.protocol = "grpc"

    seen = HttpCollector.seen

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop(None)


@contextlib.contextmanager
def app_folder(source, **files):
    """A temporary folder with app.py and other files ({name_py: text} -> name.py)."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="ctserve-test-"))
    try:
        (folder / "app.py").write_text(source)
        for name, text in files.items():
            (folder / name.replace("_py", ".py").replace("gunicorn_conf", "gunicorn.conf")).write_text(text)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
