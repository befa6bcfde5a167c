#!/usr/bin/env python3
"""Famous bugs and the tools that catch them.

    common/lessons/gallery.py               catch them all: a line for each
    common/lessons/gallery.py NAME...       these: what the tool says, and the difference

Each program stands in gallery/wrong/, and its corrected twin in gallery/right/. The tool must
complain about the one and not about the other. Exit status: 0 it is so, 1 it is not, 2 called
wrongly.
"""

import argparse
import contextlib
import difflib
import os
import pathlib
import re
import shutil
import signal
import socket
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from claims import Undecided                            # noqa: E402
from claims.lab import BUILD, compile_c, unread, until      # noqa: E402
from lib import figures, processes, servers             # noqa: E402

GALLERY = HERE / "gallery"
README = GALLERY / "README.md"
SANITIZED = "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"
RUN = 0.4           # seconds for a program that may never end
TWINS = "wrong", "right"


class Catch:
    """How a program is caught: the function returns what the tool says, or "" if nothing."""

    all = {}

    def __init__(self, tool):
        self.tool = tool

    def __call__(self, function):
        self.function, self.name = function, function.__name__
        Catch.all[self.name] = self
        return self

    def source(self, twin):
        found = sorted((GALLERY / twin).glob(f"{self.name}.*"))
        return found[0]

    def complaint(self, twin):
        return self.function(self.source(twin)).strip()

    def difference(self):
        texts = [self.source(twin).read_text(encoding="utf-8").splitlines() for twin in TWINS]
        return "\n".join(difflib.unified_diff(
            *texts, *(f"{twin}/{self.source(twin).name}" for twin in TWINS), lineterm="", n=1))


def command(source, *flags):
    """How to run it: built with these flags if it is written in C."""
    if source.suffix == ".py":
        return [sys.executable, str(source)]
    suffix = "-sanitized" if flags else ""
    program = BUILD / "gallery" / f"{source.parent.name}-{source.stem}{suffix}"
    return [str(compile_c(source, program, *flags))]


class Running:
    """A program with a socket as its input: `with Running(command) as (process, socket)`."""

    def __init__(self, words, **options):
        self.ours, theirs = socket.socketpair()
        options.setdefault("stdin", theirs)
        self.process = processes.Process(words, env=plain_sanitizers(), **options)
        theirs.close()

    def __enter__(self):
        return self.process, self.ours

    def __exit__(self, *_):
        self.ours.close()
        self.process.end()


def plain_sanitizers():
    """Their complaints are meant here, and belong on the error output, wherever others go."""
    return {name: value for name, value in os.environ.items()
            if not name.endswith("SAN_OPTIONS")}


def what_sanitizer_says(process):
    """The first line of the report, after the program has ended."""
    if process.wait(10) is None:
        raise Undecided("the program did not end")
    found = re.search(r"(ERROR: AddressSanitizer: \S+|runtime error: [^\n]*)",
                      process.output(1 << 20))
    return found[0] if found else ""


def share_of_processor(process):
    """Over some time, from now on."""
    before, began = figures.cpu_seconds(process.pid), time.monotonic()
    process.wait(RUN)
    if process.poll() is not None:
        return 0.0
    return (figures.cpu_seconds(process.pid) - before) / (time.monotonic() - began)


def counted_calls(process, call):
    """How often a running program makes a system call, in the lines of strace."""
    if shutil.which("strace") is None:
        raise Undecided("strace is not installed")
    done = processes.capture(["timeout", str(RUN), "strace", "-f", "-e", f"trace={call}",
                              "-p", str(process.pid)], 20)
    if "ptrace" in done.stderr and "denied" in done.stderr:
        raise Undecided("strace may not look at a running program here")
    lines = [line for line in done.stderr.splitlines() if f"{call}(" in line]
    return len(lines), re.sub(r" +", " ", lines[0]) if lines else ""


@Catch("UndefinedBehaviorSanitizer, with eight clients")
def array_by_descriptor(source):
    with servers.Server(command(source, *SANITIZED), env=plain_sanitizers()) as server:
        clients = [server.connect() for _ in range(8)]
        for client in clients:
            client.send(b"x")
        until(lambda: server.poll() is not None or server.output().count("bytes") == 8, 1)
        for client in clients:
            client.close()
        return what_sanitizer_says(server)


@Catch("UndefinedBehaviorSanitizer, with a read that fills the buffer")
def one_past_the_end(source):
    with Running(command(source, *SANITIZED)) as (process, sock):
        sock.send(b"x" * 64)
        sock.shutdown(socket.SHUT_WR)
        return what_sanitizer_says(process)


