"""Measures: what one request costs a server.

Instructions and system calls are counts: they repeat on a busy machine. CPU time does not, so
it is only compared between servers that ran in the same minutes.
"""
import pathlib
import re
import statistics
import subprocess
import tempfile

import places
from loads import WrongAnswer
from servers import AGENT, DidNotStart, Server

SERVER_CORE = "0"
WARM_REQUESTS = 640
BATCHES = 3
AGREE = 0.02      # how far the batches of one run may lie apart
TRIES = 3


class Failed(RuntimeError):
    """This measure could not be taken of this server; the message says why."""


class Unsteady(Failed):
    """The counts did not repeat: they lay between `low` and `high`."""

    def __init__(self, low, high):
        super().__init__(f"unsteady: {low:.0f} to {high:.0f}")
        self.low, self.high = low, high


# -- instructions --------------------------------------------------------------------------------
def instructions(contender, app, load, tries=TRIES):
    """User instructions per request of the processes that serve (the agent runs outside
    valgrind). Median of three batches of requests, counted by dumps while the server runs, so
    nothing depends on how it ends. Unsteady when in no try the batches agree within 2 %."""
    load = contender.load or load
    seen = []
    for _ in range(tries):
        counts = _instruction_batches(contender, app, load)
        middle = statistics.median(counts)
        if max(counts) - min(counts) <= AGREE * middle:
            return middle
        seen += counts
    raise Unsteady(min(seen), max(seen))


def _instruction_batches(contender, app, load):
    prefix = ["valgrind", "-q", "--tool=callgrind", "--trace-children=yes",
              f"--trace-children-skip=*/{AGENT}"]
    try:
        with Server(contender, app, prefix, ready_s=240, environment={"PYTHONHASHSEED": "0"}) as server:
            load.check(server.port)
            load.in_turn(server.port, min(WARM_REQUESTS, load.batch))
            _dumped(server)
            counts = []
            for _ in range(BATCHES):
                answered = load.in_turn(server.port, load.batch)
                counts.append(_dumped(server) / answered)
            return counts
    except (DidNotStart, OSError, WrongAnswer) as error:
        raise Failed("under valgrind: " + last_line(error)) from None


def _dumped(server):
    """Instructions of all serving processes since the dump before this one. Dump files keep their
    default names, callgrind.out.PID.NUMBER: a process title overwrites the area that valgrind reads
    another name from."""
    before = set(server.folder.glob("callgrind.out.*.*"))
    for pid in server.serving():
        done = subprocess.run(["vgdb", f"--pid={pid}", "--wait=10", "dump"], capture_output=True,
                              text=True, timeout=120)
        if done.returncode != 0:
            raise Failed("under valgrind: " + last_line(done.stderr))
    total = 0
    for path in set(server.folder.glob("callgrind.out.*.*")) - before:
        counted = re.search(r"^totals: (\d+)", path.read_text(), re.M)
        total += int(counted[1]) if counted else 0
    if total == 0:
        raise Failed("callgrind wrote no counts")
    return total


# -- system calls --------------------------------------------------------------------------------
def system_calls(contender, app, load, seconds=2):
    """(calls per request of the processes that serve, of the agent, {name: calls per request})
    while the load runs. futex counts are inflated by strace itself."""
    load = contender.load or load
    pinned = ["taskset", "-c", SERVER_CORE]
    with Server(contender, app, pinned) as server, tempfile.TemporaryDirectory() as folder:
        load.check(server.port)
        traced = {"serving": server.serving(), "agent": server.agents()}
        tracers = {}
        try:
            for who, pids in traced.items():
                if pids:
                    tracers[who] = _strace(pids, f"{folder}/{who}")
            answered = load.for_seconds(server.port, seconds)
        finally:
            for tracer in tracers.values():
                tracer.send_signal(2)
                tracer.wait(30)
                tracer.stderr.close()
        calls = {who: _call_table(f"{folder}/{who}") for who in tracers}
    names = {name: count / answered for name, count in calls["serving"].items()
             if count / answered >= 0.005}
    return (sum(calls["serving"].values()) / answered,
            sum(calls.get("agent", {}).values()) / answered, names)


def _strace(pids, path):
    tracer = subprocess.Popen(["strace", "-f", "-c", "-S", "calls", "-o", path,
                               *(f"-p{pid}" for pid in pids)], stderr=subprocess.PIPE, text=True)
    for _ in pids:
        line = tracer.stderr.readline()     # "strace: Process N attached"
        if "attached" not in line:
            tracer.kill()
            raise Failed("strace: " + line.strip())
    return tracer


def _call_table(path):
    calls = {}
    for line in pathlib.Path(path).read_text().splitlines():
        fields = line.split()
        if len(fields) >= 5 and fields[0].replace(".", "").isdigit() and fields[-1] != "total":
            calls[fields[-1]] = int(fields[3])
    return calls


# -- CPU time ------------------------------------------------------------------------------------
class CpuTimes:
    """µs per request of one contender, two figures of each round (the way there and the way back):
    `whole` of its process tree, `agent` the agent's part."""

    def __init__(self):
        self.whole, self.agent = [], []

    def per_round(self):
        return [(there + back) / 2 for there, back in zip(self.whole[::2], self.whole[1::2])]

    def ratios(self, other):
        """This one divided by the other, round by round: what the machine did in a minute is in
        both, and cancels."""
        return [mine / its for mine, its in zip(self.per_round(), other.per_round())]


def cpu_times(contenders, app, load, rounds, seconds):
    """{contender: CpuTimes}. In every round all contenders stand on one core, mostly asleep, and
    get the load in turn, forwards and backwards (A B B A): a slow minute hits all of them. One that
    fails is left out with a line and missing in the result."""
    times = {contender: CpuTimes() for contender in contenders}
    for _ in range(rounds):
        running = {}
        try:
            for contender in list(times):
                try:
                    running[contender] = Server(contender, app, ["taskset", "-c", SERVER_CORE])
                    (contender.load or load).check(running[contender].port)
                except (DidNotStart, WrongAnswer) as error:
                    _leave_out(contender, error, times, running)
            for contender in [*running, *reversed(running)]:
                if contender in running:
                    try:
                        _one_time(running[contender], contender.load or load, seconds, times[contender])
                    except WrongAnswer as error:
                        _leave_out(contender, error, times, running)
        finally:
            for server in running.values():
                server.stop()
    return times


def _one_time(server, load, seconds, times):
    load.in_turn(server.port, min(load.batch, 200))     # warm: caches, allocator, interpreter
    whole_before, agent_before = server.cpu_ns()
    answered = load.for_seconds(server.port, seconds)
    whole, agent = server.cpu_ns()
    times.whole.append((whole - whole_before) / 1000 / answered)
    times.agent.append((agent - agent_before) / 1000 / answered)


def _leave_out(contender, error, times, running):
    places.note(f"{contender.name} is left out: {last_line(error)}")
    times.pop(contender, None)
    if contender in running:
        running.pop(contender).stop()


# -- memory --------------------------------------------------------------------------------------
def pss_kb(pid):
    """(proportional set size of a process, the part that is our mapped rings) in kB."""
    whole = rings = 0
    is_ring = False
    for line in pathlib.Path("/proc", str(pid), "smaps").read_text().splitlines():
        if re.match(r"^[0-9a-f]+-[0-9a-f]+ ", line):
            is_ring = "memfd:ctserve" in line
        elif line.startswith("Pss:"):
            kilobytes = int(line.split()[1])
            whole += kilobytes
            rings += kilobytes if is_ring else 0
    return whole, rings


def last_line(text):
    return (str(text).strip().splitlines() or [""])[-1][:300]
