"""What we accept must mean the same to others.

    compare.py [--seed N] [--count N | --seconds N] [--first N] [--policy strict] [--mutants]
    compare.py [--policy P] --replay LABEL:INDEX     show one input and what everybody makes of it
    compare.py [--policy P] --bytes 'GET / ...'      the same for bytes with Python's escapes

Every input goes to our parser, whole and one byte at a time. The part that we accepted goes to the
peers as it came, and once more as we understood it: written again from method, target, version,
fields and body. Differences that rules.py does not explain are printed with a line to replay them.
"""
import argparse
import ast
import collections
import sys
import time

import generate
import peers
import rules

BATCH = 16 * generate.BLOCK
SHOWN_MAX = 20
#: In front of the seed in the replay line of a mutant.
MUTANT = "m"
#: Accepted connections already compared, by hash; forgotten when there are too many.
KNOWN_MAX = 1_000_000


def serialise(understood):
    """The connection written again from what we understood."""
    parts = []
    for request, chunked in zip(understood.requests, understood.chunked):
        parts.append(f"{request.method} {request.target} HTTP/1.{request.minor}\r\n")
        parts.extend(f"{name}: {value}\r\n" for name, value in request.headers)
        parts.append("\r\n")
        if not chunked:
            parts.append(request.body)
            continue
        if request.body:
            parts.append(f"{len(request.body):x}\r\n{request.body}\r\n")
        parts.append("0\r\n\r\n")
    return "".join(parts).encode("latin-1")


def find_difference(ours, theirs):
    """(what, index) of the first difference between two lists of requests, or None."""
    for at, (mine, other) in enumerate(zip(ours.requests, theirs.requests)):
        for what in mine._fields:
            if getattr(mine, what) != getattr(other, what):
                return what, at
    if len(theirs.requests) != len(ours.requests):
        missing = len(theirs.requests) < len(ours.requests)
        return "missing" if missing else "more", min(len(ours.requests), len(theirs.requests))
    if theirs.stopped not in ("", "close"):
        return "rest", len(ours.requests)
    return None


def difference_of(name, sent, ours, theirs):
    found = find_difference(ours, theirs)
    if found is None:
        return None
    what, at = found
    mine, other = (list_[at] if at < len(list_) else None
                   for list_ in (ours.requests, theirs.requests))
    before = ours.requests[at - 1] if at > 0 else None
    return rules.Difference(name, what, mine, other, theirs.stopped, before, sent)


