"""Servers: how each contender is started, and one that runs.

A contender knows its command line for (port, application). A running server is a tree of
processes; it is asked for its CPU time and ended by pid, every process of it.
"""
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time

import places
from places import APPS, PYTHON

AGENT = "ctserve-agent"
FILE_BYTES = 10 * 1024 * 1024


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Contender:
    """One server in one configuration.

    name      as it stands in the table
    command   function (port, app, folder) -> argument list
    package   what must be in the venv for it, or None
    role      "ours", "peer", "floor" (no Python in it), or "shown"; the last two are never the best peer
    load      what it gets instead of the row's load, where the request is part of what differs
    """

    def __init__(self, name, command, package=None, role="peer"):
        self.name, self.command, self.package, self.role = name, command, package, role
        self.load = None

    def missing(self):
        """Why it cannot run here, or None."""
        if self.package and self.package not in places.installed():
            return f"{self.package} is not installed"
        if self.role == "floor" and not places.nginx():
            return "nginx is not there"
        return None


def ctserve(options, *flags, name="ctserve", python=PYTHON, load=None):
    """Ours: one sync worker, no tracing unless the flags say so."""
    if not any(flag in ("--tracing", "--no-tracing") for flag in flags):
        flags += ("--no-tracing",)

    def command(port, app, folder):
        return [str(options.build / "ctserve"), "--python", str(python), "--interpreter",
                options.interpreter, app, "-b", f"127.0.0.1:{port}", "--keep-alive", "60",
                "--log-level", "warning", "--trace-api", "off", "--worker-connections", "20000",
                *flags]
    ours = Contender(name, command, role="ours")
    ours.load = load
    return ours


def gunicorn(kind="gthread", threads=4, flags=(), name=None):
    def command(port, app, folder):
        extra = ["--threads", str(threads)] if kind == "gthread" else []
        return [str(PYTHON), "-m", "gunicorn", app, "-b", f"127.0.0.1:{port}", "-k", kind, *extra,
                "--keep-alive", "60", "--worker-connections", "20000", "--log-level", "warning",
                "--no-control-socket", *flags]
    return Contender(name or f"gunicorn {kind}", command, "gunicorn")


def granian(threads=1, connections=None):
    """connections: how many it keeps at once, where its own 1,024 are too few."""
    def command(port, app, folder):
        extra = ["--backpressure", str(connections)] if connections else []
        return [str(PYTHON), "-m", "granian", "--interface", "wsgi", "--host", "127.0.0.1", "--port",
                str(port), "--workers", "1", "--blocking-threads", str(threads), "--no-ws",
                "--log-level", "warning", *extra, app]
    return Contender("granian" if threads == 1 else f"granian, {threads} threads", command, "granian")


def fastwsgi():
    def command(port, app, folder):
        module, _, attribute = app.partition(":")
        return [str(PYTHON), "-c", f"import fastwsgi, {module}; fastwsgi.server.backlog = 4096; "
                f"fastwsgi.run(wsgi_app={module}.{attribute}, host='127.0.0.1', port={port})"]
    return Contender("fastwsgi", command, "fastwsgi")


def bjoern():
    def command(port, app, folder):
        module, _, attribute = app.partition(":")
        return [str(PYTHON), "-c",
                f"import bjoern, {module}; bjoern.run({module}.{attribute}, '127.0.0.1', {port})"]
    return Contender("bjoern", command, "bjoern")


def uwsgi():
    """Its own HTTP socket, without the router; a kept connection holds a thread, so 64 of them."""
    def command(port, app, folder):
        module, _, attribute = app.partition(":")
        return [str(PYTHON.parent / "uwsgi"), "--http11-socket", f"127.0.0.1:{port}", "--master",
                "--processes", "1", "--threads", "64", "--listen", "1024", "--die-on-term",
                "--disable-logging", "--pythonpath", str(APPS), "--virtualenv", str(places.VENV),
                "--need-app", "--module", module, "--callable", attribute]
    return Contender("uWSGI, 64 threads", command, "uwsgi")


def waitress():
    def command(port, app, folder):
        return [str(PYTHON), "-m", "waitress", "--listen", f"127.0.0.1:{port}", "--threads", "4",
                "--connection-limit", "20000", app]
    return Contender("waitress, 4 threads", command, "waitress")


