"""The rows of the bench, in the order of the page. `ROWS` is what `bench/run` knows.

A row is a function of (section, options) that fills its section; its first line of
documentation is what `bench/run --list` says, its goal stands behind it.
"""
import json
import signal
import statistics
import subprocess
import sys
import time

import loads
import measures
import places
import servers
from loads import Load, Upload, WrongAnswer, get
from servers import DidNotStart, Server, bjoern, ctserve, fastwsgi, granian, gunicorn, nginx, uwsgi, waitress

ROWS = {}


class Skip(Exception):
    """The row cannot be run here, for this reason."""


class Row:
    def __init__(self, name, doc, goal, function):
        self.name, self.doc, self.goal, self.function = name, doc, goal, function

    def full_doc(self):
        return self.doc + (f" Goal: {self.goal}." if self.goal else "")

    def run(self, section, options):
        self.function(section, options)


def row(name, goal=""):
    def register(function):
        ROWS[name] = Row(name, " ".join(function.__doc__.split()), goal, function)
        return function
    return register


# -- the usual row: one load, several servers --------------------------------------------------------
class Line:
    """What was measured of one contender; None where it was not."""

    def __init__(self, contender):
        self.contender = contender
        self.times = self.thousand = self.unsteady = self.calls = None
        self.notes = []

    @property
    def cpu(self):
        return statistics.median(self.times.whole) if self.times else None

    def cpu_ratios(self, other):
        """CPU of this one divided by that of the other, by rounds; empty where one has none."""
        return self.times.ratios(other.times) if self.times and other.times else []


def compare(section, options, contenders, app, load):
    """Measure all contenders under one load and write the table; returns {name: Line}."""
    lines = {}
    for contender in contenders:
        why = contender.missing()
        if why:
            section.line(f"{contender.name} is left out: {why}.")
        else:
            lines[contender] = Line(contender)
    if "cpu" in options.measures:
        times = measures.cpu_times(list(lines), app, load, options.rounds, options.seconds)
        for contender in [one for one in lines if one not in times]:
            section.line(f"{contender.name} is left out: it did not answer rightly.")
            del lines[contender]
        for contender, found in times.items():
            lines[contender].times = found
    counted = {contender: is_counted(contender, section.name, options) for contender in lines}
    for contender, line in lines.items():
        measure_counts(line, app, load, options, counted[contender])
    if not all(counted.values()):
        section.line("Instructions of peers are counted in rows whose goal is about them (`--count-peers`: in all).")
    write_comparison(section, list(lines.values()))
    return {contender.name: line for contender, line in lines.items()}


#: Rows that compare instructions with those of peers, and with which.
COUNTED_PEERS = {"hello": None, "browser": ("fastwsgi", "bjoern"), "flask": ("fastwsgi", "bjoern"),
                 "django": ("fastwsgi", "bjoern")}


def is_counted(contender, row_name, options):
    """Are its instructions worth the minute under valgrind?"""
    if contender.role == "ours" or options.count_peers or "instructions" not in options.measures:
        return True
    return row_name in COUNTED_PEERS and (COUNTED_PEERS[row_name] is None or
                                          contender.name in COUNTED_PEERS[row_name])


def measure_counts(line, app, load, options, counted):
    if "instructions" in options.measures and counted:
        try:
            # A peer whose threads meet differently each time is not worth three tries.
            tries = measures.TRIES if line.contender.role == "ours" else 1
            line.thousand = measures.instructions(line.contender, app, load, tries) / 1000
        except measures.Unsteady as error:
            line.unsteady = f"unsteady, {error.low / 1000:.1f} to {error.high / 1000:.1f}"
        except measures.Failed as error:
            line.notes.append(f"no instruction count: {error}")
    if "calls" in options.measures:
        try:
            line.calls = measures.system_calls(line.contender, app, load)
        except (measures.Failed, DidNotStart, WrongAnswer) as error:
            line.notes.append(f"system calls: {measures.last_line(error)}")