class Comparison:
    def __init__(self, policy="strict", with_peers=None):
        self.policy = policy
        self.ours = peers.Ours(policy)
        # What http_policy = gunicorn lets pass is for gunicorn alone to agree with.
        self.peers = with_peers if with_peers is not None else \
            [peers.Gunicorn()] if policy == "gunicorn" else peers.all_peers()
        self.inputs = self.accepted = self.compared = 0
        self.explained = collections.Counter()
        self.findings = []
        self.known = set()

    def close(self):
        for peer in (self.ours, *self.peers):
            peer.close()

    def find(self, label, raw, what):
        self.findings.append((label, raw, what))

    def add(self, labels, inputs):
        """Compare one batch; labels[i] says how to get inputs[i] again."""
        fresh = []
        for label, raw, understood in zip(labels, inputs, self.ours.understand(inputs)):
            self.inputs += 1
            if not understood.split_agrees:
                self.find(label, raw, "whole and byte by byte differ")
            if understood.requests:
                self.accepted += 1
                self.collect(fresh, label, raw[:understood.end], understood)
        self.check_again(fresh)
        for peer in self.peers:
            self.check_peer(peer, fresh)

    def collect(self, fresh, label, raw, understood):
        again = serialise(understood)
        for way, sent in (("as sent", raw), ("written again", again)):
            key = hash(sent)
            if key in self.known:
                continue
            if len(self.known) >= KNOWN_MAX:
                self.known.clear()
            self.known.add(key)
            fresh.append((label, way, sent, understood))

    def check_again(self, fresh):
        """What we accepted and wrote again must mean the same to ourselves."""
        written = [one for one in fresh if one[1] == "written again"]
        for (label, _, sent, wanted), got in zip(written, self.ours.understand(
                [one[2] for one in written])):
            if got.requests != wanted.requests or got.end != len(sent):
                self.find(label, sent, f"ctserve, written again: {got}")

    def check_peer(self, peer, fresh):
        for (label, way, sent, wanted), got in zip(fresh, peer.understand(
                [one[2] for one in fresh])):
            self.compared += 1
            self.settle(peer, label, way, sent, wanted, got)

    def settle(self, peer, label, way, sent, wanted, got):
        difference = difference_of(peer.name, sent, wanted, got)
        if difference is None:
            return
        rule = rules.first_rule(difference)
        if rule is None:
            self.find(label, sent, f"{way}: {difference._replace(sent=b'')}")
        else:
            self.explained[f"{peer.name} {rule.name}"] += 1

    def run_corpus(self):
        labels = [f"corpus:{index}" for index in range(len(generate.CORPUS))]
        self.add(labels, generate.CORPUS)

    def run(self, seed, first=0, count=None, seconds=None, mutants=False):
        """`count` inputs, rounded up to batches, or as many as there is time for."""
        until = None if seconds is None else time.monotonic() + seconds
        index = first
        while (count is None or index < first + count) and \
                (until is None or time.monotonic() < until):
            name = f"{MUTANT * mutants}{seed}"
            self.add([f"{name}:{index + i}" for i in range(BATCH)],
                     generate.inputs(seed, index, BATCH, mutants))
            index += BATCH

    def report(self):
        lines = [f"{self.inputs} inputs, {self.accepted} accepted, {self.compared} comparisons, "
                 f"{len(self.findings)} unexplained"]
        lines += [f"    explained {count}: {name}" for name, count in
                  sorted(self.explained.items())]
        for label, raw, what in self.findings[:SHOWN_MAX]:
            lines += [f"FINDING {what}", f"    {raw!r}",
                      f"    replay: python3 tests/differential/compare.py --policy {self.policy} "
                      f"--replay {label}"]
        return "\n".join(lines)


def show(raw, policy):
    """What everybody makes of one input."""
    ours = peers.Ours(policy)
    understood, = ours.understand([raw])
    ours.close()
    print(f"{raw!r}\nctserve: {understood}")
    for way, sent in (("as sent", raw[:understood.end]), ("written again", serialise(understood))):
        if not sent:
            continue
        print(f"{way}: {sent!r}")
        for peer in peers.all_peers():
            got, = peer.understand([sent])
            difference = difference_of(peer.name, sent, understood, got)
            rule = difference and rules.first_rule(difference)
            print(f"  {peer.name}: {got}\n    "
                  + ("the same" if difference is None else
                     f"explained: {rule.name}" if rule else f"UNEXPLAINED {difference}"))
            peer.close()


def input_named(label):
    """The input of a replay line: corpus:INDEX, SEED:INDEX or mSEED:INDEX."""
    seed, index = label.split(":")
    if seed == "corpus":
        return generate.CORPUS[int(index)]
    return generate.input_of(int(seed.removeprefix(MUTANT)), int(index), seed.startswith(MUTANT))


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--count", type=int)
    options.add_argument("--seconds", type=float)
    options.add_argument("--policy", choices=("strict", "gunicorn"), default="strict")
    options.add_argument("--mutants", action="store_true", help="change every input, and more")
    options.add_argument("--replay")
    options.add_argument("--bytes")
    options = options.parse_args()
    if options.bytes is not None:
        return show(ast.literal_eval("b'''" + options.bytes + "'''"), options.policy)
    if options.replay is not None:
        return show(input_named(options.replay), options.policy)
    comparison = Comparison(options.policy)
    comparison.run_corpus()
    count = options.count
    if count is None and options.seconds is None:
        count = 100_000
    comparison.run(options.seed, options.first - options.first % generate.BLOCK, count,
                   options.seconds, options.mutants)
    comparison.close()
    print(comparison.report())
    return 1 if comparison.findings else 0


if __name__ == "__main__":
    sys.exit(main())