def nginx():
    """The floor: replies from memory and from files, no Python. The files lie in its folder."""
    def command(port, app, folder):
        import hello
        for name, body in (*hello.PLAIN.items(), ("/json", hello.JSON_1K)):
            pathlib.Path(folder, name[1:]).write_bytes(body)
        os.symlink(shared_file(), pathlib.Path(folder, "file"))
        pathlib.Path(folder, "nginx.conf").write_text(f"""
            daemon off; worker_processes 1; pid {folder}/pid; error_log stderr error; user root;
            worker_rlimit_nofile 20000;
            events {{ worker_connections 19000; }}
            http {{
                access_log off; keepalive_timeout 60; keepalive_requests 1000000000; sendfile on;
                tcp_nopush on; default_type text/plain; root {folder};
                client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
                fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
                server {{
                    listen 127.0.0.1:{port} backlog=4096;
                    location / {{ return 200 "Hello, World!"; }}
                    location = /json {{ }} location = /10k {{ }} location = /100k {{ }}
                    location = /file {{ }}
                }}
            }}""")
        return [places.nginx(), "-e", "stderr", "-p", str(folder), "-c", f"{folder}/nginx.conf"]
    return Contender("nginx, static", command, role="floor")


_shared_folder = tempfile.TemporaryDirectory(prefix="bench-file-")


def shared_file():
    """The 10 MB that /file sends; made once."""
    path = pathlib.Path(_shared_folder.name, "file10m")
    if not path.exists():
        path.write_bytes(os.urandom(1024) * (FILE_BYTES // 1024))
    return str(path)


class DidNotStart(RuntimeError):
    pass


class Server:
    """One contender running on a port of its own, with its children; ended by pid.

    prefix: words in front of its command (taskset, valgrind). cwd is a folder of its own, which
    is gone afterwards. Ready when it answered one request with 200.
    """

    def __init__(self, contender, app, prefix=(), ready_s=60, environment=None):
        self.contender = contender
        self.port = free_port()
        self.log = tempfile.TemporaryFile()
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self.folder = pathlib.Path(self._folder.name)
        environment = {**os.environ, "PYTHONPATH": str(APPS), "BENCH_FILE": shared_file(),
                       **(environment or {})}
        for name in ("GUNICORN_CMD_ARGS", "CTSERVE_CMD_ARGS", "WEB_CONCURRENCY", "PORT"):
            environment.pop(name, None)
        self.started_at = time.monotonic()
        self.process = subprocess.Popen([*prefix, *contender.command(self.port, app, self.folder)],
                                        cwd=self.folder, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=self.log, env=environment)
        try:
            self._wait_until_ready(ready_s)
        except BaseException:
            self.stop()
            raise
        self.ready_after_s = time.monotonic() - self.started_at

    def _wait_until_ready(self, ready_s):
        while not self._answers():
            if self.process.poll() is not None:
                raise DidNotStart("did not start: " + self.said()[-600:])
            if time.monotonic() > self.started_at + ready_s:
                raise DidNotStart(f"not ready within {ready_s} s: " + self.said()[-600:])
            time.sleep(0.002)

    def _answers(self):
        with contextlib.suppress(OSError):
            with socket.create_connection(("127.0.0.1", self.port), 5) as client:
                client.settimeout(30)
                client.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                return client.recv(100).startswith(b"HTTP/1.1 200")
        return False

    def said(self):
        """What it wrote so far."""
        self.log.seek(0)
        return self.log.read().decode(errors="replace").strip()

    # -- its processes ----------------------------------------------------------------------
    def pids(self):
        """This process and all its descendants, parents before children."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    stat = pathlib.Path("/proc", entry, "stat").read_text()
                    children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def agents(self):
        return [pid for pid in self.pids() if name_of(pid) == AGENT]

    def serving(self):
        """Every process but the agent."""
        return [pid for pid in self.pids() if name_of(pid) != AGENT]

    def workers(self):
        """Processes that serve requests: the leaves of the tree, or the one process."""
        return self.serving()[1:] or self.serving()

    def cpu_ns(self):
        """(of the whole tree, of the agent alone): run time so far, ended threads included."""
        agents = set(self.agents())
        times = {pid: run_time_ns(pid) for pid in self.pids()}
        return sum(times.values()), sum(times[pid] for pid in times if pid in agents)

    def stop(self):
        """TERM to the first process, KILL to whatever of the tree is left after 20 s."""
        tree = [(pid, birth_of(pid)) for pid in self.pids()]
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for pid, birth in tree[1:]:
            deadline = time.monotonic() + 2
            while birth is not None and birth_of(pid) == birth and time.monotonic() < deadline:
                time.sleep(0.01)
            if birth is not None and birth_of(pid) == birth:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.log.close()
        with contextlib.suppress(OSError):
            self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def name_of(pid):
    try:
        return pathlib.Path("/proc", str(pid), "comm").read_text().strip()
    except OSError:
        return ""


def birth_of(pid):
    """Its start time in ticks: with the pid it names one process for good. None when it is gone
    or a zombie."""
    try:
        fields = pathlib.Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def run_time_ns(pid):
    """The scheduler's run time of a process with all its threads, ended ones included: the clock
    that clock_getcpuclockid(3) would name."""
    try:
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0
