"""Claims about descriptors, system calls, signals and processes."""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import tempfile
import time

from . import Figure, Undecided, claim
from .lab import NEVER, TREE, figures


@claim("A new descriptor has a number that was never used before.", "folklore",
       "It is the lowest number that is free. So the number of a closed connection comes back, "
       "and an old event can meet a new client.",
       "a program that does not close the old ones")
def descriptors_are_fresh(lab):
    first = socket.socket()
    number = first.fileno()
    if lab.doctored:
        lab.keep(first)
    else:
        first.close()
    second = lab.keep(socket.socket())
    lab.show(f"closed {number}, the next is {second.fileno()}")
    return [Figure("new descriptors with the number of the closed one",
                   int(second.fileno() == number), high=0)]


@claim("O_NONBLOCK makes read of a file return at once.", "folklore",
       "The flag does nothing on regular files. If the bytes are not in memory, the thread "
       "sleeps until the disk has brought them.",
       "preadv2 with RWF_NOWAIT, which does return at once")
def nonblocking_files(lab):
    if not hasattr(os, "preadv") or not hasattr(os, "RWF_NOWAIT"):
        raise Undecided("preadv2 is not there")
    size = 1 << 20
    with tempfile.NamedTemporaryFile(dir=str(TREE / "common")) as file:
        file.write(os.urandom(size))
        file.flush()
        os.fsync(file.fileno())
        number = os.open(file.name, os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            buffer = bytearray(size)
            try:
                cached = os.preadv(number, [buffer], 0, os.RWF_NOWAIT)
            except BlockingIOError:
                cached = 0
            if cached:
                raise Undecided("the bytes stay in memory here")
            lab.show("not in memory: preadv2 with RWF_NOWAIT gives EAGAIN")
            got = cached if lab.doctored else os.preadv(number, [buffer], 0)
        finally:
            os.close(number)
    lab.show(f"read returned {got} bytes")
    return [Figure("bytes that read waited for, with O_NONBLOCK", got, high=0)]


def _switches(function):
    """Voluntary context switches of this thread meanwhile."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    function()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


@claim("Every system call is a context switch.", "lecture notes",
       "A system call changes to kernel mode, in the same thread. A context switch to another "
       "thread happens if the call has to sleep.",
       "calls that sleep: nanosleep")
def calls_are_switches(lab):
    def calls():
        for _ in range(200):
            time.sleep(1e-6) if lab.doctored else os.getppid()
    count = _switches(calls)
    lab.show(f"200 calls, {count} voluntary context switches")
    return [Figure("voluntary context switches in 200 system calls", count, low=100)]


@claim("A thread that waits in recv uses the processor.", "folklore",
       "It sleeps. The kernel does not run it until bytes arrive.",
       "a thread that asks again and again, without blocking")
def waiting_costs_cpu(lab):
    _, server = lab.tcp_pair()
    server.settimeout(None)
    child = os.fork()
    if child == 0:
        try:
            server.setblocking(not lab.doctored)
            while True:
                with contextlib.suppress(BlockingIOError):
                    server.recv(1)
                    break
        finally:
            os._exit(0)
    try:
        time.sleep(NEVER / 2)
        before = figures.cpu_seconds(child)
        time.sleep(NEVER * 2)
        used = figures.cpu_seconds(child) - before
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    lab.show(f"{used * 1e6:.0f} µs of CPU time in {NEVER * 2:.1f} s")
    return [Figure("CPU time while it waited for 0.1 s", int(used * 1000), "ms", low=5,
                   slack=2)]


@claim("What is not I/O cannot go on in the background.", "lecture notes",
       "One thread does one thing at a time, whatever it is. Another thread or process "
       "computes while the loop serves.",
       "the same computation as a callback of the loop")
def only_io_in_background(lab):
    def compute():
        return sum(range(2000000))
    ticks, reading = 0, None
    if lab.doctored:
        compute()
    else:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            compute()
            os.write(writing, b".")
            os._exit(0)
        while not select.select([reading], [], [], 0.001)[0]:
            ticks += 1
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    lab.show(f"iterations of the loop during the computation: {ticks}")
    return [Figure("iterations of the loop while a process computed", ticks, high=0,
                   within=100, slack=1)]


@claim("C code can be built as C++.", "build notes with g++ in them",
       "C++ has no conversion from void * and other rules for initialisers.",
       "the C compiler", slow=True)
def c_is_cpp(lab):
    sources = sorted((TREE / "common").glob("*.c"))
    compiler = lab.either("g++", "gcc")
    accepted = 0
    for source in sources:
        try:
            done = subprocess.run(
                [compiler, "-fsyntax-only", "-w", "-D_GNU_SOURCE", f"-I{TREE / 'common'}",
                 "-x", lab.either("c++", "c"), str(source)], stderr=subprocess.DEVNULL)
        except OSError:
            raise Undecided(f"{compiler} is not installed") from None
        accepted += done.returncode == 0
    lab.show(f"{compiler} accepts {accepted} of {len(sources)} sources of common/")
    return [Figure("accepted of the sources in common/", 100 * accepted / len(sources), "%",
                   low=100, within=3, slack=30)]
