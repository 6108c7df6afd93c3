"""The JSON API: who may ask, what it answers, and that docs/trace-api.md tells the truth."""
import http.client
import json
import re
import socket
import urllib.error

import jsonschema
import pytest

from agent_harness import HttpReceiver, Master, Worker, until
from harness import ROOT

TEXT = (ROOT / "docs" / "trace-api.md").read_text()
SCHEMAS = {name: json.loads(body) for name, body in
           re.findall(r"<!-- schema: (\w+) -->\s*```json\n(.*?)\n```", TEXT, re.S)}


def check(name, answer):
    jsonschema.Draft202012Validator(SCHEMAS[name]).validate(answer)


@pytest.fixture(scope="module")
def served():
    with HttpReceiver() as collector, Master(otlp_endpoint=collector.endpoint) as master:
        own = master.add(Worker(1, slot=-1))
        worker = master.add(Worker(2))
        dead = master.add(Worker(3, slot=1))
        own.put(2)
        worker.spans(30)
        worker.open(2)
        dead.open(1)
        dead.kill()
        master.say_gone(dead, stack="in hang")
        until(lambda: master.retired(dead), dead.sum)
        until(lambda: worker.sum()["acked"] == 30, worker.sum)
        until(lambda: own.sum()["acked"] == 2, own.sum)
        yield master


def ask(master, path, headers, method="GET", host=None):
    address, _ = master.address()
    connection = http.client.HTTPConnection(*address.rsplit(":", 1), timeout=10)
    connection.request(method, path, headers={"Host": host or address, **headers})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, body


def test_status_fits_its_schema_and_balances(served):
    status = served.get("status")
    check("status", status)
    assert status["totals"]["balances"] is True
    assert status["totals"]["started"] == 35 and status["totals"]["open"] == 2
    worker = next(one for one in status["workers"] if one["slot"] == 0)
    assert worker["in_flight"] == 2 and worker["requests"] == 32
    assert len(status["rings"]) == 3


def test_traces_are_newest_first_and_fit_their_schema(served):
    answer = served.get("traces?limit=7")
    check("traces", answer)
    assert len(answer["traces"]) == 7
    errors = served.get("traces?limit=100&error=1")["traces"]
    assert errors and all(one["error"] for one in errors)
    assert served.get("traces?name=ctserve.fork")["traces"][0]["status"] is None


def test_one_trace_has_its_spans_with_everything_that_was_sent(served):
    for summary in served.get("traces?limit=100")["traces"]:
        trace = served.get("traces/" + summary["trace_id"])
        check("trace", trace)
        assert len(trace["spans"]) == summary["spans"]
    lost = [span for summary in served.get("traces?limit=100&error=1")["traces"]
            for span in served.get("traces/" + summary["trace_id"])["spans"]
            if span["attributes"].get("error.type") == "worker_lost"]
    assert len(lost) == 1 and lost[0]["worker"] == {"slot": 1, "generation": 1}
    assert lost[0]["events"][0]["attributes"]["exception.stacktrace"] == "in hang"


def test_live_shows_what_runs_now(served):
    answer = served.get("live")
    check("live", answer)
    assert len(answer["requests"]) == 2
    assert {one["phase"] for one in answer["requests"]} == {"app"}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"},
                                     {"Authorization": "Bearer secretx"},
                                     {"Authorization": "Basic secret"}])
def test_without_the_token_there_is_401(served, headers):
    status, body = ask(served, "/api/v1/status", headers)
    assert status == 401
    check("error", json.loads(body))


def test_the_token_may_stand_in_the_query(served):
    assert ask(served, "/api/v1/status?t=secret", {})[0] == 200
    assert ask(served, "/api/v1/status?t=secre", {})[0] == 401


def test_a_name_that_only_points_here_is_refused(served):
    for host in ("evil.example", "127.0.0.1.evil.example", "localhostx"):
        assert ask(served, "/api/v1/status?t=secret", {}, host=host)[0] == 403
    assert ask(served, "/api/v1/status?t=secret", {}, host="localhost:1")[0] == 200


def test_only_get_and_only_what_exists(served):
    assert ask(served, "/api/v1/status?t=secret", {}, method="POST")[0] == 405
    assert ask(served, "/api/v2?t=secret", {})[0] == 404
    assert ask(served, "/api/v1/traces/xyz?t=secret", {})[0] == 400
    assert ask(served, "/api/v1/traces/" + "0" * 31 + "1?t=secret", {})[0] == 404


def test_bytes_that_are_no_request_get_one_answer(served):
    host, port = served.address()[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as client:
        client.sendall(b"\x16\x03\x01 hello\r\n\r\n")
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1") == 1


def test_off_means_off():
    with Master(api="off") as master:
        body = until(lambda: master.heard(65), "READY")[0]
        assert body == b"api=off\n"


def test_anything_but_loopback_is_refused():
    with Master(api="0.0.0.0:0") as master:
        assert until(lambda: master.heard(65), "READY")[0] == b"api=off\n"
        assert any("loopback" in note for note in master.notes())


def test_a_token_is_made_when_none_is_given():
    with Master(token="") as master:
        address, token = master.address()
        assert re.fullmatch("[0-9a-f]{32}", token)
        assert master.get("status", token=token)


def test_a_second_server_takes_another_port_and_moves_when_the_first_is_gone():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        wanted = f"127.0.0.1:{probe.getsockname()[1]}"
    with Master(api=wanted) as first:
        assert first.address()[0] == wanted
        with Master(api=wanted) as second:
            assert second.address()[0] != wanted
            assert second.get("status")
            assert first.stop() == 0
            until(lambda: second.address()[0] == wanted, second.address)
            assert second.get("status")["agent"]["pid"] == second.pid


def test_the_port_of_a_refused_caller_is_still_served(served):
    with pytest.raises(urllib.error.HTTPError):
        served.get("status", token="wrong")
    assert served.get("status")
