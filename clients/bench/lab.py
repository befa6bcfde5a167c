"""The laboratory of the benchmark: servers under test, each on a CPU of its own, and the load
client on another. What is measured, when and how often, is decided by bench.py and check.py."""

import contextlib
import copy
import json
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
LOAD_CLIENT = TREE / "clients/load-client"
BASELINE = TREE / "clients/build/bench/baseline"
ENGINE = TREE / "clients/build/bench/engine"
SLOW_SYSCALLS = TREE / "clients/build/bench/slow_syscalls"
PATIENCE = 10       # seconds for a server to start, or to end
MINUTE = 60         # no run takes longer
DESCRIPTORS = 20000


class Trouble(Exception):
    """Something that makes measuring impossible; its text is for people."""


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
        """Why it cannot serve so many at once, in a word or two; None if it can."""
        if self.capacity == 1 and connections > 1:
            return "one at a time"
        if self.capacity and connections > self.capacity:
            return "max %d" % self.capacity
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
    """What a system call costs behind so many divisions, in ns to the nearest ten; None where
    the system allows no such filter."""
    try:
        runs = [subprocess.run([str(SLOW_SYSCALLS), str(divisions)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, preexec_fn=on_cpu(cpus()[0]))
                for _ in range(3)]
    except OSError:
        return None
    if any(run.returncode for run in runs):
        return None
    return round(min(int(run.stdout) for run in runs), -1)


def free_port():
    """For a server that cannot find one itself."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_subjects(steps=()):
    """Every step and variant that is built, in order; only of `steps` if given."""
    for area in sorted(TREE.glob("step*_*")):
        number, _, model = area.name[len("step"):].partition("_")
        if steps and int(number) not in steps:
            continue
        for source in [area / "server.c", *sorted(area.glob("variants/*.c"))]:
            variant = "" if source.stem == "server" else source.stem
            server = area / "build/variants" / variant if variant else area / "server"
            if os.access(server, os.X_OK) and not stand_in(variant):
                yield describe(area, server, int(number), model.replace("_", " "), variant)


def stand_in(variant):
    """Where there is no kqueue, the variant runs over one that was made for its tests."""
    return variant == "kqueue" and sys.platform == "linux"


def describe(area, server, number, model, variant):
    """How many clients a server takes is said in its Makefile, for the suite."""
    said = subprocess.run(
        ["make", "-s", "--no-print-directory", "-C", str(area), "print-suite-args"]
        + (["VARIANT=" + variant] if variant else []),
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8").stdout
    limit = re.search(r"--capacity[ =](\d+)", said)
    capacity = 1 if "--serial" in said else int(limit.group(1)) if limit else None
    name = "step%d" % number + ("/" + variant if variant else "")
    return Subject(name, [str(server), "--quiet"], variant or model, number,
                   capacity=capacity)


def cpus():
    """The CPU for the servers and the one for the load; the same one where there is but one."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [None]
    return allowed[-1], allowed[0]


def raise_limit():
    """Of open files, for us and what we start: as far as needed and allowed."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    soft = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def on_cpu(cpu):
    def prepare():
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})
    return prepare


class Server:
    """A running server: `with Server(subject) as server`."""

    def __init__(self, subject, *arguments):
        self.subject = subject
        self.port = free_port() if subject.mode == "redis" else None
        command = subject.command + [*arguments, str(self.port or 0)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT, preexec_fn=on_cpu(cpus()[0]))
        try:
            self.await_port()
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Its memory and its connections take time to go: for fork, a process each."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def output(self):
        self.log.seek(0)
        return self.log.read().decode("utf-8", "replace")

    def await_port(self):
        """Ours say where they listen once they do; redis is asked until it answers."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            if self.port:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", self.port)).close()
                    return
            found = re.search(r"^Listening on .*:(\d+)\n", self.output(), re.MULTILINE)
            if found:
                self.port = int(found.group(1))
                return
            time.sleep(0.005)
        raise Trouble("%s does not start: %s" % (self.subject.name,
                                                 self.output().partition("\n")[0]))

    def cpu_seconds(self):
        """User and system so far, by the CPU clocks of the process and of those it forked:
        they count nanoseconds."""
        pid, children = self.process.pid, ""
        with contextlib.suppress(OSError):
            children = pathlib.Path("/proc/%d/task/%d/children" % (pid, pid)).read_text()
        total = 0
        for each in [pid, *map(int, children.split())]:
            with contextlib.suppress(OSError):      # it may just have ended
                total += time.clock_gettime((~each << 3) | 2)
        return total

    def load(self, **options):
        """Runs the load client against it and returns its report."""
        options = {"mode": self.subject.mode, "server_pid": self.process.pid, "json": "-",
                   **options}
        command = [str(LOAD_CLIENT)]
        for name, value in options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        try:
            client = subprocess.run(command + ["127.0.0.1", str(self.port)], timeout=MINUTE,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    preexec_fn=on_cpu(cpus()[1]), encoding="utf-8")
        except subprocess.TimeoutExpired:
            raise Trouble("%s: still not done after a minute" % self.subject.name) from None
        if not client.stdout:
            raise Trouble("%s: %s" % (self.subject.name, client.stderr.strip()))
        return json.loads(client.stdout)


class Silent:
    """Connections that say nothing: `with Silent(server, 100)`."""

    def __init__(self, server, count):
        self.sockets = [socket.create_connection(("127.0.0.1", server.port))
                        for _ in range(count)]
        if server.subject.mode == "echo" and server.subject.capacity != 1:
            self.await_greetings()

    def await_greetings(self):
        """Of all, or of as many as a pool of threads has room for: until a second without."""
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
    return "%s, %d CPU%s, %s %s" % (
        model, os.cpu_count(), "s"[:os.cpu_count() - 1], system.sysname,
        re.match(r"[\d.]*", system.release)[0].rstrip("."))


def sanitized():
    """Were the servers built with sanitizers?"""
    return any("-fsanitize" in flags.read_text() for flags in TREE.glob("*/build/flags"))


def need(*programs):
    """Fails with a clear message when something was not built."""
    for program in programs:
        if not os.access(program, os.X_OK):
            raise Trouble("%s is not built: run make first" % program.relative_to(TREE))
