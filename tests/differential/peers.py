"""Our parser and the peers, each a function from connections to what it understood.

Everything is text, one Latin-1 character per byte. A request is (method, target, minor version,
[(name in lower case, value)], body); a peer also says why it stopped, "" if it did not.
"""
import functools
import json
import os
import pathlib
import shutil
import struct
import subprocess
from typing import NamedTuple

import h11
from gunicorn.config import Config
from gunicorn.http.errors import NoMoreData, ParseException
from gunicorn.http.parser import RequestParser

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = pathlib.Path(os.environ.get("CTSERVE_BUILD", ROOT / "build"))
TOOL = pathlib.Path(os.environ.get("CTSERVE_BATCH_TOOL",
                                   BUILD / "tests" / "differential" / "batch-tool"))
NODE = shutil.which("node")
#: The rules are written for these versions; another llhttp has other habits.
LLHTTP = "9."
H11_BUFFER_BYTES = 1 << 20


class Request(NamedTuple):
    method: str
    target: str
    minor: int
    headers: list
    body: str


class Understood(NamedTuple):
    requests: list
    stopped: str = ""
    #: ours only
    end: int = 0
    split_agrees: bool = True
    chunked: list = []


class BatchProcess:
    """A child that answers batches of inputs with a JSON line for each."""

    def __init__(self, command):
        self.child = subprocess.Popen([str(word) for word in command], stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE)

    def lines(self, inputs):
        parts = [struct.pack("<I", len(inputs))]
        for raw in inputs:
            parts.append(struct.pack("<I", len(raw)))
            parts.append(raw)
        self.child.stdin.write(b"".join(parts))
        self.child.stdin.flush()
        for _ in inputs:
            line = self.child.stdout.readline()
            if not line:
                raise RuntimeError(f"{self.child.args[0]} ended with {self.child.wait()}")
            yield line

    def close(self):
        self.child.stdin.close()
        self.child.stdout.close()
        return self.child.wait()


def lower_names(headers):
    """What becomes of a name with an underscore is for header_map to say, not for the parser."""
    return [(name.lower(), value) for name, value in headers if "_" not in name]


class Ours(BatchProcess):
    name = "ctserve"

    def __init__(self, policy="strict"):
        super().__init__([TOOL, policy])

    def understand(self, inputs):
        for line in self.lines(inputs):
            # Most mutants are refused: do not parse what says only that.
            if line.startswith(b'{"requests": []') and line.endswith(b'"split": true}\n'):
                yield REFUSED
                continue
            got = json.loads(line)
            yield Understood([Request(one[0], one[1], one[2], lower_names(one[3]), one[5])
                              for one in got["requests"]],
                             got["code"], got["end"], got["split"],
                             [one[4] for one in got["requests"]])


REFUSED = Understood([])


class Node(BatchProcess):
    name = "node"

    def __init__(self):
        super().__init__([NODE, HERE / "node_peer.js"])

    def understand(self, inputs):
        for line in self.lines(inputs):
            got = json.loads(line)
            requests = [Request(one[0], one[1], one[2], lower_names(one[3]), one[4])
                        for one in got["requests"]]
            yield Understood(requests, got["error"] or ("open" if got["open"] else ""))


class Gunicorn:
    name = "gunicorn"

    def __init__(self):
        self.config = Config()
        self.config.set("http_parser", "python")
        # These are about the environ and not about the message.
        self.config.set("header_map", "drop")
        self.config.set("secure_scheme_headers", {})

    def understand(self, inputs):
        return map(self.understand_one, inputs)

    def understand_one(self, raw):
        parser = RequestParser(self.config, iter([raw]), ("127.0.0.1", 1))
        requests, stopped = [], ""
        try:
            for message in parser:
                body = message.body.read()
                requests.append(Request(message.method, message.uri, message.version[1],
                                        lower_names(message.headers), body.decode("latin-1")))
        except NoMoreData as error:
            stopped = "" if error.buf in (b"", None) else "open"
        except ParseException as error:
            stopped = f"{type(error).__name__}: {error}"
        return Understood(requests, stopped)

    def close(self):
        return 0


def text(raw):
    return bytes(raw).decode("latin-1")


class H11:
    name = "h11"

    def understand(self, inputs):
        return map(self.understand_one, inputs)

    def understand_one(self, raw):
        peer = h11.Connection(h11.SERVER, max_incomplete_event_size=H11_BUFFER_BYTES)
        requests, head, body = [], None, []
        peer.receive_data(raw)
        while True:
            try:
                event = peer.next_event()
            except h11.RemoteProtocolError as error:
                return Understood(requests, f"RemoteProtocolError: {error}")
            if event is h11.NEED_DATA:
                return Understood(requests, "" if head is None and not peer.trailing_data[0]
                                  else "open")
            if isinstance(event, h11.Request):
                head, body = event, []
            elif isinstance(event, h11.Data):
                body.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                requests.append(Request(
                    text(head.method), text(head.target), int(head.http_version[2:]),
                    lower_names((text(name), text(value)) for name, value in head.headers),
                    text(b"".join(body))))
                head = None
                peer.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                peer.send(h11.EndOfMessage())
                if peer.our_state is not h11.DONE or peer.their_state is not h11.DONE:
                    return Understood(requests, "close")
                peer.start_next_cycle()
            else:
                return Understood(requests, f"{event!r}")

    def close(self):
        return 0


@functools.cache
def why_no_node():
    """Why Node cannot take part, or None."""
    if NODE is None:
        return "no node"
    found = subprocess.run([NODE, "-p", "process.versions.llhttp"], capture_output=True,
                           text=True).stdout.strip()
    return None if found.startswith(LLHTTP) else f"node has llhttp {found}, not {LLHTTP}x"


def all_peers():
    return [peer() for peer in (Node, Gunicorn, H11) if peer is not Node or why_no_node() is None]
