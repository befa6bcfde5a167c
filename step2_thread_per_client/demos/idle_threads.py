#!/usr/bin/env python3
"""What N idle connections cost a server: threads, and memory reserved and used.

Watch, from row to row, the virtual memory: what a stack reserves depends on who chose its
size. Watch how little of it becomes resident: nobody pays for a page before touching it. Then
watch silent clients take all the room there is, and --max-clients and --idle-timeout deal
with them. Needs Linux's /proc.
"""

import argparse
import os
import resource
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
STEP2 = os.path.join(HERE, "..", "server")
DEFAULT_STACKS = os.path.join(HERE, "..", "build", "demos", "default_stacks")
STEP6 = os.path.join(HERE, "..", "..", "step6_epoll", "server")
PATIENCE = 60


class Server:
    """A running server: `with Server(PROGRAM, OPTION...) as server`."""

    def __init__(self, *command):
        self.process = subprocess.Popen([*command, "--quiet", "0"], stdout=subprocess.PIPE,
                                        encoding="utf-8")
        words = self.process.stdout.readline().rpartition(":")
        if not words[2].strip().isdigit():
            raise OSError(f"{command[0]} does not start")
        self.port = int(words[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.stdout.read()
        self.process.stdout.close()
        self.process.wait()

    def connect(self):
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    def crowd(self, count):
        """So many clients who were greeted, and are silent."""
        clients = [self.connect() for _ in range(count)]
        for client in clients:
            if client.recv(1) != b"*":
                raise OSError("a client was not greeted")
        return clients

    def status(self):
        """The number of threads, and memory in KiB: /proc/PID/status, but what is resident from
        smaps_rollup, which counts the pages, where VmRSS lags behind by some."""
        lines = {}
        for name in "status", "smaps_rollup":
            with open(f"/proc/{self.process.pid}/{name}", encoding="ascii") as file:
                lines.update(line.split(":", 1) for line in file if ":" in line)
        return [int(lines[key].split()[0]) for key in ("Threads", "VmSize", "Rss", "VmPTE")]

    def settle(self, threads):
        """Wait until no more threads than that are left: each closes its client, then ends.
        Not for long, because a thread sanitizer's own stays."""
        deadline = time.monotonic() + 2
        while self.status()[0] > threads and time.monotonic() < deadline:
            time.sleep(0.01)


def close_all(clients):
    for client in clients:
        client.close()


def cost_row(name, program, count):
    with Server(program) as server:
        alone = server.status()[0]
        close_all(server.crowd(1))      # whatever is set up only once is set up now
        server.settle(alone)
        before = server.status()
        clients = server.crowd(count)
        after = server.status()
        close_all(clients)
    memory = [(b - a) / count for a, b in zip(before[1:], after[1:])]
    print("  %-34s %7d %10.1f KiB %9.1f KiB %9.1f KiB" % (name, after[0], *memory), flush=True)


def cost_table(count):
    print(f"{count} idle connections:\n")
    print(f"  {'':<34} {'threads':>7} {'reserved':>14} {'resident':>13} {'page tables':>13}")
    print(f"  {'':<34} {'':>7} {'each':>14} {'each':>13} {'each':>13}")
    for name, program in (("step 2, stacks by default", DEFAULT_STACKS),
                          ("step 2, stacks of 256 KiB", STEP2), ("step 6, no thread", STEP6)):
        if os.access(program, os.X_OK):
            cost_row(name, program, count)
        else:
            print(f"  {name!s:<34} is not built")


def attack(most, seconds):
    print(f"\nSilent clients against step 2 with --max-clients {most} --idle-timeout "
          f"{seconds}:\n")
    with Server(STEP2, "--max-clients", str(most), "--idle-timeout", str(seconds)) as server:
        def tell(what, reason=""):
            print((f"  {what!s:<36} {server.status()[0]:4} threads   {reason}").rstrip(),
                  flush=True)

        began, alone = time.monotonic(), server.status()[0]
        silent = server.crowd(most)
        tell(f"{most} are in, and never say a word")
        with server.connect() as client:
            tell("the next is " + ("in" if client.recv(1) else "turned away"),
                 "<- --max-clients")
        for client in silent:
            if client.recv(1) != b"":
                raise OSError("a silent client was sent something")
        gone = time.monotonic() - began
        server.settle(alone)
        tell(f"after {gone:.1f} s all of them are dropped", "<- --idle-timeout")
        close_all(silent)
        with server.connect() as client:
            client.recv(1)
            client.sendall(b"^abc$")
            answer = client.recv(3, socket.MSG_WAITALL)
            tell("the next is " + ("served" if answer == b"bcd" else "not served"))


def allow_descriptors(count):
    """For us and the servers, which inherit it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise OSError(f"{count} connections need more descriptors than ulimit -Hn allows")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("-n", "--connections", type=int, default=1000, metavar="N",
        help="how many (default 1000)")
    options = parser.parse_args()
    if options.connections < 1:
        parser.error("there must be a connection")
    allow_descriptors(options.connections + 64)
    cost_table(options.connections)
    attack(50, 2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as problem:
        sys.exit(f"idle_threads: {problem}")
