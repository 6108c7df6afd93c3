"""server, worker and app: what hooks get. Attributes as in gunicorn; custom ones stick.

None of this is on the way of a request. The facts live in the C server; these objects ask it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any, Callable

from ctserve import __version__, _core, _load
from ctserve._config import Config, apply_paths, value_text
from ctserve._errors import StartError, summary
from ctserve._log import Logger

BOOTING = "[booting]"

cfg: Config
log: Logger
app: "Application"
server: "Server"


class Application:
    """The application as gunicorn's workers hold it: `worker.app`."""

    def __init__(self, config: Config) -> None:
        self.cfg = config
        self.callable: Any = None
        self.prog = None
        self.logger = None
        self.usage = None
        self.app_uri: str | None = None

    def load(self) -> Callable[..., Any]:
        """Import the application named by app_uri. Raises StartError (see _load.load)."""
        uri = self.app_uri
        if not uri:
            raise _load.missing_app()
        found, self.kind, self.why = _load.load(uri)
        return found

    def wsgi(self) -> Callable[..., Any]:
        """The callable, imported at the first call."""
        if self.callable is None:
            self.callable = self.load()
        return self.callable

    def reload(self) -> None:
        """The server reads settings again by itself; kept for callers."""


class Socket:
    """A listening socket: what code that looks at `worker.sockets` uses of it."""

    def __init__(self, fd: int) -> None:
        import socket

        self.sock = socket.socket(fileno=os.dup(fd))
        self.cfg_addr = self.sock.getsockname()

    def fileno(self) -> int:
        return self.sock.fileno()

    def getsockname(self) -> Any:
        return self.sock.getsockname()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def __str__(self) -> str:
        name = self.getsockname()
        return "http://%s:%d" % name[:2] if isinstance(name, tuple) else "unix:%s" % name


class Heartbeat:
    """worker.tmp: the heartbeat lies in shared memory and is kept by the server."""

    def notify(self) -> None:
        pass

    def last_update(self) -> float:
        return time.monotonic()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class Server:
    """The master. In a worker: the master as it was at the fork.

    Runs in: hooks. Source: gunicorn.arbiter.Arbiter.
    """

    WORKER_BOOT_ERROR = 3
    APP_LOAD_ERROR = 4
    START_CTX: dict[Any, Any] = {}
    WORKERS: dict[int, "Worker"]

    def __init__(self, application: Application) -> None:
        self.app = application
        self.pid: int | None = None
        self.WORKERS = {}
        self.SIG_QUEUE: list[int] = []
        self.worker_age = 0
        self.reexec_pid = 0
        self.master_pid = 0
        self.master_name = "Master"
        self.systemd = False
        self._num_workers = 0
        self._last_logged_active_worker_count = None
        self._stats = {"start_time": time.time(), "workers_spawned": 0, "workers_killed": 0,
                       "reloads": 0}
        self.setup()

    def setup(self) -> None:
        """Take over the settings in force; again on reload."""
        self.cfg = cfg
        self.log = log
        self.timeout = cfg.timeout
        self.proc_name = cfg.proc_name
        self.worker_class = Worker
        self.worker_class_str = cfg.worker_class_str
        self.address = cfg.address
        self.pidfile = cfg.pidfile
        self._num_workers = cfg.workers

    @property
    def num_workers(self) -> int:
        return self._num_workers

    @num_workers.setter
    def num_workers(self, count: int) -> None:
        """TTIN and TTOU, as often as it takes; bounded by what a master would be asked for."""
        difference = int(count) - self._num_workers
        for _ in range(min(abs(difference), 1024)):
            _core.signal_self(signal.SIGTTIN if difference > 0 else signal.SIGTTOU)

    @property
    def LISTENERS(self) -> list[Socket]:
        return [Socket(fd) for fd in _core.listener_fds()]

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send `sig` to one worker. A worker that is gone is no error."""
        _core.kill_worker(pid, int(sig))

    def kill_workers(self, sig: int) -> None:
        for pid in list(self.WORKERS):
            self.kill_worker(pid, sig)

    def spawn_worker(self) -> None:
        """Ask for what is missing; the server forks when this hook has returned."""
        self.wakeup()

    spawn_workers = spawn_worker
    manage_workers = spawn_worker

    def wakeup(self) -> None:
        _core.signal_self(signal.SIGCHLD)

    def reload(self) -> None:
        _core.signal_self(signal.SIGHUP)

    def reexec(self) -> None:
        _core.signal_self(signal.SIGUSR2)

    def stop(self, graceful: bool = True) -> None:
        _core.signal_self(signal.SIGTERM if graceful else signal.SIGQUIT)

    def halt(self, reason: Any = None, exit_status: int = 0) -> None:
        _core.signal_self(signal.SIGTERM)

    def signal(self, sig: int, frame: Any = None) -> None:
        """What signal.getsignal shows in the master. The C handlers lie on top of it; it is called
        only when other code has put Python's own handler back, and does nothing in a worker."""
        if self.pid in (None, os.getpid()):
            _core.signal_self(sig)