def write_comparison(section, lines):
    ours = next((line for line in lines if line.contender.role == "ours"), None)
    cells = []
    for line in lines:
        times = line.times
        cells.append([
            line.contender.name, figure(line.cpu),
            f"{min(times.whole):.2f} to {max(times.whole):.2f}" if times else "",
            figure(statistics.median(times.agent)) if times and any(times.agent) else "",
            line.unsteady or figure(line.thousand), figure(line.calls and line.calls[0]),
            ratio_and_spread(ours.cpu_ratios(line)) if ours and line is not ours else ""])
    section.table(["server", "CPU µs", "spread", "of it agent", "thousand instructions",
                   "system calls", "ctserve : it"], cells)
    if ours:
        write_best(section, ours, lines)
    for line in lines:
        if line.contender.role == "ours" and line.calls:
            names = ", ".join(f"{name} {count:.2f}" for name, count in line.calls[2].items())
            agent = f"; the agent {line.calls[1]:.2f}" if line.calls[1] else ""
            section.line(f"* system calls of {line.contender.name}: {names}{agent}")
        for note in line.notes:
            section.line(f"* {line.contender.name}: {note}")


def write_best(section, ours, lines):
    """The ratio to the best peer, by each measure that both have."""
    peers = [line for line in lines if line.contender.role == "peer"]
    by_cpu = {line: statistics.median(found) for line in peers if (found := ours.cpu_ratios(line))}
    if by_cpu:
        best = max(by_cpu, key=by_cpu.get)
        section.line(f"* CPU: {by_cpu[best]:.3f} of the best peer ({best.contender.name})")
    for what, value in (("instructions", lambda line: line.thousand),
                        ("system calls", lambda line: line.calls and line.calls[0])):
        able = [line for line in peers if value(line)]
        if able and value(ours):
            best = min(able, key=value)
            section.line(f"* {what}: {ratio(value(ours), value(best))} of the best peer "
                         f"({best.contender.name})")


def figure(value):
    return "" if value is None else f"{value:.2f}"


def ratio(ours, theirs):
    return f"{ours / theirs:.3f}" if ours and theirs else ""


def ratio_and_spread(ratios):
    return f"{statistics.median(ratios):.3f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""


def usual_peers():
    return [fastwsgi(), bjoern(), granian(), gunicorn()]


# -- small requests ----------------------------------------------------------------------------------
HELLO = Load(get())
ROUTES = "hello:routes"


@row("hello", "at most 0.90 of the best peer's CPU and 7 thousand instructions; 2.1 system calls")
def hello(section, options):
    """13 bytes over 64 kept connections, one worker, every peer."""
    compare(section, options, [ctserve(options), *usual_peers(), uwsgi(), waitress(),
                               nginx()], "hello:app", HELLO)


@row("browser", "at most 0.85 of the best peer's CPU and 17 thousand instructions")
def browser(section, options):
    """The same with the 12 headers that a browser sends."""
    compare(section, options, [ctserve(options), *usual_peers(), uwsgi(), waitress(), nginx()],
            "hello:app", Load(loads.BROWSER))


def reply_row(section, options, path, body, batch):
    compare(section, options, [ctserve(options), *usual_peers(), nginx()], ROUTES,
            Load(get(path), body=body, batch=batch))


@row("json")
def json_row(section, options):
    """A JSON reply of 1 kB."""
    import hello as app
    reply_row(section, options, "/json", app.JSON_1K, 800)


@row("10k", "at most the best peer's CPU")
def reply_10k(section, options):
    """A reply of 10 kB."""
    reply_row(section, options, "/10k", 10 * 1024, 800)


@row("100k", "at most the best peer's CPU")
def reply_100k(section, options):
    """A reply of 100 kB."""
    reply_row(section, options, "/100k", 100 * 1024, 400)


# -- bodies ----------------------------------------------------------------------------------------
@row("post10k", "at most the best peer's CPU")
def post_10k(section, options):
    """A request body of 10 kB that the application reads."""
    load = Load(loads.post("/count", 10_240), body=b"10240")
    compare(section, options, [ctserve(options), *usual_peers(), uwsgi(), waitress()], ROUTES, load)


