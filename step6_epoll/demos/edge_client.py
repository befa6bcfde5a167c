#!/usr/bin/env python3
"""Sends one long message and counts what comes back; then a byte more.

Watch whether the answer stops in the middle. A server that takes an edge-triggered event and
does not read until EAGAIN leaves the rest where it is until something new arrives, if only one
byte. Exit status: 0 all came back, 1 it did not, 2 called wrongly.
"""

import argparse
import socket
import sys


def connect(address):
    try:
        return socket.create_connection(address, 10)
    except OSError as error:
        raise OSError(f"cannot connect to {address[0]} port {address[1]}: "
                      f"{error.strerror or error}") from error


def receive(sock, owed):
    """Up to `owed` bytes, until the socket's time limit passes without any."""
    came = b""
    while len(came) < owed:
        try:
            data = sock.recv(owed - len(came))
        except socket.timeout:
            break
        if not data:
            raise ConnectionError("the server closed the connection")
        came += data
    return came


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--bytes", type=int, default=10000, metavar="N", help="of the message (default 10000)")
    add("--silence", type=float, default=0.5, metavar="SECONDS",
        help="how long nothing must come before we give up (default 0.5)")
    add("host", metavar="HOST")
    add("port", metavar="PORT", type=int)
    options = parser.parse_args()
    if not 2 <= options.bytes <= 65536 or not 0 < options.silence <= 3600:
        parser.error("a message has 2 to 65536 bytes, and silence takes up to 3600 seconds")
    if not 0 < options.port < 65536:
        parser.error("a port is a number from 1 to 65535")

    with connect((options.host, options.port)) as sock:
        if sock.recv(1) != b"*":
            raise ConnectionError("the server does not greet with *")
        sock.settimeout(options.silence)
        # In one call, and so in one piece: the server learns of it by one event.
        sock.sendall(b"^" + b"a" * (options.bytes - 1))
        owed = options.bytes - 1    # the ^ is not answered
        came = receive(sock, owed)
        print(f"sent {options.bytes} bytes, {len(came)} came back of {owed}", end="")
        stalled = len(came) < owed
        print(f", then nothing for {options.silence:g} s" if stalled else "")
        if stalled:
            sock.sendall(b"a")
            more = receive(sock, owed + 1 - len(came))
            print(f"sent 1 byte more, {len(more)} came back; still missing: "
                  f"{owed + 1 - len(came) - len(more)}")
    return 1 if stalled else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as problem:
        sys.exit(f"edge_client: {problem.strerror or problem}")