class Worker:
    """One worker process, in the master and in itself.

    pid: "[booting]" until the fork, then an int. age: counts workers since boot, first is 1.
    Runs in: hooks. Source: gunicorn.workers.base.Worker.
    """

    def __init__(self, age: int, slot_index: int, max_requests: int, timeout: int,
                 ppid: int) -> None:
        self.age = age
        self.slot_index = slot_index
        self.pid: int | str = BOOTING
        self.ppid = ppid
        self.app = app
        self.cfg = cfg
        self.log = log
        self.timeout = timeout / 2.0
        self.booted = False
        self.aborted = False
        self.reloader = None
        self.max_requests = max_requests if max_requests > 0 else sys.maxsize
        self.tmp = Heartbeat()
        self.PIPE: list[int] = []
        self.wsgi: Any = None
        self._alive = True
        self.worker_connections = cfg.worker_connections
        self.tpool = None
        self.nr_conns = 0

    @property
    def _is_here(self) -> bool:
        return self.pid == os.getpid()

    @property
    def nr(self) -> int:
        return _core.requests_count() if self._is_here else 0

    @property
    def alive(self) -> bool:
        return _core.is_alive() if self._is_here else self._alive

    @alive.setter
    def alive(self, value: bool) -> None:
        self._alive = bool(value)
        if self._is_here:
            _core.set_alive(bool(value))

    @property
    def sockets(self) -> list[Socket]:
        return [Socket(fd) for fd in _core.listener_fds()]

    def __str__(self) -> str:
        return "<Worker %s>" % self.pid

    def notify(self) -> None:
        """The loop beats by itself."""

    # What signal.getsignal shows in a worker, and what runs when the signal arrives.

    def handle_exit(self, sig: int, frame: Any) -> None:
        """TERM: finish what runs, then leave."""
        self.alive = False

    def handle_quit(self, sig: int, frame: Any) -> None:
        """INT, QUIT: worker_int, then out."""
        self.alive = False
        self.cfg.worker_int(self)
        time.sleep(0.1)
        sys.exit(0)

    def handle_abort(self, sig: int, frame: Any) -> None:
        """ABRT: the master has lost patience."""
        self.alive = False
        self.aborted = True
        self.cfg.worker_abort(self)
        sys.exit(1)

    def handle_usr1(self, sig: int, frame: Any) -> None:
        self.log.reopen_files()

    def handle_winch(self, sig: int, frame: Any) -> None:
        self.log.debug("worker: SIGWINCH ignored.")


# -- called by _core ------------------------------------------------------------------------------


def configure(app_uri: str | None) -> tuple[Config, Server, Logger, Application]:
    """Make cfg, log, app and server, or bring them up to the settings in force.

    Raises StartError with code 1: no application named, chdir impossible.
    Runs in: master, before the first hook and again on reload.
    """
    global cfg, log, app, server
    values = _core.settings()
    uri = app_uri or values["wsgi_app"]
    # Everything that can fail stands before the first change: a failed reload leaves no half.
    if not uri:
        raise _load.missing_app()
    apply_paths(values["chdir"], values["pythonpath"])
    if "server" not in globals():
        os.environ["SERVER_SOFTWARE"] = "ctserve/" + __version__
        cfg = Config()
        log = Logger(cfg)
        app = Application(cfg)
        server = Server(app)
    else:
        _restore_environment()
        cfg.refresh()
        log.setup(cfg)
        server.setup()
    server.proc_name = cfg.proc_name
    _apply_environment()
    app.app_uri = uri
    return cfg, server, log, app


_environment_before: dict[str, str | None] = {}


def _apply_environment() -> None:
    """raw_env into os.environ, remembering what stood there."""
    for name, value in cfg.env.items():
        _environment_before[name] = os.environ.get(name)
        os.environ[name] = value


def _restore_environment() -> None:
    for name, value in _environment_before.items():
        if value is not None:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)
    _environment_before.clear()


def own_signals(worker: Worker | None) -> None:
    """Register Python callables so that signal.getsignal answers as under gunicorn. The server
    lays its C handlers on top. Runs in: main thread of the process it is for."""
    if worker is None:
        for name in ("HUP", "QUIT", "INT", "TERM", "TTIN", "TTOU", "USR1", "USR2", "WINCH",
                     "CHLD"):
            signal.signal(getattr(signal, "SIG" + name), server.signal)
        return
    for name in ("HUP", "USR2", "CHLD"):
        signal.signal(getattr(signal, "SIG" + name), signal.SIG_DFL)
    table = {"ABRT": worker.handle_abort, "QUIT": worker.handle_quit, "INT": worker.handle_quit,
             "TERM": worker.handle_exit, "WINCH": worker.handle_winch, "USR1": worker.handle_usr1}
    for name, handler in table.items():
        signal.signal(getattr(signal, "SIG" + name), handler)


def setting_text(name: str, value: Any) -> str:
    """For --print-config: `value` as in force, or the default hook's name."""
    from ctserve._config import default_hook

    row = next(row for row in _core.setting_rows() if row[0] == name)
    if row[2] == "hook" and value is None:
        return value_text(default_hook(name))
    return value_text(value)


def log_worker_exit_error(error: BaseException) -> None:
    """worker_exit raised: logged and swallowed, as in gunicorn."""
    log.warning("Exception during worker exit: %s", summary(error),
                exc_info=(type(error), error, error.__traceback__))


def finish() -> None:
    """End of a process: threads joined, atexit functions run, streams flushed. Once."""
    import atexit

    threading = sys.modules.get("threading")
    try:
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
    finally:
        _ignore_late_signals()


def _ignore_late_signals() -> None:
    """From here on nobody is left who could obey. An order often comes twice (by signal and by
    letter, or because somebody pressed the key again), and the end of the interpreter puts default
    handlers back: the second one would make a good end look like a kill. It leaves alone only
    what Python itself knows as ignored. SIGKILL is there for an end that does not end."""
    for name in ("HUP", "QUIT", "INT", "TERM", "ABRT", "TTIN", "TTOU", "USR1", "USR2", "WINCH"):
        try:
            signal.signal(getattr(signal, "SIG" + name), signal.SIG_IGN)
        except (OSError, ValueError):
            pass


__all__ = ["Application", "Config", "Logger", "Server", "StartError", "Worker"]
