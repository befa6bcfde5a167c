"""Reads what `strace -f -k -ttt -T -yy -o FILE` wrote: calls, tasks and signals.

A task is a thread or a process. A call that another task's line interrupts stands in two parts
in the file (`<unfinished ...>`, `<... resumed>`); here it is one Call again. Below a call are
the frames of its stack; addr2line turns them into lines of source.
"""

import pathlib
import re
import subprocess
from collections import namedtuple

CALLS = """
    socket bind listen accept accept4 recvfrom sendto recvmsg sendmsg shutdown close read write
    readv writev poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 nanosleep clock_nanosleep futex clone clone3 fork vfork wait4 waitid
    io_uring_setup io_uring_enter io_uring_register socketpair eventfd eventfd2 pipe
    pipe2""".split()
STRINGS = 48    # bytes of a string that strace shows

Call = namedtuple("Call", "task start end name text result frames")
Call.__doc__ = """One system call. start and end are seconds of the wall clock; end is None if
it never returned. text is `name(arguments)`, result what stands behind the `=`. frames are
(program, offset), the innermost first."""
Task = namedtuple("Task", "parent start end kind")
Task.__doc__ = "kind: main, thread or process; end is None if the trace ended first."

LINE = re.compile(r"(\d+) +(\d+\.\d+) (.*)")
FRAME = re.compile(r" > (.+?)\((?:[^()]*)\) \[0x([0-9a-f]+)\]")
UNFINISHED = re.compile(r"(.*?)[ ,]*<unfinished \.\.\.>")
RESUMED = re.compile(r"<\.\.\. (\w+) resumed>,? ?(.*)")
WHOLE = re.compile(r"(\w+)\((.*)\) += (.+?)(?: <([\d.]+)>)?")
MARKS = re.compile(r"(?<=\d)<(?:->|[^<>]|<[^<>]*>)*>")    # what -yy adds to a descriptor
PEER = re.compile(r"(\d+)<TCP(?:v6)?:\[[^\]]*?:(\d+)->[^\]]*?:(\d+)\]>")


def command(output, stacks=True):
    """The words to put in front of the server's command. The server is our own child (-D)."""
    return ["strace", "-D", "-f", "--seccomp-bpf", *(["-k"] if stacks else []), "-ttt", "-T",
            "-yy", "-s", str(STRINGS), "-e", "trace=" + ",".join("?" + name for name in CALLS),
            "-o", str(output)]


class Trace:
    """All that a file holds: calls in the order of their start, tasks and signals."""

    def __init__(self, lines):
        self.calls, self.tasks, self.signals = [], {}, []
        self.client_ports = {}      # of every socket that was accepted: (task, start): port
        self._open = {}             # task: (start, text) of a call that has not returned
        self._last = {}             # task: index of its latest call, for the frames below it
        self._latest = None
        for line in lines:
            self._take(line.rstrip("\n"))
        for task, (start, text) in self._open.items():
            self.calls.append(Call(task, start, None, text.partition("(")[0], text, None, []))
        self.calls.sort(key=lambda call: call.start)

    def _take(self, line):
        frame = FRAME.match(line)
        if frame:
            if self._latest is not None:
                self._latest.frames.append((frame[1], int(frame[2], 16)))
            return
        found = LINE.fullmatch(line)
        if not found:
            return
        task, at, text = int(found[1]), float(found[2]), found[3]
        self._latest = None
        if task not in self.tasks:
            self.tasks[task] = Task(None, at, None, "main" if not self.tasks else "thread")
        if text.startswith("+++"):
            self.tasks[task] = self.tasks[task]._replace(end=at)
        elif text.startswith("---"):
            self.signals.append((at, task, text.split()[1]))
        elif text.endswith("<unfinished ...>"):
            self._open[task] = at, UNFINISHED.fullmatch(text)[1]
        elif text.startswith("<..."):
            rest = RESUMED.fullmatch(text)
            start, head = self._open.pop(task, (at, ""))
            comma = ", " if head and head[-1] not in "( " and rest[2][:1] not in ")" else ""
            self._finish(task, start, head + comma + rest[2], at)
        else:
            self._finish(task, at, text, None)

    def _finish(self, task, start, text, until):
        found = WHOLE.fullmatch(text)
        if not found:
            return
        name, arguments, result, took = found.groups()
        end = start + float(took) if took else until
        call = Call(task, start, end, name, f"{name}({arguments})", result, [])
        self.calls.append(call)
        self._latest = call
        if name in ("clone", "clone3", "fork", "vfork") and re.match(r"\d+", result):
            kind = "thread" if "CLONE_THREAD" in arguments else "process"
            child = int(re.match(r"\d+", result)[0])
            known = self.tasks.get(child)
            self.tasks[child] = Task(task, known.start if known else start,
                                     known.end if known else None, kind)


def peer(text):
    """(descriptor, port of the client) of the first connected socket named there, or None."""
    found = PEER.search(text)
    return (int(found[1]), int(found[3])) if found else None


def plain(text):
    """The call without what -yy added to its descriptors, and with short addresses."""
    for pattern, short in (
            (MARKS, ""),
            (re.compile(r"\{sa_family=\w+, (sin6?_port=htons\(\d+\))[^{}]*\}"), r"{\1, ...}"),
            (re.compile(r"\{sigmask=\S*, sigsetsize=\d+\}"), "..."),
            (re.compile(r"^(clone3?)\(.*\)$"), r"\1(...)"),
            (re.compile(r"(-1 E\w+) \(.*\)$"), r"\1"),
            (re.compile(r"\{u32=\d+, u64=(\d+)\}"), r"\1")):
        text = pattern.sub(short, text)
    return text


class Lines:
    """Which line of source an address belongs to; each is looked up once."""

    def __init__(self):
        self.known = {}

    def look_up(self, frames):
        """All at once, program by program: [(function, file, line)] per frame, innermost
        first, because a frame may stand for several functions that were inlined."""
        wanted = {}
        for frame in set(frames) - set(self.known):
            wanted.setdefault(frame[0], []).append(frame[1])
        for program, offsets in wanted.items():
            self._ask(program, offsets)

    def of(self, frame):
        return self.known.get(frame, [])

    def _ask(self, program, offsets):
        # The address in a stack is where the call returns to: one byte before is in the call.
        asked = [f"0x{offset - 1:x}" for offset in offsets]
        done = subprocess.run(["addr2line", "-a", "-f", "-i", "-e", program, *asked],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                              check=False)
        found, here = {}, None
        lines = iter(done.stdout.splitlines())
        for line in lines:
            if line.startswith("0x"):
                here = found.setdefault(int(line, 16), [])
                continue
            place = next(lines, "??:0").split(" (")[0]
            file, _, number = place.rpartition(":")
            if here is not None and number.isdigit() and int(number):
                here.append((line, pathlib.Path(file).resolve(), int(number)))
        for offset in offsets:
            self.known[program, offset] = found.get(offset - 1, [])
