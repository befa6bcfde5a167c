#!/usr/bin/env python3
"""The dilemma of step 4 in numbers: its server with several intervals, and step 5's, which
needs none, serve the same clients.

Watch the columns of CPU time and of answer times: with every interval one of the two is bad.
Nearly every recv call returns EAGAIN. The row of select shows that this need not be.
"""

import argparse
import json
import os
import pathlib
import random
import socket
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "clients"))

from lib.processes import program           # noqa: E402
from lib.servers import Server              # noqa: E402

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
POLLING = os.path.join(ROOT, "step4_nonblocking_poll", "server")
SELECT = os.path.join(ROOT, "step5_select", "server")
PAUSE = 0.05, 0.25      # seconds, shortest and longest, between two messages of a client
PATIENCE = 30


def converse(address, seed, until, times):
    """One client: a message every now and then; how long each answer took goes to times."""
    chance = random.Random(seed)
    with socket.create_connection(address, PATIENCE) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.recv(1)    # the greeting
        while True:
            time.sleep(chance.uniform(*PAUSE))
            if time.monotonic() > until:
                return
            began, missing = time.monotonic(), 3
            sock.sendall(b"^abc$")
            while missing > 0:
                came = len(sock.recv(missing))
                if came == 0:
                    raise ConnectionError("the server closed the connection")
                missing -= came
            times.append(time.monotonic() - began)


def crowd(address, clients, seconds):
    """Let all clients send for `seconds`. Return the answer times."""
    times, errors, until = [], [], time.monotonic() + seconds

    def client(seed):
        try:
            converse(address, seed, until, times)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=client, args=(seed,)) for seed in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return times


def measure(command, clients, seconds):
    """Run a server for the crowd. Return its costs and the answer times."""
    with tempfile.TemporaryDirectory() as folder:
        costs = os.path.join(folder, "stats.json")
        with Server([*command, "--quiet", "--stats", costs]) as server:
            times = crowd(server.address, clients, seconds)
        with open(costs, encoding="ascii") as file:
            return json.load(file), times


def row(name, cost, times, seconds):
    cpu = cost["cpu_user_seconds"] + cost["cpu_system_seconds"]
    empty = 100 * cost["recv_again"] / max(1, cost["recv_calls"])
    return (f"{name:<16} {1000 * cpu:6.0f} ms {100 * cpu / seconds:4.0f} % "
            f"{cost['recv_calls']:12} {empty:8.1f} % "
            f"{1000 * statistics.median(times):13.2f} ms")


def compare(clients, seconds, intervals):
    print(f"{clients} clients, each with a message every {1000 * PAUSE[0]:.0f} to "
          f"{1000 * PAUSE[1]:.0f} ms, for {seconds:g} s:\n")
    print(f"{'':<16} {'CPU time used':>16} {'recv calls':>12} {'EAGAIN':>10} "
          f"{'median answer':>16}")
    commands = [(f"interval {ms} ms", [POLLING, "--interval-ms", str(ms)])
                for ms in intervals] + [("select (step 5)", [SELECT])]
    for name, command in commands:
        print(row(name, *measure(command, clients, seconds), seconds), flush=True)


def main():
    parser = argparse.ArgumentParser(description="What does an interval cost?")
    add = parser.add_argument
    add("--clients", type=int, default=8, metavar="N", help="how many clients (default 8)")
    add("--seconds", type=float, default=3, metavar="S",
        help="how long each server runs (default 3)")
    add("intervals", type=int, nargs="*", default=[0, 1, 20, 200], metavar="MS",
        help="the intervals to try (default 0 1 20 200)")
    options = parser.parse_args()
    if not 1 <= options.clients <= 500:
        parser.error(f"--clients {options.clients}: expected 1 to 500")
    if not 1 <= options.seconds <= 600:
        parser.error(f"--seconds {options.seconds:g}: expected 1 to 600")
    for ms in options.intervals:
        if not 0 <= ms <= 10000:
            parser.error(f"{ms}: expected an interval from 0 to 10000 ms")
    compare(options.clients, options.seconds, options.intervals)


if __name__ == "__main__":
    program(main, "intervals")
