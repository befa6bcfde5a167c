#!/usr/bin/env python3
"""What N idle connections cost a server: threads, and memory reserved and used.

Compare the memory that is reserved: the size of a stack is chosen by the system or by the
program. Then see how little of it becomes resident: a page costs nothing before it is touched.
In the second part idle clients use up all threads, and --max-clients and --idle-timeout help.
Needs Linux's /proc.
"""

import argparse
import os
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib import figures, servers            # noqa: E402
from lib.processes import allow_descriptors, program    # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
STEP2 = os.path.join(HERE, "..", "server")
DEFAULT_STACKS = os.path.join(HERE, "..", "build", "demos", "default_stacks")
STEP6 = os.path.join(HERE, "..", "..", "step6_epoll", "server")
MESSAGE = b"^" + b"a" * 60000 + b"$"
PATIENCE = 60


class Server(servers.Server):
    """A running server: `with Server(PROGRAM, OPTION...) as server`."""

    def __init__(self, *command):
        super().__init__([*command, "--quiet"])

    def crowd(self, count):
        """This many clients that were greeted, and are idle."""
        clients = [self.connect(PATIENCE) for _ in range(count)]
        for client in clients:
            if client.recv(1) != b"*":
                raise OSError("a client was not greeted")
        return clients

    def status(self):
        """The number of threads, and memory in KiB: reserved, resident, page tables."""
        return [figures.threads(self.pid)] + [
            figure(self.pid) // 1024 for figure in (
                figures.virtual_bytes, figures.resident_bytes, figures.page_table_bytes)]

    def settle(self, threads):
        """Wait until at most `threads` of them are left: each closes its client, then ends.
        Give up after two seconds: with a thread sanitizer, its own thread stays."""
        deadline = time.monotonic() + 2
        while self.status()[0] > threads and time.monotonic() < deadline:
            time.sleep(0.01)


def exchange(clients):
    """Each sends a long message, reads the answer, and is idle again."""
    for client in clients:
        client.sendall(MESSAGE)
        with client.makefile("rb") as answers:
            if answers.read(len(MESSAGE) - 2) != b"b" * (len(MESSAGE) - 2):
                raise OSError("a client got a wrong answer")


def close_all(clients):
    for client in clients:
        client.close()


def cost_row(name, program, count, active=False):
    with Server(program) as server:
        alone = server.status()[0]
        close_all(server.crowd(1))      # whatever is set up only once is set up now
        server.settle(alone)
        before = server.status()
        clients = server.crowd(count)
        if active:
            exchange(clients)
        after = server.status()
        close_all(clients)
    memory = [(b - a) / count for a, b in zip(before[1:], after[1:])]
    reserved, resident, tables = memory
    print(f"  {name:<34} {after[0]:7} {reserved:10.1f} KiB {resident:9.1f} KiB "
          f"{tables:9.1f} KiB", flush=True)


def cost_table(count):
    print(f"{count} idle connections:\n")
    print(f"  {'':<34} {'threads':>7} {'reserved':>14} {'resident':>13} {'page tables':>13}")
    print(f"  {'':<34} {'':>7} {'each':>14} {'each':>13} {'each':>13}")
    for name, server, *active in (("step 2, stacks by default", DEFAULT_STACKS),
                                  ("step 2, stacks of 256 KiB", STEP2),
                                  ("the same, after 60 KB from each", STEP2, True),
                                  ("step 6, no thread", STEP6)):
        if os.access(server, os.X_OK):
            cost_row(name, server, count, *active)
        else:
            print(f"  {name!s:<34} is not built")


def attack(most, seconds):
    print(f"\nIdle clients against step 2 with --max-clients {most} --idle-timeout "
          f"{seconds}:\n")
    with Server(STEP2, "--max-clients", str(most), "--idle-timeout", str(seconds)) as server:
        def tell(what, reason=""):
            print((f"  {what!s:<36} {server.status()[0]:4} threads   {reason}").rstrip(),
                  flush=True)

        began, alone = time.monotonic(), server.status()[0]
        idle = server.crowd(most)
        tell(f"{most} are connected, and stay idle")
        with server.connect() as client:
            tell("the next is " + ("accepted" if client.recv(1) else "rejected"),
                 "<- --max-clients")
        for client in idle:
            if client.recv(1) != b"":
                raise OSError("an idle client was sent something")
        seconds_in = time.monotonic() - began
        server.settle(alone)
        tell(f"after {seconds_in:.1f} s all of them are closed", "<- --idle-timeout")
        close_all(idle)
        with server.connect() as client:
            client.recv(1)
            client.sendall(b"^abc$")
            answer = client.recv(3, socket.MSG_WAITALL)
            tell("the next is " + ("served" if answer == b"bcd" else "not served"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("-n", "--connections", type=int, default=1000, metavar="N",
        help="how many idle connections (default 1000)")
    options = parser.parse_args()
    if options.connections < 1:
        parser.error(f"-n {options.connections}: expected at least 1")
    if allow_descriptors(options.connections + 64) < options.connections + 64:
        raise OSError(f"{options.connections} connections need more descriptors than "
                      "ulimit -Hn allows")
    cost_table(options.connections)
    attack(50, 2)


if __name__ == "__main__":
    program(main, "idle_threads")
