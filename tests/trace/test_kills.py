"""Workers and the agent are killed under load; afterwards every span is accounted for."""
import http.client
import os
import random
import secrets
import signal
import threading
import time

import pytest

from harness import HttpCollector, Running, app_folder, until

APP = '''
import os, time
def app(environ, start_response):
    time.sleep(int(environ["QUERY_STRING"] or 0) / 1000)
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''


class Load:
    """Clients that ask without pause; each request bears a trace id of its own."""

    def __init__(self, port, clients, pause_s=0.0):
        self.port, self.pause_s = port, pause_s
        self.answered, self.failed = {}, {}   # trace id -> pid / exception
        self.lock = threading.Lock()
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self._client, daemon=True) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _client(self):
        dice = random.Random()
        while not self.ends.is_set():
            trace_id = secrets.token_hex(16)
            headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01", "Connection": "close"}
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                connection.request("GET", f"/?{dice.randrange(12)}", headers=headers)
                answer = connection.getresponse()
                pid = int(answer.read())
                assert answer.status == 200
                with self.lock:
                    self.answered[trace_id] = pid
            except (OSError, http.client.HTTPException, ValueError) as error:
                with self.lock:
                    self.failed[trace_id] = error
            finally:
                connection.close()
            if self.pause_s:
                self.ends.wait(self.pause_s)

    def stop(self):
        self.ends.set()
        for thread in self.threads:
            thread.join(40)
            assert not thread.is_alive()


def balanced_totals(server):
    """The identity's terms, once nothing is on its way any more."""
    def settled():
        status = server.api("status")
        totals = status["totals"]
        return status if totals["open"] == totals["in_ring"] == totals["in_heap"] == 0 else None
    return until(settled, lambda: f"a settled ring: {server.api('status')['totals']}")["totals"]


def start(folder, collector, *more):
    return Running(["app:app", "--workers", "4", "--trace-api", "127.0.0.1:0",
                    "--trace-otlp-endpoint", collector.endpoint,
                    "--trace-otlp-protocol", collector.protocol, *more], folder)


def kill_workers(server, load, kills):
    """SIGKILL workers that have answered, one after the other, each once."""
    killed = set()
    dice = random.Random(7)
    while len(killed) < kills:
        with load.lock:
            proven = set(load.answered.values())
        alive = [pid for pid in server.workers() if pid in proven and pid not in killed]
        if not alive:
            time.sleep(0.002)   # until the next answer names a new worker
            continue
        victim = dice.choice(alive)
        killed.add(victim)
        os.kill(victim, signal.SIGKILL)
    return killed


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_a_killed_worker_loses_no_committed_span_and_its_open_requests_arrive_as_errors(kills):
    with app_folder(APP) as folder, HttpCollector() as collector, start(folder, collector) as server:
        server.ready()
        load = Load(server.port, clients=8)
        killed = kill_workers(server, load, kills)
        load.stop()
        totals = balanced_totals(server)
        until(lambda: server.api("status")["exporter"]["in_flight"] == 0, "nothing in flight")
        spans = [span for span in collector.seen() if span.is_server]
        by_trace = {}
        for span in spans:
            by_trace.setdefault(span.trace_id, []).append(span)
        doubles = {trace: len(found) for trace, found in by_trace.items() if len(found) != 1}
        ours = {trace: found for trace, found in by_trace.items()
                if trace in load.answered or trace in load.failed}

        # every answered request arrived, from the worker that answered
        missing = [trace for trace in load.answered if trace not in by_trace]
        assert not missing, f"{len(missing)} of {len(load.answered)} answered requests have no span"
        assert not doubles, f"{len(doubles)} requests arrived more than once"
        for trace, pid in load.answered.items():
            span = by_trace[trace][0]
            assert span.resource["process.pid"] == pid
            if span.is_error:   # killed between the last byte and the commit
                assert pid in killed
        # a request that failed either never reached an application or is an error, once
        for trace in load.failed:
            for span in by_trace.get(trace, []):
                assert span.is_error, f"{span.name} of a killed worker is no error"
                assert span.resource["process.pid"] in killed
                assert span.attributes["error.type"]
        # the identity, exactly
        assert totals["started"] == (totals["acked"] + totals["rejected"] + totals["dropped"]
                                     + totals["lost_uncommitted"]), totals
        assert totals["dropped"] == totals["rejected"] == totals["lost_uncommitted"] == 0, totals
        all_spans = collector.seen()
        assert totals["acked"] == len(all_spans), (totals, len(all_spans))
        assert ours, "no request of the load was seen"


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_a_killed_agent_loses_nothing_and_fails_no_request(kills):
    with app_folder(APP) as folder, HttpCollector() as collector, start(folder, collector) as server:
        server.ready()
        first = until(server.agent, "an agent")
        load = Load(server.port, clients=8, pause_s=0.008)
        for _ in range(kills):
            agent = until(lambda: server.agent() if server.agent() else None, "an agent")
            before = len(load.answered)
            until(lambda: len(load.answered) > before + 100, "a hundred more answers")
            os.kill(agent, signal.SIGKILL)
            until(lambda: server.agent() not in (None, agent), "another agent")
        load.stop()
        until(lambda: len({span.trace_id for span in collector.seen()} & set(load.answered))
              == len(load.answered),
              lambda: f"every span: {len(load.answered)} answered, "
                      f"{len({s.trace_id for s in collector.seen()} & set(load.answered))} arrived")
        assert not load.failed, list(load.failed.values())[:3]
        assert server.agent() != first
        by_trace = {}
        for span in collector.seen():
            if span.is_server:
                by_trace.setdefault(span.trace_id, set()).add(span.span_id)
        for trace in load.answered:   # sent twice at most, and then as the same span
            assert len(by_trace[trace]) == 1
