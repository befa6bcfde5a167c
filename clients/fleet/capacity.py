#!/usr/bin/env python3
"""Measure what one HAProxy carries in front of three servers of step 6, and what it costs.

CPU time for each message and each visit, and memory for each idle connection: figures that
hardly depend on what else this machine does. It takes about half a minute.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = str(HERE), str(HERE.parent)          # also with PYTHONSAFEPATH

from lib import figures, processes, reports     # noqa: E402
from lib.servers import Server                  # noqa: E402
from machines import Balancer, haproxy, program     # noqa: E402
from visits import Guest                        # noqa: E402

LOAD_CLIENT = pathlib.Path(__file__).resolve().parents[1] / "load-client"
SOCKET_OBJECTS = "TCP", "sock_inode_cache", "filp", "dentry", "eventpoll_epi"


class Cost:
    """CPU seconds of HAProxy, and of the servers, from now on."""

    def __init__(self, front, servers):
        self.pids = [[front.process.pid], [server.pid for server in servers]]
        self.before = self.now()

    def now(self):
        return [sum(map(figures.cpu_seconds, pids)) for pids in self.pids]

    def microseconds(self, count):
        return [(now - before) / max(1, count) * 1e6
                for now, before in zip(self.now(), self.before)]


def load(address, connections, seconds):
    """Messages answered: every answer is checked."""
    with tempfile.NamedTemporaryFile() as file:
        done = processes.capture(
            [str(LOAD_CLIENT), "-c", str(connections), "-d", str(seconds), "-w", "0",
             "--json", file.name, *map(str, address)], seconds + 20)
        if done.status != 0:
            raise processes.Trouble(f"load-client: {done.stderr.strip() or done.trouble}")
        return json.load(file)["messages"]


def messages(front, servers, seconds):
    print("\nCPU time for each message of 32 bytes\n"
          "connections   messages/s     HAProxy   server   server without HAProxy")
    for connections in 10, 100, 1000:
        alone = Cost(front, servers)
        count = load(servers[0].address, connections, seconds)
        without = alone.microseconds(count)[1]
        cost = Cost(front, servers)
        count = load(front.address, connections, seconds)
        balancer, server = cost.microseconds(count)
        print(f"{connections:11} {count / seconds:12,.0f} {balancer:8.1f} µs "
              f"{server:5.1f} µs {without:14.1f} µs", flush=True)


def visits(front, servers, seconds):
    cost, count, deadline = Cost(front, servers), 0, time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.closing(Guest(front.address)) as guest:
            if not (guest.is_greeted() and guest.is_served()):
                raise processes.Trouble("a visitor was not served")
        count += 1
    balancer, server = cost.microseconds(count)
    print("\nCPU time for each visit (connect, one message, close): "
          f"HAProxy {balancer:.0f} µs, server {server:.0f} µs", flush=True)


def idle(front, servers, count):
    def resident():
        return (figures.resident_bytes(front.process.pid),
                sum(figures.resident_bytes(server.pid) for server in servers))

    with contextlib.ExitStack() as stack:
        before = resident()
        for _ in range(count):
            stack.enter_context(contextlib.closing(Guest(front.address)))
        front.wait(lambda states: sum(state.now for state in states.values()) >= count, 20,
                   "all are connected")
        after = resident()
    balancer, server = ((now - then) / count for now, then in zip(after, before))
    print(f"\nMemory for each of {count:,} idle connections: HAProxy {balancer:,.0f} bytes, "
          f"server {server:,.0f} bytes")
    with contextlib.suppress(OSError), open("/proc/slabinfo", encoding="ascii") as lines:
        sizes = {line.split()[0]: int(line.split()[3]) for line in lines
                 if line.split()[0] in SOCKET_OBJECTS}
        print(f"In the kernel, each socket: {sum(sizes.values()):,} bytes (" + ", ".join(
            f"{name} {size}" for name, size in sorted(sizes.items())) + ")")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--seconds", type=int, choices=range(1, 61), metavar="S", default=4,
                        help="of each measurement, from 1 to 60 (4)")
    settings = parser.parse_args()
    if not haproxy():
        return reports.unavailable("capacity", "haproxy is not installed")
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(Server([program(6), "--quiet"])) for _ in range(3)]
        front = stack.enter_context(Balancer(
            {f"s{number}": server.address for number, server in enumerate(servers, 1)}))
        front.wait_until_up()
        messages(front, servers, settings.seconds)
        visits(front, servers, settings.seconds)
        idle(front, servers, min(4000, os.sysconf("SC_OPEN_MAX") // 4))
    return 0


if __name__ == "__main__":
    processes.program(main, name="capacity.py")
