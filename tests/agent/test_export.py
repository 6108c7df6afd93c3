"""What becomes of spans whose collector takes them, refuses them, hangs, lies or is not there.

Every test ends with the identity of the shared memory, read without the agent.
"""
import email.utils
import os
import signal
import socket
import time

import pytest

from agent_harness import (RECYCLE, GrpcReceiver, HttpReceiver, Master, Worker, assert_identity,
                           until)
from harness import sweep

RECEIVERS = pytest.mark.parametrize("receiver", [HttpReceiver, GrpcReceiver],
                                    ids=["http", "grpc"])


def master_for(receiver, **environment):
    return Master(environment, otlp_endpoint=receiver.endpoint, otlp_protocol=receiver.protocol)


def settled(worker, count):
    """Wait until the fate of `count` spans is known; the counts."""
    def known():
        s = worker.sum()
        return s if s["acked"] + s["rejected"] + s["dropped"] >= count else None
    until(known, worker.sum, 40)
    return assert_identity(worker)


@RECEIVERS
def test_every_committed_span_arrives_once_with_the_resource_of_its_process(receiver):
    with receiver() as collector, master_for(collector, OTEL_SERVICE_NAME="shop",
                                             OTEL_RESOURCE_ATTRIBUTES="team=a%20b") as master:
        first, second = master.add(Worker(2, slot=0)), master.add(Worker(3, slot=1))
        first.spans(1500)
        second.spans(700)
        second.put(3)
        settled(first, 1500)
        settled(second, 703)
        spans = collector.spans()
        assert len(spans) == len({span.span_id for span in spans}) == 2203
        for worker, count in ((first, 1500), (second, 703)):
            mine = [span for span in spans if span.resource["process.pid"] == worker.pid]
            assert len(mine) == count
            assert {span.resource["ctserve.worker.slot"] for span in mine} == {worker.slot}
            assert {span.resource["service.name"] for span in mine} == {"shop"}
            assert {span.resource["team"] for span in mine} == {"a b"}
            assert {span.resource["telemetry.sdk.name"] for span in mine} == {"ctserve"}
        assert len({span.resource["service.instance.id"] for span in spans}) == 2
        assert master.stop() == 0


@RECEIVERS
def test_a_server_span_says_what_the_conventions_ask_for_and_no_secret(receiver):
    with receiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(10)
        worker.put(1)
        settled(worker, 11)
        spans = collector.spans()
        plain, failed = spans[0], spans[9]
        assert plain.name == "GET /item/<int:id>" and plain.is_server and not plain.is_error
        assert plain.attributes["url.query"] == "a=1&sig=REDACTED&b=2"
        assert plain.attributes["server.address"] == "shop.test"
        assert plain.proto.flags & 0x300 == 0x100
        assert spans[1].proto.flags == 0x301 and spans[1].parent_id == "b7ad6b7169203331"
        assert spans[4].attributes["url.path"] == "/caf\ufffd"
        brewed = spans[6]
        assert brewed.attributes["http.request.method"] == "_OTHER"
        assert brewed.attributes["http.request.method_original"] == "BREW"
        assert brewed.name.startswith("HTTP")
        assert failed.is_error and failed.attributes["error.type"] == "ValueError"
        assert failed.events == [("exception", {"exception.type": "ValueError",
                                                "exception.message": "no such thing"})]
        fork = spans[10]
        assert fork.name == "ctserve.fork" and fork.kind == 1
        assert fork.attributes == {"ctserve.number": 0, "ctserve.word": "fork", "ctserve.yes": True}
        assert fork.proto.links[0].trace_id == bytes([7] * 16)


RETRIED_HTTP = [429, 502, 503, 504, "rst", "nonsense"]
DROPPED_HTTP = [400, 401, 404, 413, 500, 501]