@row("post1m", "at most the best peer's CPU")
def post_1m(section, options):
    """A request body of 1 MB over 8 connections."""
    load = Load(loads.post("/count", 1 << 20), body=b"1048576", connections=8, batch=40)
    compare(section, options, [ctserve(options), *usual_peers()], ROUTES, load)


@row("post100m")
def post_100m(section, options):
    """A request body of 100 MB that one client streams and the application counts."""
    compare(section, options, [ctserve(options), *usual_peers()], ROUTES, Upload("/count", 100))


@row("chunked")
def chunked(section, options):
    """A request body of 64 kB in 16 chunks."""
    load = Load(loads.chunked("/count", 16, 4096), body=b"65536", connections=16, batch=400)
    compare(section, options, [ctserve(options), *usual_peers(), waitress()], ROUTES, load)


@row("file10m")
def file_10m(section, options):
    """A file of 10 MB through wsgi.file_wrapper, 4 connections; nginx sends the same file."""
    load = Load(get("/file"), body=servers.FILE_BYTES, connections=4, batch=8)
    compare(section, options, [ctserve(options), *usual_peers(), nginx()], ROUTES, load)


# -- connections -----------------------------------------------------------------------------------
@row("newconn", "at most nginx")
def newconn(section, options):
    """A new connection for each request."""
    load = Load(get("/", b"Connection: close"), is_new=True)
    compare(section, options, [ctserve(options), *usual_peers(), gunicorn("sync"), uwsgi(), nginx()],
            "hello:app", load)


@row("pipelined16", "all answered in order, at most 0.25 of nginx's CPU")
def pipelined(section, options):
    """16 requests at once on each of 64 kept connections; figures are per request."""
    compare(section, options, [ctserve(options), *usual_peers(), waitress(), nginx()], "hello:app",
            Load(get(), deep=16, batch=3200))


@row("c1")
def one_client(section, options):
    """One kept connection: every request wakes an idle server."""
    compare(section, options, [ctserve(options), *usual_peers(), nginx()], "hello:app",
            Load(get(), connections=1))


# -- frameworks ------------------------------------------------------------------------------------
def framework(section, options, package, app):
    if package not in places.installed():
        raise Skip(f"{package} is not installed")
    contenders = [ctserve(options), ctserve(options, "--threads", "4", name="ctserve, 4 threads"), *usual_peers()]
    for peer in contenders:
        if peer.role == "peer" and not peer.missing() and not calls_close(peer):
            peer.role = "shown"
            section.line(f"{peer.name} does not call close() of what the application returned, which PEP 3333 asks "
                         "for and where a framework ends its request: shown, but no best peer.")
    compare(section, options, contenders, app, Load(get(), batch=400))


def calls_close(contender):
    """Does this server call close() of a reply? Asked of the server, not of a list; WrongAnswer when
    it says neither."""
    with Server(contender, "hello:closing") as server:
        Load(get()).check(server.port)
        try:
            Load(get("/closed"), body=b"no").check(server.port)
            return False
        except WrongAnswer:
            Load(get("/closed"), body=b"yes").check(server.port)
            return True


@row("flask", "at most the best C peer; at most 0.30 of gunicorn gthread's CPU")
def flask(section, options):
    """Flask says hello."""
    framework(section, options, "flask", "flask_hello:app")


@row("django", "at most the best C peer; at most 0.50 of gunicorn gthread's CPU")
def django(section, options):
    """Django says hello."""
    framework(section, options, "django", "django_hello:app")


@row("pyramid")
def pyramid(section, options):
    """Pyramid says hello."""
    framework(section, options, "pyramid", "pyramid_hello:app")


# -- threads ---------------------------------------------------------------------------------------
def threaded(options):
    return [ctserve(options, "--threads", "4", name="ctserve, 4 threads"), granian(4), gunicorn(), waitress()]


@row("gthread", "at most 0.55 of granian's thread pool, at most 0.07 of gunicorn's CPU")
def gthread(section, options):
    """hello with four threads."""
    compare(section, options, threaded(options), "hello:app", HELLO)


