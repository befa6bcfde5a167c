#!/usr/bin/env python3
"""Measures what other clients notice while slow_command computes for a second.

Without HOST it starts the server itself, once in each mode. A second client sends a line
every 20 ms. Its answer times are shown before, during and after the command. A third client
connects meanwhile. It is always connected at once, because the kernel does that; watch when
it is greeted.
"""

import argparse
import os
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib import address                     # noqa: E402
from lib.processes import program           # noqa: E402
from lib.servers import Server              # noqa: E402

SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "demos",
                      "slow_command")
PAUSE = 0.02        # seconds between two lines of the second client
LEAD = 0.3          # seconds without a command, before it and after it
PATIENCE = 120


class Client:
    def __init__(self, place):
        """Connects. The greeting is left for read_line."""
        began = time.monotonic()
        self.sock = address.connect(*place, PATIENCE)
        self.connect_time = time.monotonic() - began
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("r", encoding="ascii", newline="\n")

    def read_line(self, expected):
        line = self.file.readline()
        if line != expected + "\n":
            raise ValueError(f"expected {expected!r}, got {line!r}")

    def ask(self, line, expected):
        """Returns how long the answer took."""
        began = time.monotonic()
        self.sock.sendall(line.encode("ascii") + b"\n")
        self.read_line(expected)
        return time.monotonic() - began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


class OtherClient(threading.Thread):
    """Sends a line every PAUSE seconds. `answers` has the moment of each, and how long its
    answer took."""

    def __init__(self, client):
        super().__init__()
        self.client, self.answers, self.error = client, [], None
        self.stop = threading.Event()

    def run(self):
        try:
            while not self.stop.wait(PAUSE):
                now = time.monotonic()
                self.answers.append((now, self.client.ask("ping", "ping")))
        except (OSError, ValueError) as error:
            self.error = error

    def worst(self, begin, end):
        """The longest answer time of the lines sent between two moments."""
        return max((took for sent, took in self.answers if begin <= sent < end), default=0)


def measure(place, ms):
    """Returns times in seconds: the other client's longest before, during and after the
    command; the new client's until it was connected and until it was greeted; and how long
    the command took."""
    slow_took, errors = [], []

    def command():
        try:
            slow_took.append(slow.ask(f"SLOW {ms}", "done"))
        except (OSError, ValueError) as error:
            errors.append(error)

    with Client(place) as slow, Client(place) as second:
        slow.read_line("hello")
        second.read_line("hello")
        other = OtherClient(second)
        computing = threading.Thread(target=command, daemon=True)
        other.start()
        try:
            time.sleep(LEAD)
            begin = time.monotonic()
            computing.start()
            time.sleep(ms / 1000 / 10)
            connecting = time.monotonic()
            with Client(place) as new_client:
                new_client.read_line("hello")
                greeted = time.monotonic() - connecting
            computing.join()
            end = time.monotonic()
            time.sleep(LEAD)
        finally:
            other.stop.set()
            other.join()
        if other.error or errors:
            raise other.error or errors[0]
        # A line sent while the command was on its way may have come before or after it.
        return (other.worst(0, begin - PAUSE), other.worst(begin - PAUSE, end),
                other.worst(end, end + PATIENCE), new_client.connect_time, greeted,
                slow_took[0])


def print_heading(ms):
    title = "another client's longest answer"
    print(f"{'':8}{title:>39}{'a new client meanwhile':>27}{f'SLOW {ms}':>14}")
    print(f"{'':8}{'before':>13}{'during':>13}{'after':>13}{'connected':>14}{'greeted':>13}"
          f"{'took':>14}")


def print_row(name, times):
    widths = 13, 13, 13, 14, 13, 14
    print(f"{name:8}" + "".join(f"{1000 * seconds:{width - 3}.1f} ms"
                                for seconds, width in zip(times, widths)), flush=True)


def run_server(mode, ms):
    with Server([SERVER, "--mode", mode]) as server:
        print_row(mode, measure(server.address, ms))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--ms", type=int, default=1000, metavar="MS", help="how long to compute (default 1000)")
    address.add_arguments(parser, "a server is started in each mode")
    options = parser.parse_args()
    if not 0 <= options.ms <= 60000:
        parser.error(f"--ms: {options.ms} is not a number from 0 to 60000")

    if options.host is not None:
        address.resolve(parser, options)
        times = measure((options.host, options.port), options.ms)
        print_heading(options.ms)
        print_row("", times)
    else:
        print_heading(options.ms)
        for mode in "block", "slices", "worker":
            run_server(mode, options.ms)


if __name__ == "__main__":
    program(main, "slow_client")
