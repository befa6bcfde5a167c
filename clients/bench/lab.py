"""What the benchmark runs: servers under test, each on a CPU of its own, and the load client on
another. bench.py and check.py decide what is measured, when and how often."""

import contextlib
import copy
import json
import os
import pathlib
import re
import select
import shutil
import socket
import sys

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "clients"))

from lib import figures, servers, tree      # noqa: E402
from lib.processes import allow_descriptors, capture    # noqa: E402
from lib.servers import Trouble             # noqa: E402

LOAD_CLIENT = TREE / "clients/load-client"
BASELINE = TREE / "clients/build/bench/baseline"
ENGINE = TREE / "clients/build/bench/engine"
SLOW_SYSCALLS = TREE / "clients/build/bench/slow_syscalls"
PATIENCE = 10       # seconds for a server to start, or to end
MINUTE = 60         # no run takes longer
DESCRIPTORS = 20000


class Subject:
    """A server that can be measured."""

    def __init__(self, name, command, model, step=None, mode="echo", capacity=None):
        self.name, self.command, self.model = name, command, model
        self.step = step            # its number; None for those that are no step of ours
        self.mode = mode            # what it speaks, as the load client calls it
        self.capacity = capacity    # clients at once; None: no limit of its own

    def __repr__(self):
        return self.name

    @property
    def is_step(self):
        return self.step is not None and "/" not in self.name

    def cannot_take(self, connections):
        """Why it cannot serve this many at once, in short; None if it can."""
        if self.capacity == 1 and connections > 1:
            return "one at a time"
        if self.capacity and connections > self.capacity:
            return f"max {self.capacity}"
        return None


def baseline():
    return Subject("baseline", [str(BASELINE)], "epoll, raw bytes", mode="raw")


def redis():
    """redis-server answering PING; None where it is not installed."""
    program = shutil.which("redis-server")
    return program and Subject(
        "redis PING", [program, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                       "--maxclients", "16000", "--tcp-backlog", "4096", "--port"],
        "epoll (its own ae)", mode="redis")


def slowed(subject, divisions):
    """The same server with slower system calls: see slow_syscalls.c."""
    slower = copy.copy(subject)
    slower.command = [str(SLOW_SYSCALLS), str(divisions), *subject.command]
    return slower


def price_of_a_call(divisions):
    """What a system call costs after this many divisions, in ns to the nearest ten; None where
    the system allows no such filter."""
    try:
        runs = [capture([str(SLOW_SYSCALLS), str(divisions)], MINUTE, prepare=on_cpu(cpus()[0]))
                for _ in range(3)]
    except OSError:
        return None
    if any(run.status != 0 for run in runs):
        return None
    return round(min(int(run.stdout) for run in runs), -1)


def find_subjects(steps=()):
    """Every step and variant that is built, in order; only of `steps` if given."""
    for server in tree.servers(TREE, steps):
        if tree.is_program(server.path) and not stand_in(server.variant):
            yield describe(server)


def stand_in(variant):
    """Where there is no kqueue, the variant runs over one that was made for its tests."""
    return variant == "kqueue" and sys.platform == "linux"


def describe(server):
    """Its Makefile says, for the suite, how many clients a server takes."""
    arguments = tree.suite_arguments(server)[0]
    limit = re.search(r"--capacity[ =](\d+)", " ".join(arguments))
    capacity = 1 if "--serial" in arguments else int(limit.group(1)) if limit else None
    model = server.area.name.partition("_")[2].replace("_", " ")
    name = f"step{server.step}" + (f"/{server.variant}" if server.variant else "")
    return Subject(name, [str(server.path), "--quiet"], server.variant or model, server.step,
                   capacity=capacity)


def cpus():
    """The CPU for the servers and the one for the load; the same if there is only one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    return allowed[-1], allowed[0]


def raise_limit():
    """Raise the limit of open files, for us and what we start, as far as needed and allowed."""
    allow_descriptors(DESCRIPTORS)


def on_cpu(cpu):
    def prepare():
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
    return prepare


class Server(servers.Server):
    """A running server: `with Server(subject) as server`. It takes time to end, because it
    frees its memory and closes its connections: fork has a process for each."""

    def __init__(self, subject, *arguments):
        self.subject = subject
        super().__init__([*subject.command, *arguments], patience=PATIENCE,
                         port=servers.free_port() if subject.mode == "redis" else 0,
                         prepare=on_cpu(cpus()[0]))

    def cpu_seconds(self):
        return figures.cpu_seconds_with_children(self.pid)

    def load(self, **options):
        """Runs the load client against it and returns its report."""
        options = {"mode": self.subject.mode, "server_pid": self.pid, "json": "-", **options}
        command = [str(LOAD_CLIENT)]
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        client = capture([*command, "127.0.0.1", str(self.port)], MINUTE,
                         prepare=on_cpu(cpus()[1]))
        if client.trouble:
            raise Trouble(f"{self.subject.name}: the load client failed: {client.trouble}")
        if not client.stdout:
            raise Trouble(f"{self.subject.name}: {client.stderr.strip()}")
        return json.loads(client.stdout)


class Idle:
    """Connections that stay idle: `with Idle(server, 100)`."""

    def __init__(self, server, count):
        self.sockets = [socket.create_connection(("127.0.0.1", server.port))
                        for _ in range(count)]
        if server.subject.mode == "echo" and server.subject.capacity != 1:
            self.await_greetings()

    def await_greetings(self):
        """Of all, or of as many as a pool of threads serves: until none comes for a second."""
        waiting = {sock.fileno() for sock in self.sockets}
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLIN)
        while waiting:
            greeted = {number for number, _ in poll.poll(1000)}
            if not greeted:
                break
            waiting -= greeted
            for number in greeted:
                poll.unregister(number)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for sock in self.sockets:
            sock.close()


def machine():
    """Where the figures come from, in a line."""
    model = "unknown CPU"
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", pathlib.Path("/proc/cpuinfo").read_text(),
                          re.MULTILINE)
        model = found.group(1) if found else model
    system = os.uname()
    release = re.match(r"[\d.]*", system.release)[0].rstrip(".")
    return (f"{model}, {os.cpu_count()} CPU{'s'[:os.cpu_count() - 1]}, {system.sysname} "
            f"{release}")


def sanitized():
    """Were the servers built with sanitizers?"""
    return any("-fsanitize" in flags.read_text() for flags in TREE.glob("*/build/flags"))


def need(*programs):
    """Fails with a clear message when something was not built."""
    for program in programs:
        if not os.access(program, os.X_OK):
            raise Trouble(f"{program.relative_to(TREE)} is not built: run make first")
