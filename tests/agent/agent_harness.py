"""A master, workers and collectors for tests that drive the real ctserve-agent alone."""
import concurrent.futures
import contextlib
import fcntl
import http.server
import json
import os
import pathlib
import select
import signal
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request

from harness import CTSERVE, spans_of, until

BUILD = pathlib.Path(os.environ.get("CTSERVE_BUILD", str(pathlib.Path(CTSERVE).parent)))
AGENT = str(BUILD / "ctserve-agent")
TOOL = str(BUILD / "tests" / "unit" / "agent" / "agent-worker-tool")

MAGIC = 0x43545357
HELLO, RING, WORKER, FORGET, STOP = 1, 2, 3, 4, 5
READY, RETIRED, RECYCLE, NOTE = 65, 66, 67, 68
GONE = 5
REASONS = {"unknown": 0, "stopped": 1, "max_requests": 2, "timeout": 3, "request_timeout": 4,
           "signal": 5, "boot_failed": 6, "ring_damaged": 7}
TOTALS = struct.Struct("<12Q")          # struct cts_agent_totals
OTEL = ("OTEL_", "GRPC_", "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class Worker:
    """A process with a ring: tests/agent/worker_tool.c."""

    def __init__(self, ring_id, slot=0, generation=1, ring_bytes=1 << 20, rows=8):
        self.ring_id, self.slot, self.generation = ring_id, slot, generation
        self.process = subprocess.Popen(
            [TOOL, "play", *map(str, (ring_id, slot, generation, ring_bytes, rows))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        number = self.process.stdout.readline().split()[1]
        self.fd = os.open(f"/proc/{self.process.pid}/fd/{number}", os.O_RDWR)
        self.pid = self.process.pid
        self._say("")

    def _say(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def spans(self, count):
        self._say(f"spans {count}")

    def flood(self, count, pause_us):
        """Begin, without waiting for the end; `flooded` waits."""
        self.process.stdin.write(f"flood {count} {pause_us}\n")
        self.process.stdin.flush()

    def flooded(self):
        assert self.process.stdout.readline() == "ok\n"

    def open(self, count):
        self._say(f"open {count}")

    def put(self, count):
        self._say(f"put {count}")

    def scribble(self):
        self._say("scribble")

    def kill(self):
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def sum(self):
        out = subprocess.run([TOOL, "sum", str(self.fd)], pass_fds=[self.fd], check=True,
                             capture_output=True, text=True).stdout
        return json.loads(out)

    def close(self):
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        os.close(self.fd)


def assert_identity(worker, settled=True):
    """The identity, out of the shared memory alone; settled: nothing is on its way any more."""
    s = worker.sum()
    lost = s["lost_uncommitted"] or s["rowless_open"]
    assert s["is_exact"], s
    assert s["started"] == (s["open"] + s["in_ring"] + s["in_heap"] + s["acked"] + s["rejected"]
                            + s["dropped"] + lost), s
    if settled:
        assert s["in_ring"] == s["in_heap"] == 0, s
    return s


class Master:
    """The other end of descriptor 3; restarts the agent on demand and says everything again."""

    def __init__(self, environment=None, **hello):
        self.environment = {key: value for key, value in os.environ.items()
                            if not key.startswith(OTEL)}
        self.environment["no_proxy"] = "*"
        self.environment.update(environment or {})
        self.hello = {"master_pid": os.getpid(), "server_version": "test", "app": "shop:app",
                      "service_name": "", "otlp_endpoint": "", "otlp_protocol": "",
                      "api": "127.0.0.1:0", "token": "secret", "workers": 2, "bind": "none",
                      "started_real_ns": time.time_ns(), **hello}
        self.totals = bytes(TOTALS.size)
        self.rings, self.gone, self.messages = {}, {}, []
        self.socket = self.pid = None
        self.start()

    def start(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, 20)
        theirs.close()
        self.pid = os.posix_spawn(AGENT, ["ctserve-agent"], self.environment,
                                  file_actions=[(os.POSIX_SPAWN_DUP2, high, 3)])
        os.close(high)
        self.socket = ours
        self.messages = []
        lines = "".join(f"{key}={value}\n" for key, value in self.hello.items())
        self.send(HELLO, self.totals + lines.encode())
        for worker in self.rings.values():
            self._announce(worker)
        for body in self.gone.values():
            self.send(WORKER, body)

    def send(self, kind, body, fds=()):
        packet = struct.pack("<IIII", MAGIC, kind, len(body), 0) + body
        socket.send_fds(self.socket, [packet], list(fds))

    def _announce(self, worker):
        body = struct.pack("<QiIQii", worker.ring_id, worker.slot, worker.generation, 1,
                           worker.pid, 0)
        self.send(RING, body, [worker.fd])

    def add(self, worker):
        self.rings[worker.ring_id] = worker
        self._announce(worker)
        return worker

    def say_gone(self, worker, reason="signal", wait_status=signal.SIGKILL, stack="", thread=0):
        text = stack.encode()
        body = struct.pack("<QiIIiQIi", worker.ring_id, worker.pid, GONE, REASONS[reason],
                           wait_status, time.monotonic_ns(), len(text), thread) + text
        self.gone[worker.ring_id] = body
        self.send(WORKER, body)

    def forget(self, worker, totals):
        self.totals = TOTALS.pack(*totals)
        del self.rings[worker.ring_id]
        self.gone.pop(worker.ring_id, None)
        self.send(FORGET, struct.pack("<Q", worker.ring_id) + self.totals)

    def poll(self):
        """Everything the agent has said so far: [(kind, body)]."""
        while select.select([self.socket], [], [], 0)[0]:
            packet = self.socket.recv(70000)
            if not packet:
                break
            magic, kind, count, _ = struct.unpack_from("<IIII", packet)
            assert magic == MAGIC and count == len(packet) - 16
            self.messages.append((kind, packet[16:]))
        return self.messages

    def heard(self, kind):
        return [body for one, body in self.poll() if one == kind]

    def notes(self):
        return [body[4:].decode() for body in self.heard(NOTE)]

    def retired(self, worker):
        return struct.pack("<Q", worker.ring_id) in self.heard(RETIRED)

    def address(self):
        body = until(lambda: self.heard(READY), "READY")[-1].decode()
        fields = dict(line.split("=", 1) for line in body.splitlines())
        return fields["api"], fields.get("token")

    def get(self, path, token="secret", headers=None, method="GET"):
        address, _ = self.address()
        request = urllib.request.Request(f"http://{address}/api/v1/{path}", method=method,
                                         headers={"Authorization": f"Bearer {token}",
                                                  **(headers or {})})
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def kill_agent(self):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.socket.close()
        self.pid = None

    def restart_agent(self):
        self.kill_agent()
        self.start()

    def stop(self, deadline_ms=10000):
        """STOP, and the agent's exit code."""
        self.send(STOP, struct.pack("<I", deadline_ms))
        return self.wait()

    def wait(self):
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.poll()
        self.pid = None
        return code

    def wait_code(self):
        """The exit code, when our end of the socket is closed already."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = None
        return code

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                self.kill_agent()
        self.socket.close()
        for worker in self.rings.values():
            worker.close()


class Faults:
    """What both receivers share: the spans they took, and a script of answers.

    script: a list of answers to give first, one per request, None meaning a good one; when it is
    used up every request is taken.
    """

    def __init__(self, script=()):
        self.script, self.lock = list(script), threading.Lock()
        self.requests, self.times, self.fields = [], [], []

    def next(self, fields):
        with self.lock:
            self.times.append(time.monotonic())
            self.fields.append(fields)
            return self.script.pop(0) if self.script else None

    def take(self, request):
        with self.lock:
            self.requests.append(request)

    def spans(self):
        with self.lock:
            return [span for request in self.requests for span in spans_of(request)]

    def ids(self):
        return [span.span_id for span in self.spans()]


class HttpReceiver(Faults):
    """answers: an int (status), (status, {headers}), "rst", "hang", "nonsense", "partial:N"."""

    protocol = "http/protobuf"

    def __enter__(self):
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
        receiver = self
        self.release = threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                fault = receiver.next(dict(self.headers))
                if fault == "rst":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                               struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                if fault == "hang":
                    receiver.release.wait(60)
                    self.close_connection = True
                    return
                if fault == "nonsense":
                    self.wfile.write(b"SSH-2.0-OpenSSH_9.2p1\r\n\x00\xff" * 20)
                    self.close_connection = True
                    return
                if isinstance(fault, (int, tuple)):
                    status, fields = fault if isinstance(fault, tuple) else (fault, {})
                    self.send_response(status)
                    for name, value in fields.items():
                        self.send_header(name, value() if callable(value) else value)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                answer = pb.ExportTraceServiceResponse()
                if isinstance(fault, str) and fault.startswith("partial:"):
                    answer.partial_success.rejected_spans = int(fault.split(":")[1])
                    answer.partial_success.error_message = "too bright"
                receiver.take(pb.ExportTraceServiceRequest.FromString(body))
                out = b"<html>thanks</html>" if fault == "thanks" else answer.SerializeToString()
                self.send_response(200)
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, *_):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionError):
                    super().handle()

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self.server.shutdown()
        self.server.server_close()


class GrpcReceiver(Faults):
    """answers: (code name, detail text, RetryInfo seconds or None), "hang", "partial:N"."""

    protocol = "grpc"

    def __init__(self, script=(), port=0):
        super().__init__(script)
        self.port = port

    def __enter__(self):
        import grpc
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
        receiver = self
        self.release = threading.Event()

        class Service(service.TraceServiceServicer):
            def Export(self, request, context):
                fault = receiver.next(dict(context.invocation_metadata()))
                if fault == "hang":
                    receiver.release.wait(60)
                if isinstance(fault, tuple):
                    code, detail, seconds = fault
                    if seconds is not None:
                        context.set_trailing_metadata(
                            (("grpc-status-details-bin", retry_info(seconds)),))
                    context.abort(getattr(grpc.StatusCode, code), detail)
                receiver.take(request)
                answer = pb.ExportTraceServiceResponse()
                if isinstance(fault, str) and fault.startswith("partial:"):
                    answer.partial_success.rejected_spans = int(fault.split(":")[1])
                    answer.partial_success.error_message = "too bright"
                return answer

        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        service.add_TraceServiceServicer_to_server(Service(), self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self.server.start()
        return self

    def __exit__(self, *_):
        self.release.set()
        self.server.stop(0).wait()


def field(number, payload):
    """One length-delimited protobuf field."""
    return bytes([number << 3 | 2, len(payload)]) + payload


def retry_info(seconds):
    """google.rpc.Status with a google.rpc.RetryInfo, written by hand."""
    whole, nanos = int(seconds), int(seconds % 1 * 1e9)
    delay = b"\x08" + varint(whole) + b"\x10" + varint(nanos)
    info = field(1, delay)
    packed = field(1, b"type.googleapis.com/google.rpc.RetryInfo") + field(2, info)
    return b"\x08\x08" + field(3, packed)


def varint(number):
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])
