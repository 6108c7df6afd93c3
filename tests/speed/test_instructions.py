"""A request does not grow dearer unnoticed: instruction counts against bench/instructions.json.

The counts hold for one set of packages only; with others every test skips and says which differ.
`bench/run --store-instructions` stores new figures, for a change that is worth its cost.
"""
import os
import pathlib
import shutil
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "bench"), str(ROOT / "bench" / "apps")]

import gate        # noqa: E402
import measures    # noqa: E402

BUILD = pathlib.Path(os.environ.get("CTSERVE_BUILD", ROOT / "build"))


@pytest.fixture(scope="module")
def stored():
    """The stored figures, if they say anything about this machine and this build."""
    if os.environ.get("CTSERVE_SANITIZED") == "1":
        pytest.skip("counts are for the release build")
    for tool in ("valgrind", "vgdb"):
        if not shutil.which(tool):
            pytest.skip(f"there is no {tool}")
    if not pathlib.Path(gate.PYTHON).exists():
        pytest.skip(f"there is no {gate.PYTHON}")
    found = gate.stored()
    if found is None:
        pytest.skip("no counts are stored")
    here = gate.packages()
    other = [f"{name} {here.get(name)}, stored with {version}"
             for name, version in found["packages"].items() if here.get(name) != version]
    if other:
        pytest.skip("other packages: " + "; ".join(other))
    return found["instructions"]


@pytest.mark.slow
@pytest.mark.parametrize("row", list(gate.rows()))
def test_a_request_costs_no_more_instructions_than_stored(row, stored):
    assert row in stored, f"row {row} has no stored count"
    try:
        now = gate.measure(BUILD, row)
    except measures.Unsteady as error:
        pytest.fail(f"row {row}: {error}")
    complaint = gate.verdict(row, now, stored[row])
    assert complaint is None, complaint


def test_three_per_cent_more_is_allowed_and_four_are_named():
    assert gate.verdict("hello", 10_300, 10_000) is None
    assert gate.verdict("hello", 9_000, 10_000) is None
    assert "row hello" in gate.verdict("hello", 10_400, 10_000)
