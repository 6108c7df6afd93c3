"""What ./demo does once everything is built: start the shop, send it traffic, show its traces.

    demo.py show [--port N]    until Ctrl-C
    demo.py once [--port N]    ends by itself; prints one line per fact, exit 1 if one does not hold
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
SHOP = ROOT / "examples" / "flask_shop"
PATIENCE_S = 30
WORKERS = 4


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return True
        except OSError:
            return False


def choose_port(wanted):
    """The first free port from `wanted` on."""
    for port in range(wanted, wanted + 100):
        if port_is_free(port):
            return port
    sys.exit(f"no free port from {wanted} to {wanted + 99}; choose one with --port")


class Shop:
    """The server under demonstration. Its log is printed as it comes."""

    def __init__(self, port):
        self.port = port
        self.lines = []
        self.grown = threading.Condition()
        environment = {**os.environ, "VIRTUAL_ENV": str(ROOT / ".venv")}
        for name in ("GUNICORN_CMD_ARGS", "CTSERVE_CMD_ARGS", "PORT", "WEB_CONCURRENCY"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [str(ROOT / "build" / "ctserve"), "app:app", "--workers", str(WORKERS), "-c",
             "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}", "--trace-api", f"127.0.0.1:{choose_port(port + 1)}"],
            cwd=SHOP, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stdout:
            print("  " + line, end="", flush=True)
            with self.grown:
                self.lines.append(line)
                self.grown.notify_all()

    def line(self, pattern, count=1):
        deadline = time.monotonic() + PATIENCE_S
        with self.grown:
            while True:
                found = [match for match in (re.search(pattern, line) for line in self.lines) if match]
                if len(found) >= count:
                    return found[count - 1]
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the server did not say {pattern!r}")
                self.grown.wait(0.2)

    def ready(self):
        self.line("hook post_worker_init", WORKERS)
        found = self.line(r"(http://127\.0\.0\.1:\d+)/\?t=(\S+)")
        self.api_base, self.token = found[1], found[2]
        until(lambda: len([w for w in self.status()["workers"] if w["state"] == "ready"]) == WORKERS,
              "four ready workers in the API")

    def api(self, path):
        request = urllib.request.Request(f"{self.api_base}/api/v1/{path}",
                                         headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def status(self):
        return self.api("status")

    def ask(self, path, trace_id=None, data=None, timeout=30):
        """One request; (status, worker pid, body)."""
        headers = {"traceparent": f"00-{trace_id or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers,
                                         data=None if data is None else json.dumps(data).encode())
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, int(answer.headers["X-Worker-Pid"]), answer.read()
        except urllib.error.HTTPError as error:
            return error.code, int(error.headers.get("X-Worker-Pid") or 0), error.read()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.reader.join(5)
        return self.process.wait()


def until(fact, what):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):
            value = fact()
            if value:
                return value
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not seen within {PATIENCE_S} s")
        time.sleep(0.02)


ROUNDS = ["/", "/products/1", "/products/2", "/report", "/products/9", "/slow?seconds=0.05"]


def traffic(shop, count, answered):
    """`count` requests, every one with a trace id of its own -> answered[trace id]."""
    for number in range(count):
        trace_id = secrets.token_hex(16)
        if number % 5 == 4:
            got = shop.ask("/checkout", trace_id, {"product": 1 + number % 3, "count": 2})
        else:
            got = shop.ask(ROUNDS[number % len(ROUNDS)], trace_id)
        answered[trace_id] = got


# -- showing -----------------------------------------------------------------------------------
def tree(spans):
    """Spans of one trace, children indented below their parents, in order of their start."""
    known = {span["span_id"] for span in spans}
    children = {}
    for span in sorted(spans, key=lambda one: one["start_unix_ns"]):
        parent = span.get("parent_span_id")
        children.setdefault(parent if parent in known else None, []).append(span)

    def walk(parent, depth):
        for span in children.get(parent, []):
            attributes = span["attributes"]
            note = attributes.get("url.path", "")
            if "http.response.status_code" in attributes:
                note += f" -> {attributes['http.response.status_code']}"
            if span["error"]:
                note += f"  ERROR {attributes.get('error.type', '')}"
            print(f"    {'  ' * depth}{span['name']} {note}  {span['duration_ns'] / 1e6:.2f} ms  "
                  f"pid {span['pid']}")
            walk(span["span_id"], depth + 1)

    walk(None, 0)


def show_traces(shop, limit, shown):
    for summary in reversed(shop.api(f"traces?limit={limit}")["traces"]):
        if summary["trace_id"] in shown:
            continue
        shown.add(summary["trace_id"])
        print(f"  trace {summary['trace_id']}")
        tree(shop.api(f"traces/{summary['trace_id']}")["spans"])


def show(port):
    shop = Shop(port)
    try:
        shop.ready()
        answered = {}
        traffic(shop, 12, answered)
        until(lambda: trace_of(shop, list(answered)[-1]), "the last trace")
        print("\nfinished traces, oldest first:")
        show_traces(shop, 40, set())
        print(f"""
