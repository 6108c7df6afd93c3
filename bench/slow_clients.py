#!/usr/bin/env python3
"""slow_clients.py PORT EACH - as many slow heads, slow bodies and slow readers as EACH says.

Every client does one small step a second: one more byte of a head, one more byte of a body, one
small read of a large reply; the steps are spread evenly over the second. A client that the
server turned away comes back. Says `ready` when all of them have begun, goes on until its
standard input ends or two minutes have passed, then prints how often clients were turned away.
"""
import heapq
import json
import select
import socket
import sys
import time

LIMIT_S = 120
HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: " + b"s" * 200
BODY = b"POST /count HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
READ = b"GET /256k HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class Slow:
    """One slow client; `step` does its next small thing."""

    def __init__(self, port, kind):
        self.port, self.kind = port, kind
        self.client = None
        self.turned_away = 0
        self.connect()

    def connect(self):
        self.client = socket.socket()
        if self.kind == "reader":
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self.client.settimeout(5)
        self.client.connect(("127.0.0.1", self.port))
        self.sent = 0
        first = {"head": HEAD[:4], "body": BODY, "reader": READ}[self.kind]
        self.client.sendall(first)
        self.sent = len(first)
        self.client.setblocking(False)

    def step(self):
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
            try:
                self.connect()
            except OSError:
                pass

    def has_ended(self):
        """Did the server answer or close? Then this client is served or refused."""
        try:
            self.client.recv(4096)
            return True
        except BlockingIOError:
            return False


def main():
    port, each = int(sys.argv[1]), int(sys.argv[2])
    ends_at = time.monotonic() + LIMIT_S
    clients = []
    failed = 0
    for number in range(each):
        for kind in ("head", "body", "reader"):
            try:
                clients.append(Slow(port, kind))
            except OSError:
                failed += 1
        if number % 20 == 0:
            time.sleep(0.005)
    print("ready", flush=True)
    begun = time.monotonic()
    turns = [(begun + number / max(1, len(clients)), number) for number in range(len(clients))]
    heapq.heapify(turns)
    while turns and time.monotonic() < ends_at:
        due, number = turns[0]
        wait_s = max(0, due - time.monotonic())
        if wait_s > 0 and select.select([sys.stdin], [], [], min(wait_s, 0.5))[0]:
            break
        if time.monotonic() >= due:
            clients[number].step()
            heapq.heapreplace(turns, (due + 1, number))
    away = {kind: sum(one.turned_away for one in clients if one.kind == kind)
            for kind in ("head", "body", "reader")}
    print(json.dumps({"connected": len(clients), "failed": failed, "turned_away": away}), flush=True)


if __name__ == "__main__":
    main()
