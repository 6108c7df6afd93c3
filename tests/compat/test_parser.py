"""gunicorn's request corpus against the parser alone (build/tests/unit/http/parse-tool)."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
import corpus  # noqa: E402
import differences  # noqa: E402

try:
    CASES, WHY = corpus.load(), ""
except corpus.NoCorpus as error:
    CASES, WHY = [], str(error)

TOOL = os.environ.get("CTSERVE_PARSE_TOOL",
                      str(corpus.ROOT / "build" / "tests" / "unit" / "http" / "parse-tool"))
pytestmark = pytest.mark.skipif(not os.path.exists(TOOL), reason=f"no parse tool: {TOOL}")


def parse(policy, how, raw, folder):
    path = folder / "raw"
    path.write_bytes(raw)
    done = subprocess.run([TOOL, policy, how, path], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def check_request(got, wanted):
    assert got["method"] == wanted["method"]
    assert got["version"] == wanted["version"]
    assert got["body"] == wanted["body"]
    assert got["raw"] == wanted["uri"]["raw"]
    for part in ("path", "query", "fragment"):
        assert got[part] == wanted["uri"][part]
    kept = [[name.upper(), value] for name, value in got["headers"] if "_" not in name]
    assert kept == wanted["headers"]


@pytest.mark.parametrize("case, raw", CASES, ids=[case["name"] for case, _ in CASES])
@pytest.mark.parametrize("policy", ["gunicorn", "strict"])
def test_case(policy, case, raw, tmp_path):
    got = parse(policy, "whole", raw, tmp_path)
    assert got == {**parse(policy, "bytes", raw, tmp_path), "verdict_at": got["verdict_at"]}
    if case["name"] in differences.NEEDS_FIN:
        assert got["answers"] == []
    elif policy == "strict" and case["name"] in differences.STRICT:
        assert got["answers"] == differences.STRICT[case["name"]][1]
    elif case["valid"]:
        assert got["answers"] == [200] * len(case["requests"])
        for request, wanted in zip(got["requests"], case["requests"]):
            check_request(request, wanted)
    else:
        assert got["answers"] == [case["status"]]
