#!/usr/bin/env python3
"""A small echo server that can break the protocol in many ways, for the tests of the clients.

In a test: `with LittleServer("sequential") as server: ...`. As a program it has the command
line of the course's servers as far as the demo uses it: `little_server.py MODE [--stats FILE]`.
"""

import json
import os
import signal
import socket
import struct
import sys
import threading
import time

NEXT = bytes((byte + 1) % 256 for byte in range(256))
MODES = ("concurrent", "sequential", "silent", "no-greeting", "wrong-greeting", "wrong-byte",
         "extra-byte", "early-close", "close-after-answers", "reset", "never-closes", "late",
         # and these only as a program:
         "refuses-to-start", "crashes", "leaves", "ignores-sigterm", "exits-3")


class Reset(Exception):
    """Time to reset the client's connection."""


def answers(client):
    """The protocol: the answers to each piece that the client sends, until its end."""
    inside = False
    while True:
        data = client.recv(4096)
        if not data:
            return
        answer = b""
        for byte in data:
            if inside and byte != ord("$"):
                answer += NEXT[byte:byte + 1]
            else:
                inside = byte == ord("^")
        yield answer


class LittleServer:
    DELAY = 0.1  # seconds before each answer of a server that is late

    def __init__(self, mode, family=socket.AF_INET):
        assert mode in MODES
        self.mode = mode
        self.listener = socket.socket(family)
        self.listener.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        self.listener.listen(100)
        self.host, self.port = self.listener.getsockname()[:2]
        self.clients, self.peer_ports = [], []
        threading.Thread(target=self.accept_clients, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in [self.listener, *self.clients]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def accept_clients(self):
        while True:
            try:
                client, peer = self.listener.accept()
            except OSError:
                return
            self.peer_ports.append(peer[1])
            self.clients.append(client)
            if self.mode == "sequential":
                self.serve_client(client)
            elif self.mode != "silent":
                threading.Thread(target=self.serve_client, args=(client,), daemon=True).start()

    def serve_client(self, client):
        try:
            self.talk(client)
        except OSError:
            pass
        except Reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()

    def talk(self, client):
        if self.mode == "no-greeting":
            return
        client.sendall(b"!" if self.mode == "wrong-greeting" else b"*")
        answered = 0
        for answer in answers(client):
            if self.mode == "crashes":
                print("little_server: about to crash", flush=True)
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.mode == "leaves":
                os._exit(0)
            if self.mode == "early-close":
                return
            if self.mode == "reset":
                raise Reset
            if self.mode == "late":
                time.sleep(self.DELAY)
            if self.mode == "wrong-byte":
                answer = answer.replace(b"f", b"F")
            client.sendall(answer)
            answered += len(answer)
            if self.mode == "close-after-answers" and answered == 18:
                return
        if self.mode == "extra-byte":
            client.sendall(b"+")
        if self.mode == "never-closes":
            threading.Event().wait()


def main(mode, *options):
    if mode == "refuses-to-start":
        sys.exit("little_server: cannot listen, as the test demands")
    stop = {signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    with LittleServer(mode) as server:
        print(f"Listening on {server.host}:{server.port}", flush=True)
        signal.sigwait(stop)
        if mode == "ignores-sigterm":
            threading.Event().wait()
    if "--stats" in options:
        with open(options[options.index("--stats") + 1], "w") as file:
            json.dump({"threads_max": 1, "cpu_user_seconds": 0.001, "cpu_system_seconds": 0.002,
                       "peak_rss_bytes": 3 << 20}, file)
    sys.exit(3 if mode == "exits-3" else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
