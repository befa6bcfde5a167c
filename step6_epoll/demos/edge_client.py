#!/usr/bin/env python3
"""Sends one long message and counts the bytes that come back; then sends one more byte.

Watch whether the answer stops in the middle. A server that takes an edge-triggered event and
does not read until EAGAIN leaves the rest unread until new bytes arrive, even if only one.
Exit status: 0 all bytes came back, 1 they did not, 2 wrong command line.
"""

import argparse
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../clients"))
from lib import address  # noqa: E402

CONNECT_SECONDS = 10


def receive(sock, expected):
    """Up to this many bytes, until the socket's time limit passes without any."""
    received = b""
    while len(received) < expected:
        try:
            data = sock.recv(expected - len(received))
        except socket.timeout:
            break
        if not data:
            raise ConnectionError("the server closed the connection")
        received += data
    return received


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--bytes", type=int, default=10000, metavar="N",
        help="length of the message (default 10000)")
    add("--patience", type=float, default=0.5, metavar="SECONDS",
        help="give up after this many seconds without a byte (default 0.5)")
    address.add_arguments(parser)
    options = parser.parse_args()
    address.resolve(parser, options)
    if not 2 <= options.bytes <= 65536:
        parser.error(f"--bytes {options.bytes}: expected 2 to 65536")
    if not 0 < options.patience <= 3600:
        parser.error(f"--patience {options.patience:g}: expected seconds above 0, up to 3600")

    with address.connect(options.host, options.port, CONNECT_SECONDS) as sock:
        if sock.recv(1) != b"*":
            raise ConnectionError("the server does not greet with *")
        sock.settimeout(options.patience)
        # One call sends all bytes in one piece, so the server gets one event for them.
        sock.sendall(b"^" + b"a" * (options.bytes - 1))
        expected = options.bytes - 1    # the ^ is not answered
        received = len(receive(sock, expected))
        print(f"sent {options.bytes} bytes, {received} came back of {expected}", end="")
        stalled = received < expected
        print(f", then nothing for {options.patience:g} s" if stalled else "")
        if stalled:
            sock.sendall(b"a")
            more = len(receive(sock, expected + 1 - received))
            print(f"sent 1 byte more, {more} came back; still missing: "
                  f"{expected + 1 - received - more}")
    return 1 if stalled else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as problem:
        sys.exit(f"edge_client: {problem.strerror or problem}")
