#!/usr/bin/env python3
"""Shows how workers share the clients of one port, and what happens when one of them hangs.

Each way of sharing gets the same clients. First they come one after another: each connects when
the one before it has been greeted. The table shows how many each worker has served. Then the
last worker is suspended, so that it hangs, and as many clients come at once. The table shows
how many of them were never greeted.

A worker that is a process is suspended by SIGSTOP, a thread by ptrace(2). Exit status: 0 the
table is complete, 1 a server did not start or a thread could not be suspended, 2 wrong command
line.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import select
import signal
import socket
import sys
import tempfile
import time
from collections import namedtuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "clients"))
from lib import figures     # noqa: E402
from lib.processes import POLL, SIGNALS, Trouble, program   # noqa: E402
from lib.servers import Server  # noqa: E402

PREFORK = ROOT / "step2_thread_per_client/build/variants/prefork"
WORKERS = ROOT / "step6_epoll/build/variants/workers"
GREETING_SECONDS = 10
HUNG_SECONDS = 1    # without a greeting; then those that wait are never greeted
PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WAIT_FOR_THREADS = 0x40000000

Way = namedtuple("Way", "name command")
WAYS = [Way("processes that block in accept", [PREFORK])] + [
    Way(f"--share {word}", [WORKERS, "--share", word])
    for word in ("accept", "listener", "exclusive", "reuseport")]


def is_prefork(way):
    return way.command[0] == PREFORK


def await_condition(condition, what):
    deadline = time.monotonic() + GREETING_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise Trouble(what)
        time.sleep(POLL)


def worker_ids(server, way, count):
    """The process or thread ids of the workers, once all of them run."""
    def found():
        if is_prefork(way):
            return sorted(entry.pid for entry in figures.table().values()
                          if entry.parent == server.pid)
        return sorted(map(int, os.listdir(f"/proc/{server.pid}/task")))

    await_condition(lambda: len(found()) >= count, "not all workers have started")
    return found()


def state(pid, tid):
    with open(f"/proc/{pid}/task/{tid}/stat", encoding="utf-8") as file:
        return file.read().rpartition(")")[2].split()[0]


def ptrace(request, tid):
    call = ctypes.CDLL(None, use_errno=True).ptrace
    call.argtypes = [ctypes.c_long] * 4
    if call(request, tid, 0, 0) == -1:
        raise Trouble(f"cannot suspend a thread: {os.strerror(ctypes.get_errno())}")


def let_run(pid, tid):
    """Whatever was done so far to suspend the thread: it runs from now on."""
    with open(f"/proc/{pid}/task/{tid}/status", encoding="utf-8") as file:
        if "TracerPid:\t0\n" in file.read():
            return
    ptrace(PTRACE_INTERRUPT, tid)
    await_condition(lambda: state(pid, tid) == "t", "a worker does not stop")
    ptrace(PTRACE_DETACH, tid)


@contextlib.contextmanager
def before_the_end(action):
    """If a signal ends this program meanwhile, the action comes first."""
    def both(number, frame):
        action()
        handlers[number](number, frame)

    handlers = {number: signal.getsignal(number) for number in SIGNALS
                if callable(signal.getsignal(number))}
    for number in handlers:
        signal.signal(number, both)
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@contextlib.contextmanager
def suspended(server, way, count):
    """The last worker does not run."""
    victim = worker_ids(server, way, count)[-1]
    if is_prefork(way):
        with before_the_end(lambda: os.kill(victim, signal.SIGCONT)):
            os.kill(victim, signal.SIGSTOP)
            await_condition(lambda: state(victim, victim) == "T", "a worker does not stop")
            yield
            os.kill(victim, signal.SIGCONT)
    else:
        with before_the_end(lambda: let_run(server.pid, victim)):
            ptrace(PTRACE_SEIZE, victim)
            ptrace(PTRACE_INTERRUPT, victim)
            os.waitpid(victim, WAIT_FOR_THREADS)
            yield
            let_run(server.pid, victim)


def clients_one_after_another(server, way, count):
    """Each stays connected, if a worker can serve more than one client."""
    with contextlib.ExitStack() as all_of_them:
        for _ in range(count):
            client = all_of_them.enter_context(server.connect(GREETING_SECONDS))
            if client.recv(1) != b"*":
                raise Trouble("a client was not greeted")
            if is_prefork(way):
                client.close()


def clients_at_once(server, count):
    """Each leaves when it is greeted. Returns how many were never greeted."""
    waiting, ready = {}, select.poll()
    with contextlib.ExitStack() as all_of_them:
        for _ in range(count):
            client = all_of_them.enter_context(socket.create_connection(server.address))
            waiting[client.fileno()] = client
            ready.register(client, select.POLLIN)
        deadline = time.monotonic() + HUNG_SECONDS
        while waiting and time.monotonic() < deadline:
            for number, _ in ready.poll(50):
                ready.unregister(number)
                client = waiting.pop(number)
                if client.recv(1) != b"*":
                    raise Trouble("a client was not greeted")
                client.close()
                deadline = time.monotonic() + HUNG_SECONDS
        return len(waiting)


@contextlib.contextmanager
def running(way, workers, stats="/dev/null"):
    command = [*way.command, "--workers", str(workers), "--quiet", "--stats", stats]
    with Server(command) as server:
        worker_ids(server, way, workers)
        yield server


def served(way, workers, clients):
    """How many clients each worker has served."""
    with tempfile.NamedTemporaryFile() as stats:
        with running(way, workers, stats.name) as server:
            clients_one_after_another(server, way, clients)
        return json.load(stats)["workers"]


def never_greeted(way, workers, clients):
    with running(way, workers) as server, suspended(server, way, workers):
        return clients_at_once(server, clients)


def natural(text):
    if not text.isdigit() or not 2 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 2 to 1000")
    return int(text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clients", type=natural, default=200, metavar="N",
                        help="how many clients (default 200)")
    parser.add_argument("--workers", type=natural, default=4, metavar="N",
                        help="how many workers (default 4)")
    options = parser.parse_args()
    for path in PREFORK, WORKERS:
        if not os.access(path, os.X_OK):
            raise Trouble(f"{path.relative_to(ROOT)} is not built: run make")
    print(f"{options.clients} clients, {options.workers} workers\n\n"
          f"{'':32}{'clients served by each worker':{5 * options.workers + 2}}"
          f"  one worker hangs:\n{'':{32 + max(5 * options.workers + 2, 29)}}"
          f"  never greeted", flush=True)
    for way in WAYS:
        each = served(way, options.workers, options.clients)
        print(f"{way.name:32}{' '.join(f'{n:4}' for n in each):{29}}", end="", flush=True)
        lost = never_greeted(way, options.workers, options.clients)
        print(f"  {lost:13}", flush=True)
    return 0


if __name__ == "__main__":
    program(main, "sharing")
