"""A real OpenTelemetry Collector judges what the agent alone sends; without one, a skip."""
import json
import tempfile

from agent_harness import Master, Worker, assert_identity, until
from otelcol import Collector, collector_path

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


def test_a_real_collector_decodes_the_same_set_over_grpc_and_over_http(request):
    path = collector_path(request.config)
    with tempfile.TemporaryDirectory() as folder, Collector(path, folder) as collector:
        over_grpc, over_http = (delivered(collector, collector.endpoints[protocol], protocol)
                                for protocol in ("grpc", "http/protobuf"))
        assert over_grpc == over_http
