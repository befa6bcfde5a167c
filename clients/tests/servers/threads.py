#!/usr/bin/env python3
"""A good student's server: a thread per client, and nothing reserved for bad times.

It earns every point of the main part of the course, and shows what the last part is about."""

import os
import signal
import socket
import sys
import threading

PLUS_ONE = bytes((byte + 1) % 256 for byte in range(256))


def answers(data, inside):
    """What the bytes are answered with, and whether a message is open after them."""
    answer = bytearray()
    while data:
        span, mark, data = data.partition(b"$" if inside else b"^")
        if inside:
            answer += span.translate(PLUS_ONE)
        if mark:
            inside = not inside
    return bytes(answer), inside


def serve(client):
    inside = False
    try:
        with client:
            client.sendall(b"*")
            while True:
                data = client.recv(65536)
                if not data:
                    return
                answer, inside = answers(data, inside)
                client.sendall(answer)
    except OSError:
        pass    # the client has disconnected


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(sys.argv[-1])))
        listener.listen(100)
        print(f"Listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=[client]).start()


if __name__ == "__main__":
    main()
