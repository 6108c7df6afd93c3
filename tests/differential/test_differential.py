"""What we accept means the same to Node's parser, to h11 and to gunicorn's; see compare.py."""
import os
import pathlib
import subprocess
import sys
import time

import pytest

sys.path.insert(0, os.path.dirname(__file__))
peers = pytest.importorskip("peers")
import compare  # noqa: E402
import generate  # noqa: E402
import rules  # noqa: E402

pytestmark = pytest.mark.skipif(not peers.TOOL.exists(), reason=f"no batch tool: {peers.TOOL}")

MUTANTS_NIGHTLY = 10_000_000
SHORT_S, LONG_S = 6, 20
COMPARE = pathlib.Path(compare.__file__)


def check(comparison):
    comparison.close()
    print(comparison.report())
    assert comparison.accepted > 0 and comparison.compared > 0
    assert not comparison.findings, comparison.report()


def need(peer):
    if peer == "node" and peers.why_no_node() is not None:
        pytest.skip(peers.why_no_node())


def test_all_three_peers_take_part():
    need("node")
    with_peers = peers.all_peers()
    for peer in with_peers:
        peer.close()
    assert [peer.name for peer in with_peers] == ["node", "gunicorn", "h11"]


@pytest.mark.parametrize("policy", ["strict", "gunicorn"])
def test_what_we_accept_of_the_corpora_means_the_same_to_others(policy):
    comparison = compare.Comparison(policy)
    comparison.run_corpus()
    check(comparison)


@pytest.mark.parametrize("policy", ["strict", "gunicorn"])
def test_the_same_connections_are_made_and_mean_the_same_to_others(policy):
    comparison = compare.Comparison(policy)
    comparison.run(seed=1, seconds=SHORT_S)
    check(comparison)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["strict", "gunicorn"])
def test_new_connections_mean_the_same_to_others(policy):
    comparison = compare.Comparison(policy)
    comparison.run(seed=time.time_ns() // 10 ** 9, seconds=LONG_S)
    check(comparison)


@pytest.mark.nightly
@pytest.mark.skipif("CTSERVE_SANITIZED" in os.environ, reason="too slow under a sanitizer")
def test_ten_million_mutants_mean_the_same_to_others():
    jobs = os.cpu_count()
    share = -(-MUTANTS_NIGHTLY // jobs // compare.BATCH) * compare.BATCH
    seed = str(time.time_ns() // 10 ** 9)
    children = [subprocess.Popen([sys.executable, "-B", COMPARE, "--mutants", "--seed", seed,
                                  "--first", str(job * share), "--count", str(share)],
                                 stdout=subprocess.PIPE, text=True) for job in range(jobs)]
    reports = [child.communicate()[0] for child in children]
    print("\n".join(reports))
    assert [child.returncode for child in children] == [0] * jobs, "\n".join(reports)


@pytest.mark.parametrize("rule", rules.RULES, ids=[f"{rule.peer}, {rule.name}"
                                                   for rule in rules.RULES])
def test_a_rule_is_needed_for_its_example(rule):
    need(rule.peer)
    ours = peers.Ours(rule.policy)
    understood, = ours.understand([rule.example])
    ours.close()
    assert understood.end == len(rule.example), "we refuse it: the rule is not needed"
    difference = None
    for peer in peers.all_peers():
        if peer.name == rule.peer:
            got, = peer.understand([rule.example])
            difference = compare.difference_of(peer.name, rule.example, understood, got)
        peer.close()
    assert difference is not None, "they agree: the rule is not needed"
    assert rules.first_rule(difference) is rule


class Deaf:
    """A peer that understands one thing wrongly."""

    name = "deaf"

    def __init__(self, wrong):
        self.wrong, self.ours = wrong, peers.Ours()

    def understand(self, inputs):
        return map(self.wrong, self.ours.understand(inputs))

    def close(self):
        self.ours.close()


@pytest.mark.parametrize("wrong, what", [
    (lambda u: u._replace(requests=u.requests[:-1]), "missing"),
    (lambda u: u._replace(requests=u.requests * 2), "more"),
    (lambda u: u._replace(stopped="late"), "rest"),
    (lambda u: u._replace(requests=[r._replace(method="PUT") for r in u.requests]), "method"),
    (lambda u: u._replace(requests=[r._replace(target="/c") for r in u.requests]), "target"),
    (lambda u: u._replace(requests=[r._replace(minor=0) for r in u.requests]), "minor"),
    (lambda u: u._replace(requests=[r._replace(headers=[]) for r in u.requests]), "headers"),
    (lambda u: u._replace(requests=[r._replace(body="x") for r in u.requests]), "body"),
], ids=lambda one: one if isinstance(one, str) else "")
def test_a_peer_that_differs_is_found(wrong, what):
    comparison = compare.Comparison(with_peers=[Deaf(wrong)])
    comparison.add(["1:0"], [rules.NEXT])
    comparison.close()
    assert [f"what='{what}'" in finding[2] for finding in comparison.findings] == [True, True]
    assert "--replay 1:0" in comparison.report()


def test_an_input_can_be_made_again_from_its_line():
    first = 3 * generate.BLOCK
    usual, mutants = (generate.inputs(7, first, generate.BLOCK, how) for how in (False, True))
    assert compare.input_named(f"7:{first + 5}") == usual[5]
    assert compare.input_named(f"m7:{first + 5}") == mutants[5] != usual[5]
    assert compare.input_named("corpus:3") == generate.CORPUS[3]


def test_our_parser_reads_twenty_thousand_inputs_a_second():
    made = generate.inputs(8, 0, 16 * generate.BLOCK)
    ours = peers.Ours()
    list(ours.understand(made))
    ours.close()
    before = os.times()
    ours = peers.Ours()
    for _ in range(4):
        list(ours.understand(made))
    ours.close()
    after = os.times()
    spent = after.children_user + after.children_system - \
        before.children_user - before.children_system
    limit = 5_000 if "CTSERVE_SANITIZED" in os.environ else 20_000
    assert 4 * len(made) / max(spent, 0.001) >= limit
