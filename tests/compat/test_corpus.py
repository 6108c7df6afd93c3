"""gunicorn's request corpus over TCP.

With `http_policy = gunicorn` every case but a short body gets what gunicorn's WSGI workers give;
with `strict` the same but for the written list in tests/wire/differences.py. Both requests of a pair are answered,
on sync with --keep-alive given by hand.
"""
import json
import os
import pathlib
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
import corpus  # noqa: E402
import differences  # noqa: E402
from server import Server, answers, command, exchange  # noqa: E402

try:
    CASES, WHY = corpus.load(), ""
except corpus.NoCorpus as error:
    CASES, WHY = [], str(error)

pytestmark = pytest.mark.skipif(not os.path.exists(command()), reason=f"no server: {command()}")
KINDS = {"sync": ("--worker-class", "sync", "--keep-alive", "2"),
         "gthread": ("--worker-class", "gthread", "--threads", "4")}


@pytest.fixture(scope="module", params=[(kind, policy) for kind in KINDS
                                        for policy in ("gunicorn", "strict")],
                ids=lambda pair: "-".join(pair))
def running(request):
    kind, policy = request.param
    with Server(*KINDS[kind], "--http-policy", policy) as server:
        server.policy = policy
        yield server


def test_the_corpus_has_119_cases():
    if WHY:
        pytest.skip(WHY)
    assert len(CASES) == 119


def environ_name(name):
    key = name.upper().replace("-", "_")
    return key if name.upper() in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_" + key


def check_echo(echo, wanted, policy):
    assert echo["method"] == wanted["method"]
    assert echo["raw"] == wanted["uri"]["raw"]
    assert echo["query"] == wanted["uri"]["query"]
    assert echo["body"] == wanted["body"]
    assert echo["protocol"] == "HTTP/%d.%d" % tuple(wanted["version"])
    if not wanted["uri"]["raw"].startswith(("http://", "https://")) or policy == "gunicorn":
        assert echo["path"] == (wanted["uri"]["path"] or "/")
    expected = {}
    for name, value in wanted["headers"]:
        name = environ_name(name)
        expected[name] = expected[name] + "," + value if name in expected else value
    got = dict(echo["headers"])
    if wanted["uri"]["raw"].startswith(("http://", "https://")):
        expected.pop("HTTP_HOST", None)    # the authority of the target may stand there
        got.pop("HTTP_HOST", None)
    assert got == expected


@pytest.mark.parametrize("case, raw", CASES, ids=[case["name"] for case, _ in CASES])
def test_case(running, case, raw):
    data = exchange(running.address, raw, half_close=True)
    listed = dict(differences.ALWAYS)
    if running.policy == "strict":
        listed.update(differences.STRICT)
    if case["name"] in listed:
        _, wanted = listed[case["name"]]
        assert [status for status, _, _ in answers(data)] == wanted
    elif case["valid"]:
        got = answers(data)
        assert [status for status, _, _ in got] == [200] * len(case["requests"])
        for (_, _, body), wanted in zip(got, case["requests"]):
            check_echo(json.loads(body), wanted, running.policy)
    elif case["status"] == "closed":
        assert data == b""
    else:
        got = answers(data)
        assert [status for status, _, _ in got][:1] == [case["status"]]
        assert len(got) == 1, "something was answered behind a refusal"
        assert got[0][1].get("connection") == "close"


def test_every_difference_is_a_case_of_the_corpus():
    if WHY:
        pytest.skip(WHY)
    names = {case["name"] for case, _ in CASES}
    listed = {**differences.STRICT, **differences.ALWAYS}
    assert set(listed) <= names
    assert {rule for rule, _ in listed.values()} <= set(differences.RULES)