@pytest.mark.parametrize("fault", sweep(RETRIED_HTTP, [503, "rst"]))
def test_http_answers_that_pass_are_tried_again_and_nothing_is_lost(fault):
    with HttpReceiver([fault]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(20)
        counts = settled(worker, 20)
        assert counts["acked"] == 20 and len(set(collector.ids())) == len(collector.ids()) == 20
        assert len(collector.times) == 2
        assert 0.7 < collector.times[1] - collector.times[0] < 5
        assert len([note for note in master.notes() if "does not take them" in note]) == 1


@pytest.mark.parametrize("fault", sweep(DROPPED_HTTP, [400, 413]))
def test_http_answers_that_stay_are_dropped_and_counted(fault):
    with HttpReceiver([fault] * 100) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(20)
        counts = settled(worker, 20)
        assert counts["refused"] == 20 and counts["acked"] == 0
        # 413 is answered by halving, down to single spans
        assert len(collector.times) == (39 if fault == 413 else 1)


@pytest.mark.parametrize("value", ["3", lambda: email.utils.formatdate(time.time() + 4, usegmt=True)],
                         ids=["seconds", "date"])
def test_retry_after_is_respected(value):
    with HttpReceiver([(429, {"Retry-After": value})]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(1)
        settled(worker, 1)
        assert 2.4 < collector.times[1] - collector.times[0] < 5.5


RETRIED_GRPC = ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE",
                "DATA_LOSS"]
DROPPED_GRPC = ["UNKNOWN", "INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
                "FAILED_PRECONDITION", "UNIMPLEMENTED", "INTERNAL", "UNAUTHENTICATED",
                "RESOURCE_EXHAUSTED"]


@pytest.mark.parametrize("code", sweep(RETRIED_GRPC, ["UNAVAILABLE", "DATA_LOSS"]))
def test_grpc_codes_that_pass_are_tried_again_and_nothing_is_lost(code):
    with GrpcReceiver([(code, "later", None)]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(20)
        assert settled(worker, 20)["acked"] == 20
        assert len(collector.times) == 2 and len(collector.ids()) == 20


@pytest.mark.parametrize("code", sweep(DROPPED_GRPC, ["INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"]))
def test_grpc_codes_that_stay_are_dropped_and_counted(code):
    with GrpcReceiver([(code, "never", None)]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(20)
        assert settled(worker, 20)["refused"] == 20
        assert len(collector.times) == 1


def test_resource_exhausted_with_retry_info_is_tried_again_when_it_says():
    with GrpcReceiver([("RESOURCE_EXHAUSTED", "busy", 2.5)]) as collector, \
            master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(5)
        assert settled(worker, 5)["acked"] == 5
        assert 2.0 < collector.times[1] - collector.times[0] < 4


def test_a_batch_that_is_too_large_for_the_server_is_halved():
    too_large = ("RESOURCE_EXHAUSTED", "grpc: received message larger than max (9 vs. 4)", None)
    with GrpcReceiver([too_large, too_large]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(40)
        assert settled(worker, 40)["acked"] == 40
        assert len(set(collector.ids())) == 40 and len(collector.requests) == 3


@RECEIVERS
def test_a_partial_success_is_counted_and_never_sent_again(receiver):
    with receiver(["partial:3"]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(10)
        counts = settled(worker, 10)
        assert (counts["acked"], counts["rejected"]) == (7, 3)
        assert len(collector.times) == 1
        assert any("too bright" in note for note in master.notes())


def test_an_ok_in_words_that_are_not_otlp_counts_as_delivered_and_is_said_once():
    with HttpReceiver(["thanks", "thanks"]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        for count in (5, 10):
            worker.spans(5)
            assert settled(worker, count)["acked"] == count
        assert len([note for note in master.notes() if "not OTLP" in note]) == 1


@RECEIVERS
def test_a_collector_that_hangs_is_given_up_after_the_timeout_and_tried_again(receiver):
    with receiver(["hang"]) as collector, \
            master_for(collector, OTEL_EXPORTER_OTLP_TIMEOUT="500") as master:
        worker = master.add(Worker(2))
        worker.spans(20)
        assert settled(worker, 20)["acked"] == 20


def test_a_collector_that_is_not_there_yet_gets_everything_when_it_comes():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Master(otlp_endpoint=f"http://127.0.0.1:{port}", otlp_protocol="grpc") as master:
        worker = master.add(Worker(2))
        worker.spans(30)
        until(lambda: any("does not take them" in note for note in master.notes()), "a note")
        assert assert_identity(worker, settled=False)["in_ring"] == 30
        with GrpcReceiver(port=port) as collector:
            assert settled(worker, 30)["acked"] == 30
            assert len(collector.ids()) == 30
            assert master.stop() == 0


@RECEIVERS
def test_headers_and_user_agent_are_sent(receiver):
    with receiver() as collector, \
            master_for(collector, OTEL_EXPORTER_OTLP_HEADERS="X-Team=a%20b,x-key=1") as master:
        worker = master.add(Worker(2))
        worker.spans(1)
        settled(worker, 1)
        fields = {name.lower(): value for name, value in collector.fields[0].items()}
        assert fields["x-team"] == "a b" and fields["x-key"] == "1"
        assert fields["user-agent"].startswith("ctserve/")


def test_with_nothing_configured_spans_are_kept_locally_and_nobody_complains():
    with Master() as master:
        worker = master.add(Worker(2))
        worker.spans(100)
        assert settled(worker, 100)["acked"] == 100
        assert len(master.get("traces?limit=200")["traces"]) > 10
        assert master.notes() == []
        assert master.stop() == 0


@pytest.mark.parametrize("variable", [("OTEL_SDK_DISABLED", "true"),
                                      ("OTEL_TRACES_EXPORTER", "none")])
def test_a_variable_switches_the_export_off(variable):
    with HttpReceiver() as collector, \
            Master({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, **dict([variable])}) as master:
        worker = master.add(Worker(2))
        worker.spans(5)
        settled(worker, 5)
        assert collector.times == []


@RECEIVERS
def test_the_variables_of_the_environment_are_enough(receiver):
    with receiver() as collector, \
            Master({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
                    "OTEL_EXPORTER_OTLP_PROTOCOL": collector.protocol}) as master:
        worker = master.add(Worker(2))
        worker.spans(5)
        settled(worker, 5)
        assert len(collector.ids()) == 5


# -- workers that die, agents that die ---------------------------------------------------------
@RECEIVERS
def test_the_requests_of_a_killed_worker_arrive_as_errors_and_its_ring_retires(receiver):
    with receiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(50)
        worker.open(3)
        worker.kill()
        master.say_gone(worker, stack='File "shop.py", line 7 in checkout')
        until(lambda: master.retired(worker), worker.sum)
        counts = assert_identity(worker)
        assert counts["acked"] == 53 and counts["open"] == 0
        lost = [span for span in collector.spans() if span.is_error
                and span.attributes["error.type"] == "worker_lost"]
        assert len(lost) == 3 and len(collector.ids()) == 53
        for span in lost:
            assert span.is_server and span.end_ns > span.start_ns
            assert span.attributes["ctserve.worker.signal_name"] == "SIGKILL"
            assert span.attributes["ctserve.phase"] == "app"
            assert "checkout" in span.events[0][1]["exception.stacktrace"]


def test_a_worker_that_ran_too_long_leaves_a_timeout():
    with HttpReceiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.open(1)
        worker.kill()
        master.say_gone(worker, reason="timeout")
        until(lambda: master.retired(worker), worker.sum)
        assert [span.attributes["error.type"] for span in collector.spans()] == ["worker_timeout"]


def test_an_agent_killed_before_a_dead_workers_rows_were_taken_tells_them_under_the_same_ids():
    with HttpReceiver(["hang"]) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(5)
        worker.open(4)
        worker.kill()
        master.say_gone(worker)
        until(lambda: collector.times, "a first attempt")
        master.restart_agent()
        until(lambda: master.retired(worker), worker.sum)
        assert assert_identity(worker)["acked"] == 9
        assert len(set(collector.ids())) == len(collector.ids()) == 9
        master.restart_agent()
        until(lambda: master.retired(worker), "retired again")
        assert assert_identity(worker)["acked"] == 9 and len(collector.ids()) == 9


@RECEIVERS
def test_an_agent_that_is_killed_again_and_again_loses_nothing(receiver):
    with receiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2, ring_bytes=4 << 20))
        worker.flood(3000, 1000)
        in_the_middle = 0
        for _ in range(10):   # on a slow machine the flood may be over before the tenth kill
            seen = len(collector.times)
            until(lambda: len(collector.times) > seen or len(set(collector.ids())) == 3000,
                  "another request, or all spans")
            in_the_middle += len(set(collector.ids())) < 3000
            master.restart_agent()
        assert in_the_middle > 0
        worker.flooded()
        counts = settled(worker, 3000)
        assert counts["acked"] == counts["started"] == 3000
        ids = collector.ids()
        assert len(set(ids)) == 3000
        assert len(ids) - 3000 <= 10 * 4 * 512


def test_the_heap_is_bounded_and_what_an_agent_had_in_it_is_counted_when_it_dies():
    with HttpReceiver([503] * 1000) as collector, \
            master_for(collector, CTSERVE_HEAP_BYTES=str(1 << 20)) as master:
        worker = master.add(Worker(2, ring_bytes=65536))
        until(lambda: worker.spans(20) or any("does not take" in n for n in master.notes()), "503")
        for _ in range(60):
            worker.spans(100)
            time.sleep(0.02)
        status = until(lambda: (lambda s: s if s["totals"]["in_heap"] > 100 else None)(
            master.get("status")), "a heap")
        assert status["agent"]["heap_bytes"] <= 1 << 20
        counts = assert_identity(worker, settled=False)
        assert counts["ring_full"] > 0 and counts["in_heap"] > 100
        with collector.lock:
            collector.script.clear()
        master.restart_agent()
        until(lambda: worker.sum()["in_ring"] == 0, worker.sum)
        after = assert_identity(worker)
        assert after["agent_lost"] >= counts["in_heap"]
        assert after["acked"] == len(set(collector.ids()))


def test_a_scribbled_ring_is_left_alone_and_the_others_go_on():
    with HttpReceiver() as collector, master_for(collector) as master:
        bad, good = master.add(Worker(2)), master.add(Worker(3, slot=1))
        bad.spans(5)
        settled(bad, 5)
        bad.scribble()
        until(lambda: master.heard(RECYCLE), "RECYCLE")
        good.spans(50)
        settled(good, 50)
        bad.kill()
        master.say_gone(bad, reason="ring_damaged")
        until(lambda: master.retired(bad), bad.sum)
        assert_identity(bad)
        assert master.get("status")["rings_damaged"] == 1
        assert master.stop() == 0


def test_a_forgotten_ring_leaves_its_totals_with_the_master():
    with Master() as master:
        worker = master.add(Worker(2))
        worker.spans(10)
        settled(worker, 10)
        worker.kill()
        master.say_gone(worker)
        until(lambda: master.retired(worker), worker.sum)
        master.forget(worker, [10, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
        status = until(lambda: (lambda s: s if not s["rings"] else None)(master.get("status")),
                       "no ring")
        assert status["totals"]["acked"] == 10 and status["totals"]["balances"] is True
        worker.close()


# -- the end ----------------------------------------------------------------------------------
def test_stop_drains_sends_and_leaves_with_zero():
    with GrpcReceiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(2000)
        assert master.stop() == 0
        assert len(set(collector.ids())) == 2000
        assert assert_identity(worker)["acked"] == 2000


@RECEIVERS
def test_stop_keeps_its_deadline_when_the_collector_hangs(receiver):
    with receiver(["hang"] * 50) as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(100)
        until(lambda: collector.times, "a request")
        before = time.monotonic()
        assert master.stop(deadline_ms=700) == 0
        assert time.monotonic() - before < 3
        assert assert_identity(worker, settled=False)["in_ring"] == 100


def test_a_master_that_is_gone_ends_the_agent_after_the_last_worker():
    with HttpReceiver() as collector, master_for(collector) as master:
        worker = master.add(Worker(2))
        worker.spans(10)
        worker.open(1)
        until(lambda: len(collector.ids()) == 10, "ten spans")
        worker.kill()
        master.socket.close()
        assert master.wait_code() == 0
        assert len(collector.ids()) == 11


def test_signals_of_a_terminal_do_not_end_it():
    with Master() as master:
        master.address()
        for signo in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(master.pid, signo)
        assert master.get("status")["agent"]["pid"] == master.pid
        assert master.stop() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_as_root_it_becomes_the_workers_user_before_it_reads_a_ring():
    with Master(uid=65534, gid=65534) as master:
        worker = master.add(Worker(2))
        worker.spans(5)
        settled(worker, 5)
        with open(f"/proc/{master.pid}/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        assert fields["Uid"].split() == fields["Gid"].split() == ["65534"] * 4
        assert fields["Groups"].split() == [] and int(fields["CapEff"], 16) == 0
        assert fields["Name"].strip() == "ctserve-agent"
