#!/usr/bin/env python3
"""Greets each client, one after another, and reads what it sends. The rest is yours."""

import os
import signal
import socket
import sys


def serve(client):
    client.sendall(b"*")
    while client.recv(4096):
        pass    # stage 2: answer them


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", int(sys.argv[-1])))
        listener.listen(100)
        while True:
            client, _ = listener.accept()
            with client:
                serve(client)


if __name__ == "__main__":
    main()
