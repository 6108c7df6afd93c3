"""The real OpenTelemetry Collector as a receiver: what it decoded, read back from its file."""
import contextlib
import json
import pathlib
import socket
import subprocess

import pytest

from harness import ROOT, until

BUILD = ROOT / "tests" / "collector" / "build"
BUILD_LIMIT_S = 850


def collector_path(config):
    """Where the Collector is, built once into a cache; `./test --quick` takes only what is there.
    A skip with the reason where it is not to be had."""
    is_quick = "not slow" in (config.getoption("markexpr") or "")
    build = subprocess.run([str(BUILD)] + (["--cached"] if is_quick else []), capture_output=True,
                           text=True, timeout=BUILD_LIMIT_S)
    if build.returncode != 0:
        reason = (build.stderr.strip().splitlines() or ["?"])[-1]
        pytest.skip(f"no OpenTelemetry Collector: {reason}")
    return build.stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Collector:
    """Listens for OTLP over gRPC and over HTTP; `spans` is what arrived so far."""

    def __init__(self, path, folder):
        self.file = pathlib.Path(folder, "traces.json")
        grpc, http = free_port(), free_port()
        self.endpoints = {"grpc": f"http://127.0.0.1:{grpc}",
                          "http/protobuf": f"http://127.0.0.1:{http}"}
        config = {
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": f"127.0.0.1:{grpc}"},
                "http": {"endpoint": f"127.0.0.1:{http}"}}}},
            "processors": {"batch": {"timeout": "200ms"}},
            "exporters": {"file": {"path": str(self.file), "flush_interval": "200ms"}},
            "service": {"telemetry": {"metrics": {"level": "none"}},
                        "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"],
                                                 "exporters": ["file"]}}}}
        config_file = pathlib.Path(folder, "config.json")
        config_file.write_text(json.dumps(config))
        self.log_file = pathlib.Path(folder, "log")
        self.log = open(self.log_file, "w")
        self.process = subprocess.Popen([path, "--config", str(config_file)],
                                        stdout=self.log, stderr=self.log)
        try:
            for port in (grpc, http):
                until(lambda: self._answers(port), self.log_file.read_text)
        except BaseException:
            self.__exit__()
            raise

    def _answers(self, port):
        assert self.process.poll() is None, self.log_file.read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def spans(self):
        """[(resource attributes, span)], in the words of OTLP's JSON; a last half line waits."""
        if not self.file.exists():
            return []
        found = []
        for line in self.file.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                break
            for group in json.loads(line).get("resourceSpans", []):
                resource = {one["key"]: one["value"] for one in group["resource"]["attributes"]}
                found += [(resource, span) for scope in group["scopeSpans"]
                          for span in scope["spans"]]
        return found

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def plain(value):
    """An AnyValue of OTLP's JSON as Python has it."""
    (kind, inner), = value.items()
    if kind == "intValue":
        return int(inner)
    if kind == "arrayValue":
        return [plain(one) for one in inner.get("values", [])]
    return inner


class JsonSpan:
    """One span of `Collector.spans`, with the fields of harness.Span."""

    def __init__(self, resource, span):
        self.trace_id, self.span_id = span["traceId"], span["spanId"]
        self.parent_id = span.get("parentSpanId", "")
        self.name, self.kind = span["name"], span["kind"]
        self.is_error = span.get("status", {}).get("code") == 2
        self.is_server = self.kind == 2
        self.attributes = {one["key"]: plain(one["value"]) for one in span.get("attributes", [])}
        self.resource = {key: plain(value) for key, value in resource.items()}
        self.events = [(one["name"], {a["key"]: plain(a["value"]) for a in one.get("attributes", [])})
                       for one in span.get("events", [])]
        self.start_ns, self.end_ns = int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"])