the shop    http://127.0.0.1:{shop.port}/   also /products/1 /report /slow /crash
the traces  {shop.api_base}/api/v1/traces?t={shop.token}
            {shop.api_base}/api/v1/status?t={shop.token}
try         curl http://127.0.0.1:{shop.port}/crash ; kill -9 one of {sorted(w['pid'] for w in shop.status()['workers'])}
Ctrl-C ends everything.
""", flush=True)
        shown = {summary["trace_id"] for summary in shop.api("traces?limit=200")["traces"]}
        while shop.process.poll() is None:
            time.sleep(1)
            with contextlib.suppress(OSError):
                show_traces(shop, 20, shown)
        return 1
    except KeyboardInterrupt:
        return 0
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        print("stopping", flush=True)
        shop.stop()


# -- checking ----------------------------------------------------------------------------------
def trace_of(shop, trace_id):
    try:
        return shop.api(f"traces/{trace_id}")["spans"]
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


class Facts:
    def __init__(self):
        self.failed = 0

    def check(self, holds, sentence):
        print(("ok    " if holds else "WRONG ") + sentence, flush=True)
        self.failed += not holds


def kill_in_the_middle(shop, trace_id):
    """Ask for a reply that never ends, kill the worker that gives it; its pid."""
    with socket.create_connection(("127.0.0.1", shop.port), 30) as client:
        client.sendall(f"GET /stream-and-wait HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                       f"traceparent: 00-{trace_id}-{secrets.token_hex(8)}-01\r\n\r\n".encode())
        data = b""
        while not (found := re.search(rb"\r\n\r\n(?:[0-9a-f]+\r\n)?(\d+)\n", data)):
            piece = client.recv(4096)
            if not piece:
                raise RuntimeError("the reply to kill ended early")
            data += piece
        pid = int(found[1])
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while client.recv(4096):
                pass
    return pid


def once(port):
    facts = Facts()
    shop = Shop(port)
    answered = {}
    try:
        shop.ready()
        facts.check(True, f"{WORKERS} workers are ready")
        traffic(shop, 10, answered)
        killed_trace = secrets.token_hex(16)
        killed_pid = kill_in_the_middle(shop, killed_trace)
        traffic(shop, 10, answered)
        facts.check(len(answered) == 20 and all(got[0] in (200, 404) for got in answered.values()),
                    f"{len(answered)} requests were answered, one worker was killed between them")
        right = 0
        for trace_id, (status, pid, _) in answered.items():
            spans = until(lambda: trace_of(shop, trace_id), f"trace {trace_id}")
            servers = [span for span in spans if span["kind"] == "server"]
            right += (len(servers) == 1 and servers[0]["pid"] == pid
                      and servers[0]["attributes"].get("http.response.status_code") == status)
        facts.check(right == len(answered),
                    f"{right} of {len(answered)} have exactly one server span, from the worker that answered")
        spans = until(lambda: trace_of(shop, killed_trace), "the killed request")
        facts.check(len(spans) == 1 and spans[0]["error"] and spans[0]["pid"] == killed_pid,
                    f"the request that was killed with worker {killed_pid} is there, as an error: "
                    f"{spans[0]['attributes'].get('error.type')}")
        names = set()
        for summary in shop.api("traces?limit=500")["traces"]:
            for span in shop.api(f"traces/{summary['trace_id']}")["spans"]:
                if span["pid"] == shop.process.pid:
                    names.add(span["name"])
        facts.check({"ctserve.boot", "ctserve.fork", "ctserve.worker.exit"} <= names,
                    "the master's own spans are there: " + ", ".join(sorted(names)))
        pids = until(lambda: (lambda now: now if len(now) == WORKERS else None)(
            [w["pid"] for w in shop.status()["workers"] if w["state"] == "ready"]), "four workers again")
        facts.check(killed_pid not in pids, "the killed worker was replaced: " + ", ".join(map(str, pids)))
    except (RuntimeError, OSError) as error:
        facts.check(False, str(error))
    code = shop.stop()
    facts.check(code == 0, f"the server left with exit code {code}")
    left = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if int(pathlib.Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[3]) \
                        == shop.process.pid:
                    left.append(entry)
    facts.check(not left, "nothing is left running")
    return 1 if facts.failed else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", choices=["show", "once"])
    parser.add_argument("--port", type=int, default=8000)
    options = parser.parse_args()
    port = choose_port(options.port)
    if port != options.port:
        print(f"port {options.port} is taken, using {port}")
    return (show if options.mode == "show" else once)(port)


if __name__ == "__main__":
    sys.exit(main())
