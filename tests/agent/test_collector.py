"""A real OpenTelemetry Collector judges what we send; without a Go that builds it, a skip."""
import contextlib
import json
import pathlib
import socket
import subprocess
import tempfile

import pytest

from agent_harness import Master, Worker, assert_identity, until
from harness import ROOT


def collector_path():
    build = subprocess.run([str(ROOT / "tests" / "collector" / "build")], capture_output=True,
                           text=True, timeout=900)
    if build.returncode != 0:
        reason = (build.stderr.strip().splitlines() or ["?"])[-1]
        pytest.skip(f"no OpenTelemetry Collector: {reason}")
    return build.stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Collector:
    def __init__(self, folder):
        self.file = pathlib.Path(folder, "traces.json")
        self.grpc, self.http = free_port(), free_port()
        config = {
            "receivers": {"otlp": {"protocols": {
                "grpc": {"endpoint": f"127.0.0.1:{self.grpc}"},
                "http": {"endpoint": f"127.0.0.1:{self.http}"}}}},
            "processors": {"batch": {"timeout": "200ms"}},
            "exporters": {"file": {"path": str(self.file), "flush_interval": "200ms"}},
            "service": {"telemetry": {"metrics": {"level": "none"}},
                        "pipelines": {"traces": {"receivers": ["otlp"], "processors": ["batch"],
                                                 "exporters": ["file"]}}}}
        path = pathlib.Path(folder, "config.json")
        path.write_text(json.dumps(config))
        self.log = open(pathlib.Path(folder, "log"), "w+")
        self.process = subprocess.Popen([collector_path(), "--config", str(path)],
                                        stdout=self.log, stderr=self.log)
        for port in (self.grpc, self.http):
            until(lambda: self.answers(port), lambda: pathlib.Path(self.log.name).read_text())

    def answers(self, port):
        assert self.process.poll() is None, pathlib.Path(self.log.name).read_text()
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    def spans(self):
        """[(resource attributes, span)] as the Collector decoded them."""
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
        self.process.wait(20)
        self.log.close()


VARYING = {"traceId", "spanId", "startTimeUnixNano", "endTimeUnixNano"}


def shape(resource, span):
    """What must be the same whichever way a span travelled: all but ids, times and processes."""
    plain = {key: value for key, value in span.items() if key not in VARYING and key != "events"}
    plain["attributes"] = [one for one in span.get("attributes", [])
                           if not one["key"].startswith("ctserve.phase.")]
    events = [{key: value for key, value in event.items() if key != "timeUnixNano"}
              for event in span.get("events", [])]
    names = sorted(key for key in resource)
    return json.dumps([plain, events, names], sort_keys=True)


def delivered(collector, endpoint, protocol):
    with Master(otlp_endpoint=endpoint, otlp_protocol=protocol, service_name="shop") as master:
        own, worker = master.add(Worker(1, slot=-1)), master.add(Worker(2))
        own.put(3)
        worker.spans(40)
        worker.open(2)
        worker.kill()
        master.say_gone(worker, stack="in checkout")
        until(lambda: master.retired(worker), worker.sum)
        until(lambda: own.sum()["acked"] == 3, own.sum)
        assert assert_identity(worker)["acked"] == 42
        pids = {str(own.pid), str(worker.pid)}

        def mine():
            found = [(resource, span) for resource, span in collector.spans()
                     if resource["process.pid"]["intValue"] in pids]
            return found if len(found) >= 45 else None
        found = until(mine, lambda: len(collector.spans()))
        assert len(found) == len({span["spanId"] for _, span in found}) == 45
        assert len({r["service.instance.id"]["stringValue"] for r, _ in found}) == 2
        assert {r["service.name"]["stringValue"] for r, _ in found} == {"shop"}
        assert master.stop() == 0
        return sorted(shape(resource, span) for resource, span in found)


def test_a_real_collector_decodes_the_same_set_over_grpc_and_over_http():
    with tempfile.TemporaryDirectory() as folder, Collector(folder) as collector:
        over_grpc = delivered(collector, f"http://127.0.0.1:{collector.grpc}", "grpc")
        over_http = delivered(collector, f"http://127.0.0.1:{collector.http}", "http/protobuf")
        assert over_grpc == over_http
