"""The log object of hooks and cfg: real logging.Logger objects behind gunicorn's names."""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from ctserve import _core

LEVELS = {"critical": logging.CRITICAL, "error": logging.ERROR, "warning": logging.WARNING,
          "info": logging.INFO, "debug": logging.DEBUG}


class ErrorLogHandler(logging.Handler):
    """Writes to wherever the error log goes now, one write(2) per record, so that lines of Python
    and of C never mix. `stream` is for code that looks at handlers."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(
            "%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = self.format(record) + "\n"
            os.write(_core.log_fd(), text.encode("utf-8", "backslashreplace"))
        except OSError:
            pass  # a full or closed log must not stop the server
        except Exception:
            self.handleError(record)


class Logger:
    """gunicorn's Logger as hooks see it: `server.log`, `worker.log`.

    error_log, access_log: the loggers 'gunicorn.error' and 'gunicorn.access'.
    Runs in: any thread. Source: gunicorn.glogging.Logger.
    """

    def __init__(self, cfg: Any) -> None:
        self.error_log = logging.getLogger("gunicorn.error")
        self.access_log = logging.getLogger("gunicorn.access")
        self.error_log.propagate = False
        self.access_log.propagate = False
        self.access_handlers: list[logging.Handler] = []
        self.error_handlers: list[logging.Handler] = []
        self.logfile = None
        self.setup(cfg)

    def setup(self, cfg: Any) -> None:
        """Take over level and handler from `cfg`; again on reload."""
        self.cfg = cfg
        self.loglevel = LEVELS.get(str(cfg.loglevel).lower(), logging.INFO)
        self.error_log.setLevel(self.loglevel)
        self.access_log.setLevel(logging.INFO)
        if not any(isinstance(handler, ErrorLogHandler) for handler in self.error_log.handlers):
            self.error_log.addHandler(ErrorLogHandler())

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.critical(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.error(msg, *args, **kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.warning(msg, *args, **kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.info(msg, *args, **kwargs)

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.debug(msg, *args, **kwargs)

    def exception(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.error_log.exception(msg, *args, **kwargs)

    def log(self, lvl: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        if isinstance(lvl, str):
            lvl = LEVELS.get(lvl.lower(), logging.INFO)
        self.error_log.log(lvl, msg, *args, **kwargs)

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Does nothing yet: the access log is written in C once it works."""

    def now(self) -> str:
        return time.strftime("[%d/%b/%Y:%H:%M:%S %z]")

    def reopen_files(self) -> None:
        _core.log_reopen()

    def close_on_exec(self) -> None:
        """Nothing to do: our descriptors are close-on-exec from birth."""
