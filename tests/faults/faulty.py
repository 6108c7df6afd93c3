"""A service under the preloaded library of faults.c, and orders to it."""
import contextlib
import errno
import mmap
import os
import pathlib
import re
import socket
import struct
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import CTSERVE, ROOT, Running, until  # noqa: E402

#: struct order in faults.c
LAYOUT = struct.Struct("=6i q 32s")
ERRORS = {"malloc": errno.ENOMEM, "calloc": errno.ENOMEM, "realloc": errno.ENOMEM,
          "mmap": errno.ENOMEM, "read": errno.EIO, "recv": errno.EIO, "write": errno.EIO,
          "send": errno.ENOBUFS, "sendmsg": errno.ENOBUFS, "accept4": errno.ENFILE,
          "pread": errno.EIO, "pwrite": errno.ENOSPC, "sendfile": errno.EIO,
          "epoll_ctl": errno.ENOSPC, "epoll_wait": errno.EINVAL, "eventfd": errno.EMFILE,
          "memfd_create": errno.EMFILE, "ftruncate": errno.ENOSPC, "socketpair": errno.EMFILE,
          "fork": errno.EAGAIN, "posix_spawn": errno.EAGAIN, "pthread_create": errno.EAGAIN,
          "poll": errno.ENOMEM, "shutdown": errno.ENOBUFS}

#: What no log of a service may say, whatever fails.
CRASH = re.compile(r"SIGSEGV|SIGABRT|SIGBUS|signal 11|signal 6|Fatal Python error|"
                   r"libev: cannot|Aborted|corrupted|double free|Assertion|WORKER TIMEOUT")


def library():
    build = pathlib.Path(os.environ.get("CTSERVE_BUILD", pathlib.Path(CTSERVE).parent))
    return build / "tests" / "faults" / "ctserve_test_faults.so"


class Faulty(Running):
    """A Running whose processes fail on order."""

    def __init__(self, arguments, folder, environment=None):
        self.file = tempfile.NamedTemporaryFile(prefix="ctserve-faults-")
        self.file.write(bytes(4096))
        self.file.flush()
        self.order = mmap.mmap(self.file.fileno(), 4096)
        super().__init__(arguments, folder,
                         {"LD_PRELOAD": str(library()), "CTSERVE_TEST_FAULTS": self.file.name,
                          **(environment or {})})

    def fail(self, pid, function, first=1, count=1, error=None):
        """The calls `first`, `first` + 1 ... of `function` fail in `pid` (-1: everywhere)."""
        self.nothing_fails()
        clock = LAYOUT.unpack_from(self.order)[6]
        LAYOUT.pack_into(self.order, 0, 0, first, count, error or ERRORS[function], 0, 0, clock,
                         function.encode())
        struct.pack_into("=i", self.order, 0, pid)

    def nothing_fails(self):
        struct.pack_into("=i", self.order, 0, 0)

    def calls_count(self):
        """Calls of the function since the order."""
        return LAYOUT.unpack_from(self.order)[4]

    def failed_count(self):
        return LAYOUT.unpack_from(self.order)[5]

    def move_clock(self, seconds):
        """Every process sees so much more time gone by."""
        struct.pack_into("=q", self.order, 24, LAYOUT.unpack_from(self.order)[6] + seconds * 1000)

    # -- requests that may go wrong, but must come to an end -----------------------------------
    def exchange(self, raw, patience_s=20):
        """What came back up to the end of the connection; b"" when nothing did."""
        data = b""
        with contextlib.suppress(ConnectionError):
            with socket.create_connection(("127.0.0.1", self.port), patience_s) as client:
                client.sendall(raw)
                while True:
                    piece = client.recv(65536)
                    if not piece:
                        break
                    data += piece
        return data

    def answers_well(self):
        answer = self.exchange(b"GET / HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
        return answer.startswith(b"HTTP/1.1 200 ")

    def is_sound(self):
        """The master lives, a good request is answered, nothing crashed."""
        assert self.process.poll() is None, "the master is gone:\n" + self.text
        until(self.answers_well, lambda: "a good answer; the log was:\n" + self.text, 15)
        crash = CRASH.search(self.text)
        assert crash is None, self.text[-4000:]
        return True


__all__ = ["ERRORS", "ROOT", "Faulty", "library", "until"]
