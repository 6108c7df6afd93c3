"""What a person reads when something of theirs goes wrong: their frames, none of ours."""

from __future__ import annotations

import os

TEXT_BYTES_MAX = 3700
FRAMES_COUNT_MAX = 12
CHAIN_COUNT_MAX = 4

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


class StartError(Exception):
    """A start that cannot go on: the text to print and gunicorn's exit code for it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def is_ours(filename: str) -> bool:
    """True for frames that the user did not write and cannot change: ours, and the import system."""
    return (filename.startswith(_OURS) or filename.startswith("<frozen importlib")
            or filename.endswith("importlib/__init__.py"))


def _trim(report, depth: int = 0) -> None:
    frames = [frame for frame in report.stack if not is_ours(frame.filename)]
    del report.stack[:]
    report.stack.extend(frames[-FRAMES_COUNT_MAX:])
    for chained in (report.__cause__, report.__context__):
        if chained is not None and depth < CHAIN_COUNT_MAX:
            _trim(chained, depth + 1)


def traceback_text(error: BaseException) -> str:
    """The traceback of `error` without frames of ours, no newline at the end."""
    import traceback

    report = traceback.TracebackException(type(error), error, error.__traceback__)
    _trim(report)
    lines = list(report.format())
    if not report.stack and report.__cause__ is None and report.__context__ is None:
        # A syntax error in the file asked for has no frame of the user's, only its own lines.
        lines = [line for line in lines if not line.startswith("Traceback (most recent")]
    return "".join(lines).rstrip("\n")


def summary(error: BaseException) -> str:
    """One line: class and message."""
    try:
        message = str(error)
    except Exception:
        message = "<the message itself raised>"
    message = message.split("\n", 1)[0]
    return type(error).__name__ + (": " + message if message else "")


def report(error: BaseException, last_line: str) -> str:
    """Traceback, then `last_line`; cut in the middle so that it fits into one message."""
    text = traceback_text(error)
    room = TEXT_BYTES_MAX - len(last_line.encode("utf-8", "replace"))
    encoded = text.encode("utf-8", "replace")
    if len(encoded) > room > 200:
        head, tail = encoded[: room // 4], encoded[-(room - room // 4 - 32):]
        text = (head.decode("utf-8", "ignore") + "\n  [...]\n" + tail.decode("utf-8", "ignore"))
    return text + "\n" + last_line


def hook_report(name: str, error: BaseException) -> str:
    """What is logged when the hook called `name` raised."""
    return report(error, "hook %s raised %s" % (name, summary(error)))
