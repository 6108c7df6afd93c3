#!/usr/bin/env python3
"""slow_clients.py PORT EACH [PATH] - as many slow heads, slow bodies and slow readers as EACH says.

Every client does one small step a second: one more byte of a head, one more byte of a body, one
small read of a large reply (of PATH); the steps are spread evenly over the second. A client that the
server turned away comes back a second later. Says `ready` when all of them have begun or 20 s
have passed, goes on until its standard input ends or two minutes have passed, then prints how
many were connected and how often they were turned away.
"""
import heapq
import json
import select
import socket
import sys
import time

LIMIT_S = 120
CONNECT_LIMIT_S = 20
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"s" * 200
BODY = b"POST /count HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
READ = b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Slow:
    """One slow client; `step` does its next small thing."""

    def __init__(self, port, kind, path):
        self.port, self.kind, self.path = port, kind, path
        self.client = None
        self.sent = self.turned_away = 0
        self.connect()

    def connect(self):
        """Begin anew; without luck `client` is None until the next step."""
        self.client = socket.socket()
        if self.kind == "reader":
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        first = {"head": HEAD[:4], "body": BODY, "reader": READ % self.path}[self.kind]
        try:
            self.client.settimeout(0.2)
            self.client.connect(("127.0.0.1", self.port))
            self.client.sendall(first)
        except OSError:
            self.client.close()
            self.client = None
            return
        self.sent = len(first)
        self.client.setblocking(False)

    def step(self):
        if self.client is None:
            self.connect()
            return
        try:
            if self.kind == "head":
                self.client.send(HEAD[self.sent % len(HEAD):][:1])
                self.sent += 1
            elif self.kind == "body":
                self.client.send(b"u")
            elif not self.client.recv(64):
                raise ConnectionResetError
            if self.kind != "reader" and self.has_ended():
                raise ConnectionResetError
        except BlockingIOError:
            pass
        except OSError:
            self.turned_away += 1
            self.client.close()
            self.client = None

    def has_ended(self):
        """Did the server answer or close? Then this client is served or refused."""
        try:
            self.client.recv(4096)
            return True
        except BlockingIOError:
            return False


def main():
    port, each = int(sys.argv[1]), int(sys.argv[2])
    path = (sys.argv[3] if len(sys.argv) > 3 else "/256k").encode()
    begun = time.monotonic()
    clients = []
    for number in range(each):
        if time.monotonic() > begun + CONNECT_LIMIT_S:
            break
        clients += [Slow(port, kind, path) for kind in ("head", "body", "reader")]
        if number % 20 == 0:
            time.sleep(0.005)
    connected = sum(one.client is not None for one in clients)
    print("ready", flush=True)
    drip(clients, begun + LIMIT_S)
    away = {kind: sum(one.turned_away for one in clients if one.kind == kind)
            for kind in ("head", "body", "reader")}
    print(json.dumps({"connected": connected, "turned_away": away}), flush=True)


def drip(clients, ends_at):
    """A step of each client a second, until standard input ends or the time is over."""
    begun = time.monotonic()
    turns = [(begun + number / len(clients), number) for number in range(len(clients))]
    heapq.heapify(turns)
    while time.monotonic() < ends_at:
        due, number = turns[0]
        wait_s = min(0.5, max(0, due - time.monotonic()))
        if select.select([sys.stdin], [], [], wait_s)[0]:
            return
        now = time.monotonic()
        if now >= due:
            clients[number].step()
            heapq.heapreplace(turns, (max(due, now - 1) + 1, number))


if __name__ == "__main__":
    main()
