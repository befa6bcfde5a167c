#!/usr/bin/env python3
"""Has slow_command compute for a second, and measures what others notice of it.

Without a port it starts the server itself, once in each mode. A bystander sends a line every
20 ms; watch its answer times before, during and after the command. Meanwhile a newcomer
connects: that always succeeds at once, since the kernel does it; watch when it is greeted.
"""

import argparse
import os
import pathlib
import socket
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib.processes import program           # noqa: E402
from lib.servers import Server          # noqa: E402

SERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "demos",
                      "slow_command")
PAUSE = 0.02        # seconds between two lines of the bystander
LEAD = 0.3          # seconds of peace before the command, and after it
PATIENCE = 120
BYSTANDER = "a bystander's worst answer time"


def connect(address):
    try:
        return socket.create_connection(address, PATIENCE)
    except OSError as error:
        raise OSError(f"cannot connect to {address[0]} port {address[1]}: "
                      f"{error.strerror or error}") from error


class Client:
    def __init__(self, address):
        """Connect; the greeting is left for read_line."""
        began = time.monotonic()
        self.sock = connect(address)
        self.connect_time = time.monotonic() - began
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("r", encoding="ascii", newline="\n")

    def read_line(self, expected):
        line = self.file.readline()
        if line != expected + "\n":
            raise ValueError(f"expected {expected!r}, got {line!r}")

    def ask(self, line, expected):
        """Return how long the answer took."""
        began = time.monotonic()
        self.sock.sendall(line.encode("ascii") + b"\n")
        self.read_line(expected)
        return time.monotonic() - began

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()


class Bystander(threading.Thread):
    """Sends a line every now and then; `answers` holds when each was asked and its time."""

    def __init__(self, client):
        super().__init__()
        self.client, self.answers, self.enough, self.error = client, [], threading.Event(), None

    def run(self):
        try:
            while not self.enough.wait(PAUSE):
                now = time.monotonic()
                self.answers.append((now, self.client.ask("ping", "ping")))
        except (OSError, ValueError) as error:
            self.error = error

    def worst(self, begin, end):
        """The worst answer time of what was asked between the two moments."""
        return max((took for asked, took in self.answers if begin <= asked < end), default=0)


def measure(address, ms):
    """Return times in seconds: the bystander's worst before, during and after the command, the
    newcomer's until connected and until greeted, and the command's own."""
    slow_took, errors = [], []

    def command():
        try:
            slow_took.append(slow.ask(f"SLOW {ms}", "done"))
        except (OSError, ValueError) as error:
            errors.append(error)

    with Client(address) as slow, Client(address) as beside:
        slow.read_line("hello")
        beside.read_line("hello")
        bystander = Bystander(beside)
        computing = threading.Thread(target=command, daemon=True)
        bystander.start()
        try:
            time.sleep(LEAD)
            begin = time.monotonic()
            computing.start()
            time.sleep(ms / 1000 / 10)
            asked = time.monotonic()
            with Client(address) as newcomer:
                newcomer.read_line("hello")
                greeted = time.monotonic() - asked
            computing.join()
            end = time.monotonic()
            time.sleep(LEAD)
        finally:
            bystander.enough.set()
            bystander.join()
        if bystander.error or errors:
            raise bystander.error or errors[0]
        # What was asked while the command was on its way may be before or after it.
        return (bystander.worst(0, begin - PAUSE), bystander.worst(begin - PAUSE, end),
                bystander.worst(end, end + PATIENCE), newcomer.connect_time, greeted,
                slow_took[0])


def print_heading(ms):
    print(f"{'':<8}{BYSTANDER:>39}{'a new client meanwhile':>26}{f'SLOW {ms}':>14}")
    columns = [("before", 13), ("during", 13), ("after", 13), ("connected", 14),
               ("greeted", 13), ("took", 14)]
    print(" " * 8 + "".join(f"{name:>{width}}" for name, width in columns))


def print_row(name, times):
    print(f"{name!s:<8}" + "%10.1f ms%10.1f ms%10.1f ms%11.1f ms%10.1f ms%11.1f ms"
          % tuple(1000 * seconds for seconds in times), flush=True)


def run_server(mode, ms):
    with Server([SERVER, "--mode", mode]) as server:
        print_row(mode, measure(server.address, ms))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--ms", type=int, default=1000, metavar="MS", help="of computing (default 1000)")
    add("host", metavar="HOST", nargs="?", default="127.0.0.1")
    add("port", metavar="PORT", nargs="?", type=int, help="ask this server only")
    options = parser.parse_args()
    if options.port is None and options.host.isdigit():
        options.host, options.port = "127.0.0.1", int(options.host)
    if options.port is not None and not 0 < options.port < 65536:
        parser.error("a port is a number from 1 to 65535")
    if not 0 <= options.ms <= 60000:
        parser.error("--ms takes 0 to 60000")

    if options.port is not None:
        times = measure((options.host, options.port), options.ms)
        print_heading(options.ms)
        print_row("", times)
    else:
        print_heading(options.ms)
        for mode in "block", "slices", "worker":
            run_server(mode, options.ms)


if __name__ == "__main__":
    program(main, "slow_client")