@row("gthread-sleep", "at most 0.15 of gunicorn gthread's CPU")
def gthread_sleep(section, options):
    """hello with four threads, each request sleeping 1 ms."""
    compare(section, options, threaded(options), "hello:sleeping", HELLO)


# -- what ours costs more with ------------------------------------------------------------------------
@row("tracing", "on: at most 1.5 thousand instructions more and no system call; not sampled: 0.3")
def tracing(section, options):
    """hello with tracing off, on (every request a new trace), on with a collector that is not there,
    and on with requests whose parent is not sampled (beside off with that header)."""
    unsampled = Load(get("/", b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"))
    closed = f"http://127.0.0.1:{servers.free_port()}"
    lines = compare(section, options, [
        ctserve(options, name="off"),
        ctserve(options, "--tracing", name="on"),
        ctserve(options, "--tracing", "--trace-otlp-endpoint", closed, name="on, collector down"),
        ctserve(options, name="off, unsampled header", load=unsampled),
        ctserve(options, "--tracing", name="on, unsampled header", load=unsampled),
    ], "hello:app", HELLO)
    for name, base in (("on", "off"), ("on, collector down", "off"),
                       ("on, unsampled header", "off, unsampled header")):
        write_added(section, lines, name, base)


@row("accesslog", "at most 2 thousand instructions and 0.1 system calls more")
def access_log(section, options):
    """hello with the access log off and on, gunicorn beside it."""
    about = subprocess.run([str(options.build / "ctserve"), "--help", "accesslog"], capture_output=True,
                           text=True).stdout
    if "does nothing yet" in about:
        raise Skip("the setting accesslog does nothing yet")
    lines = compare(section, options, [
        ctserve(options, name="off"),
        ctserve(options, "--access-logfile", "access.log", name="on"),
        gunicorn(), gunicorn(flags=("--access-logfile", "access.log"), name="gunicorn gthread, on"),
    ], "hello:app", HELLO)
    write_added(section, lines, "on", "off")
    write_added(section, lines, "gunicorn gthread, on", "gunicorn gthread")


def write_added(section, lines, name, base):
    """What one configuration costs above another."""
    one, other = lines.get(name), lines.get(base)
    if not one or not other:
        return
    added = []
    if one.times and other.times:
        differences = [a - b for a, b in zip(one.times.per_round(), other.times.per_round())]
        added.append(f"{statistics.median(differences):+.2f} µs CPU")
    for what, a, b in (("thousand instructions", one.thousand, other.thousand),
                       ("system calls", one.calls and one.calls[0], other.calls and other.calls[0])):
        if a is not None and b is not None:
            added.append(f"{a - b:+.2f} {what}")
    if added:
        section.line(f"* {name}, above {base}: {', '.join(added)}")


# -- slow clients -----------------------------------------------------------------------------------
SLOW_EACH = 1000
SAMPLE_S = 4


@row("slow", "p99 at most twice the idle figure plus 5 ms, every request answered")
def slow(section, options):
    """1,000 slow heads, 1,000 slow bodies and 1,000 slow readers against one worker with one thread:
    p99 of a good client beside that of the idle server; ours the best of three, peers once."""
    cells = []
    for contender, tries in ((ctserve(options, "--workers", "1", "--threads", "1"), 3), (granian(), 1),
                             (bjoern(), 1), (fastwsgi(), 1), (gunicorn(threads=1), 1)):
        if contender.missing():
            continue
        found = []
        for _ in range(tries):
            try:
                found.append(slow_try(contender))
            except (DidNotStart, OSError, subprocess.TimeoutExpired) as error:
                places.note(f"{contender.name}: {measures.last_line(error)}")
        if not found:
            continue
        # A try in which a request failed is never the best one.
        idle, busy, failed, told = min(found, key=lambda one: (one[2], one[1] - 2 * one[0]))
        held = failed == 0 and busy <= 2 * idle + 5
        cells.append([contender.name, f"{idle:.2f}", f"{busy:.2f}", failed, "yes" if held else "no",
                      told["connected"], sum(told["turned_away"].values())])
    section.table(["server", "idle p99 ms", "p99 ms", "failed", "within", "slow clients", "turned away"], cells)


def slow_try(contender):
    with Server(contender, ROUTES, ["taskset", "-c", measures.SERVER_CORE]) as server:
        idle, _ = good_client(server.port)
        command = ["taskset", "-c", loads.CLIENT_CORE, sys.executable,
                   str(places.BENCH / "slow_clients.py"), str(server.port), str(SLOW_EACH)]
        crowd = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            crowd.stdout.readline()
            busy, failed = good_client(server.port)
            told, _ = crowd.communicate("", timeout=30)
        finally:
            crowd.kill()
            crowd.wait()
        return idle, busy, failed, json.loads(told)


def good_client(port):
    """(p99 in ms, failed requests) of a client that asks on a kept connection and every tenth time
    on a new one; a request without an answer within 2 s has failed."""
    spent, failed = [], 0
    client = reader = None
    ends_at = time.monotonic() + SAMPLE_S
    while time.monotonic() < ends_at:
        begun = time.monotonic()
        try:
            if client is None or len(spent) % 10 == 0:
                if client:
                    client.close()
                client = loads.connected(port, 2)
                reader = loads.Reader(client)
            client.sendall(get())
            reader.reply(b"Hello, World!")
        except (OSError, WrongAnswer):
            failed += 1
            client.close() if client else None
            client = None
        spent.append((time.monotonic() - begun) * 1000)
        time.sleep(0.002)
    if client:
        client.close()
    return sorted(spent)[int(len(spent) * 0.99) - 1 if len(spent) > 1 else 0], failed


# -- memory -----------------------------------------------------------------------------------------
@row("memory", "a worker at rest at most 8 MB above the same interpreter asleep, rings and agent apart")
def memory(section, options):
    """PSS after 1,000 requests, beside the same interpreter asleep."""
    asleep = subprocess.Popen([str(places.PYTHON), "-c", "import time; print(1, flush=True); time.sleep(60)"],
                              stdout=subprocess.PIPE)
    asleep.stdout.readline()
    base, _ = measures.pss_kb(asleep.pid)
    asleep.kill()
    asleep.wait()
    cells = [["interpreter asleep", f"{base / 1000:.1f}", "", "", "", ""]]
    for contender in [ctserve(options), ctserve(options, "--tracing", name="ctserve, tracing on"),
                      *usual_peers(), uwsgi(), waitress()]:
        if contender.missing():
            continue
        with Server(contender, "hello:app") as server:
            HELLO.in_turn(server.port, 1000)
            workers = [measures.pss_kb(pid) for pid in server.workers()]
            worker = sum(whole - rings for whole, rings in workers)
            rings = sum(rings for _, rings in workers)
            rest = [measures.pss_kb(pid)[0] for pid in server.serving() if pid not in server.workers()]
            agent = [measures.pss_kb(pid)[0] for pid in server.agents()]
        cells.append([contender.name, f"{worker / 1000:.1f}", f"{(worker - base) / 1000:.1f}",
                      f"{rings / 1000:.2f}" if rings else "", f"{sum(rest) / 1000:.1f}" if rest else "",
                      f"{sum(agent) / 1000:.1f}" if agent else ""])
    section.table(["server", "worker MB", "above the interpreter", "its rings", "master", "agent"], cells)


def idle_row(section, options, count):
    cells = []
    for contender in [ctserve(options), ctserve(options, "--tracing", name="ctserve, tracing on"),
                      ctserve(options, "--threads", "4", name="ctserve, 4 threads"), fastwsgi(), bjoern(),
                      granian(connections=20_000), gunicorn(), nginx()]:
        if contender.missing():
            continue
        try:
            with Server(contender, "hello:app") as server:
                HELLO.in_turn(server.port, 500)
                before = own_kb(server)
                after = with_idle_connections(server, count)
            cells.append([contender.name, f"{(after - before) / count:.2f}", f"{(after - before) / 1000:.1f}"])
        except (OSError, WrongAnswer, DidNotStart) as error:
            cells.append([contender.name, "", measures.last_line(error)])
    section.table(["server", "kB per connection", "MB in all"], cells)


def own_kb(server):
    """PSS of the workers, rings apart."""
    return sum(whole - rings for whole, rings in map(measures.pss_kb, server.workers()))


def with_idle_connections(server, count):
    """Memory of the workers in kB while `count` connections wait that each had one answer."""
    clients = []
    try:
        for number in range(count):
            try:
                client = loads.connected(server.port, 10)
                clients.append(client)
                client.sendall(get())
                loads.Reader(client).reply(b"Hello, World!")
            except (OSError, WrongAnswer) as error:
                raise WrongAnswer(f"number {number + 1} was not served: {error}") from None
        after = own_kb(server)
        clients[0].sendall(get())       # the first one must still be kept
        loads.Reader(clients[0]).reply(b"Hello, World!")
        return after
    finally:
        for client in clients:
            client.close()


@row("idle1000", "at most 0.6 kB each")
def idle_1000(section, options):
    """Memory of 1,000 idle kept connections."""
    idle_row(section, options, 1000)


@row("idle10000", "at most 0.6 kB each")
def idle_10000(section, options):
    """Memory of 10,000 idle kept connections."""
    idle_row(section, options, 10_000)


# -- starting -----------------------------------------------------------------------------------------
@row("start")
def start(section, options):
    """Time from exec to the first answer, and from SIGHUP to the first answer of a new worker and to
    the end of the last old one, with requests that failed meanwhile. One worker, nothing else running."""
    cells = []
    for contender, reloads in ((ctserve(options), True), (ctserve(options, "--tracing", name="ctserve, tracing on"), True),
                               (gunicorn(), True), (granian(), True), (fastwsgi(), False), (bjoern(), False),
                               (uwsgi(), False), (waitress(), False)):
        if contender.missing():
            continue
        starts, news, olds, failed = [], [], [], 0
        try:
            for _ in range(options.rounds):
                with Server(contender, ROUTES) as server:
                    starts.append(server.ready_after_s * 1000)
                    if reloads:
                        new, old, lost = reload_once(server)
                        news.append(new)
                        olds.append(old)
                        failed += lost
        except (OSError, WrongAnswer, DidNotStart) as error:
            places.note(f"{contender.name}: {measures.last_line(error)}")
        if starts:
            cells.append([contender.name, spread(starts), spread(news), spread(olds), failed if news else ""])
    section.table(["server", "start ms", "reload: new answers ms", "old gone ms", "failed"], cells)


def spread(values):
    return f"{statistics.median(values):.0f} ({min(values):.0f} to {max(values):.0f})" if values else ""


def reload_once(server):
    """(ms to the first answer of a new worker, ms to the end of the last old one, failed requests)."""
    old = {(pid, servers.birth_of(pid)) for pid in server.workers()}
    old_pids = {str(pid).encode() for pid, _ in old}
    begun = time.monotonic()
    server.process.send_signal(signal.SIGHUP)
    first = gone = None
    failed = 0
    while first is None or gone is None:
        if time.monotonic() > begun + 60:
            raise WrongAnswer("the reload did not end within 60 s")
        if first is None:
            try:
                if asked_pid(server.port) not in old_pids:
                    first = (time.monotonic() - begun) * 1000
            except (OSError, WrongAnswer):
                failed += 1
        if gone is None and all(servers.birth_of(pid) != birth for pid, birth in old):
            gone = (time.monotonic() - begun) * 1000
        time.sleep(0.002)
    return first, gone, failed


def asked_pid(port):
    """The pid of the worker that answers a new connection, as bytes."""
    with loads.connected(port, 5) as client:
        client.sendall(get("/pid", b"Connection: close"))
        data = b""
        while True:
            piece = client.recv(4096)
            if not piece:
                break
            data += piece
    if not data.startswith(b"HTTP/1.1 200"):
        raise WrongAnswer("no pid")
    return data.partition(b"\r\n\r\n")[2].strip()