@Catch("a count of the bytes that arrive; AddressSanitizer, with a long line")
def sizeof_message(source):
    said = ""
    for line in b"abc\n", b"x" * 300 + b"\n":
        reading, writing = os.pipe()
        os.write(writing, line)
        os.close(writing)
        ours, theirs = socket.socketpair()
        with processes.Process(command(source, *SANITIZED), stdin=reading, stdout=theirs,
                               env=plain_sanitizers()) as process:
            theirs.close()
            os.close(reading)
            said += what_sanitizer_says(process)
            ended = unread(ours)
            if len(line) == 4 and ended > 3:
                said += f"a message of 3 bytes: {ended} bytes arrived\n"
        ours.close()
    return said


@Catch("the end of the input, and a limit for the output")
def endless_at_the_end(source):
    with processes.Process(command(source), limit=1 << 20) as process:
        ended = process.wait(RUN * 5)
        return "" if ended == 0 else f"it printed {process.size() >> 10} KiB and does not end"


@Catch("its own count of calls")
def select_timeout(source):
    with Running(command(source)) as (process, sock):
        time.sleep(RUN)
        sock.shutdown(socket.SHUT_WR)
        process.wait(5)
        turns = int(re.search(r"(\d+) turns", process.output())[1])
        expected = RUN / 0.05
        return f"{turns} calls of select in {RUN} s, with a time-out of 50 ms" \
            if turns > 5 * expected else ""


@Catch("a time limit")
def completion_counter(source):
    done = processes.capture(command(source), 1.5)
    return done.trouble or ""


@Catch("a client that resets the connection, and a time limit")
def except_everything(source):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    # A socket after an error that was reported gives the end. This one fails each time.
    with socket.socket() as unconnected:
        with processes.Process(command(source), stdin=unconnected) as process:
            client.close()
            accepted.close()
            share, deadline = 0, time.monotonic() + 10
            with contextlib.suppress(OSError):      # it may end at any moment
                while figures.cpu_seconds(process.pid) < RUN and time.monotonic() < deadline:
                    process.wait(processes.POLL)    # the start of Python takes less
                share = share_of_processor(process)
            return f"{100 * share:.0f} % of a processor, and no end" \
                if process.poll() is None else ""


@Catch("the exit status, with a client that closes")
def sigpipe(source):
    with Running(command(source)) as (process, sock):
        sock.recv(5)
        sock.close()
        status = process.wait(5)
        return f"ended by {signal.Signals(-status).name}" if status and status < 0 else ""


@Catch("strace: calls of accept in a moment without new clients")
def emfile_spin(source):
    with servers.Server(command(source)) as server:
        clients = [server.connect() for _ in range(8)]
        time.sleep(RUN / 4)
        count, line = counted_calls(server, "accept")
        for client in clients:
            client.close()
        return f"{count} times {line.partition('] ')[2] or line}" if count > 50 else ""


@Catch("the processor time that /proc shows, after the other side has closed")
def hangup_ignored(source):
    reading, writing = os.pipe()
    with processes.Process(command(source), stdin=reading) as process:
        os.close(reading)
        os.close(writing)
        share = share_of_processor(process)
        return f"{100 * share:.0f} % of a processor, and no end" \
            if process.poll() is None else ""


@Catch("its own count of waits")
def truncated_timeout(source):
    said = processes.capture(command(source), 20).stdout
    return said if int(re.search(r"(\d+) waits", said)[1]) > 100 else ""


def verdict(catch):
    """(what is wrong or "", what the tool said of the wrong program)."""
    if not figures.AVAILABLE:
        raise Undecided("the tools are those of Linux")
    said = catch.complaint("wrong")
    about_right = catch.complaint("right")
    if not said:
        return "the wrong program was not caught", ""
    return (f"the right program was caught: {about_right}" if about_right else ""), said


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="gallery.py", description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", metavar="NAME", nargs="*", help="only these programs")
    settings = parser.parse_args(arguments)
    for name in settings.only:
        if name not in Catch.all:
            parser.error(f"there is no {name}: there are {', '.join(Catch.all)}")
    return settings


def main():
    settings = parse(sys.argv[1:])
    failed = 0
    for name, catch in Catch.all.items():
        if settings.only and name not in settings.only:
            continue
        try:
            wrong, said = verdict(catch)
        except Undecided as reason:
            print(f"skip  {name}: {reason}")
            continue
        failed += bool(wrong)
        if settings.only and not wrong:
            print(f"Caught by {catch.tool}:\n{said}\n{catch.difference()}", flush=True)
        else:
            print(f"{'FAIL' if wrong else 'ok':<4}  {name}: {wrong or said.splitlines()[0]}",
                  flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    processes.program(main, "gallery")
