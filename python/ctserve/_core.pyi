"""The server behind ctserve; used by the package ctserve only."""

from typing import Any

def main(argv: list[str], mode: str, agent: str, launcher: str) -> int:
    """Run until the end of this process: the master's, and every worker's too. Its exit code."""

def settings() -> dict[str, Any]:
    """The settings in force, by name."""

def setting_rows() -> list[tuple[str, str, str, str | None, str]]:
    """(name, section, kind, default text or None, doc) of every setting, in the table's order."""

def signal_self(signo: int) -> None:
    """As if the master had got that signal."""

def kill_worker(pid: int, signo: int) -> None:
    """Send a signal to one worker. One that is gone is no error; otherwise OSError."""

def listener_fds() -> list[int]:
    """Descriptors of the listening sockets; they belong to the server."""

def requests_count() -> int:
    """worker.nr of this worker."""

def is_alive() -> bool:
    """worker.alive of this worker."""

def set_alive(alive: bool) -> None:
    """False: finish what runs and leave."""

def log_fd() -> int:
    """The descriptor of the error log."""

def log_reopen() -> None:
    """Open the error log's path again. Raises OSError."""
