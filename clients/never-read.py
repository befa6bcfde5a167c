#!/usr/bin/env python3
"""A client that sends one endless message and never reads the answers.

A server with back pressure stops reading from such a client after a few megabytes, which fill
the buffers of the kernel. A server without it keeps all answers, so its memory grows: watch
`ps -o rss= -p PID`. Each second a line says how much the server has taken.

Exit status: 0 after --bytes or --seconds, 1 if the connection failed or the server closed it,
2 for a wrong command line, 130 for Ctrl-C.
"""

import argparse
import fcntl
import os
import re
import select
import socket
import struct
import sys
import termios
import time

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

from lib import address             # noqa: E402

PIECE = b"a" * 65536
PATIENCE = 10  # seconds for the connection and the greeting


def connect(host, port):
    sock = address.connect(host, port, PATIENCE)
    try:
        greeting = sock.recv(1)
    except socket.timeout:
        greeting = b""
    if greeting != b"*":
        raise OSError("the server did not greet with *")
    sock.setblocking(False)
    return sock


def send_queue(sock):
    """How many of the bytes sent have not reached the server's system yet."""
    try:
        return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
    except OSError:
        return 0  # this system does not say


def send(sock, sent, limit, seconds):
    """Send up to `limit` bytes, for `seconds` at most. Return how many are sent then."""
    until = time.monotonic() + seconds
    while sent - send_queue(sock) < limit and time.monotonic() < until:
        piece = PIECE[:limit - sent] if sent > 0 else b"^"
        if not piece:
            time.sleep(0.01)  # until the server's system has taken the last bytes
        elif select.select([], [sock], [], max(until - time.monotonic(), 0))[1]:
            sent += sock.send(piece)
    return sent


def never_read(options):
    sock = connect(options.host, options.port)
    sent = taken = 0
    began = changed = now = time.monotonic()
    while taken < options.bytes and now - began < options.seconds:
        try:
            sent = send(sock, sent, options.bytes, min(1, began + options.seconds - now))
        except OSError as error:
            raise OSError(f"the connection ended after {taken:,} bytes: {error.strerror}")
        now, before = time.monotonic(), taken
        taken = sent - send_queue(sock)
        changed = now if taken != before else changed
        stalled = f", nothing for {now - changed:.0f} s" if taken == before else ""
        print(f"{now - began:4.0f} s: the server has taken {taken:,} bytes{stalled}",
              flush=True)


def size(text):
    """An argparse type: bytes, also with K, M or G (1024 each)."""
    match = re.fullmatch(r"([1-9][0-9]{0,11})([KMG]?)", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text}: expected a number of bytes, such as 100M")
    return int(match[1]) << " KMG".index(match[2] or " ") * 10


def duration(text):
    """An argparse type: seconds."""
    if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text) or not 0 < float(text) <= 1e6:
        raise argparse.ArgumentTypeError(f"{text}: expected seconds above 0")
    return float(text)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--bytes", type=size, metavar="N", default=sys.maxsize,
                        help="stop after N bytes, such as 100M (default: never)")
    parser.add_argument("--seconds", type=duration, metavar="S", default=float("inf"),
                        help="stop after S seconds (default: never)")
    address.add_arguments(parser)
    options = parser.parse_args()
    address.resolve(parser, options)
    return options


if __name__ == "__main__":
    try:
        never_read(parse_arguments())
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os._exit(1)  # our output was closed
    except OSError as problem:
        sys.exit(f"never-read: {problem}")
