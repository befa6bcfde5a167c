"""Claims about descriptors, system calls, signals and processes."""

import contextlib
import ctypes
import os
import pathlib
import resource
import select
import signal
import socket
import subprocess
import tempfile
import threading
import time

from . import Figure, Undecided, claim
from .lab import NEVER, TREE, figures, until


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
    return [Figure("new descriptors with the number of the closed one", second.fileno() == number,
                   high=0)]


@claim("A program can have at most 1,024 descriptors.", "folklore",
       "1,024 is a usual soft limit. Every program may raise it up to the hard limit.",
       "a hard limit of 1,024")
def limit_is_1024(lab):
    def opened():
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard != resource.RLIM_INFINITY and hard < 1200:
            return -1
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024 if lab.doctored else hard))
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(1200, hard), hard))
        with contextlib.suppress(OSError):
            while True:
                last = os.dup(0)
        return last + 1
    count = lab.in_child(opened)
    if count < 0:
        raise Undecided("the hard limit is below 1,200")
    lab.show(f"soft limit 1,024, then raised to 1,200: {count} descriptors")
    return [Figure("descriptors after setrlimit", count, high=1024)]


@claim("exec closes all descriptors of the program before.", "folklore",
       "It closes those with the flag close-on-exec. All others are inherited, listening "
       "sockets included.",
       "a server that sets close-on-exec on every descriptor", on="close-on-exec")
def exec_closes_descriptors(lab):
    def open_after_exec(flag):
        sock = lab.keep(socket.socket())
        sock.set_inheritable(not flag and not lab.doctored)
        path = f"/proc/self/fd/{sock.fileno()}"
        done = subprocess.run(["test", "-e", path], close_fds=False)
        lab.show(f"close-on-exec {'set' if flag else 'not set'}: test -e {path}: "
                 f"{'there' if done.returncode == 0 else 'not there'}")
        return int(done.returncode == 0)
    return [Figure("open after exec, with the flag", open_after_exec(True), high=0),
            Figure("open after exec, without the flag", open_after_exec(False), high=0)]


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


@claim("A signal ends a sleeping recv with EINTR.", "textbooks",
       "With SA_RESTART in its handler the call goes on after the handler has run.",
       "a handler without SA_RESTART in both cases", on="SA_RESTART")
def signals_interrupt(lab):
    libc = ctypes.CDLL(None, use_errno=True)

    def interrupted(restart):
        client, server = lab.tcp_pair()
        before = signal.signal(signal.SIGUSR2, lambda *_: None)
        signal.siginterrupt(signal.SIGUSR2, not restart or lab.doctored)

        def disturb():
            until(lambda: _state(main) == "S", 1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR2)
            time.sleep(NEVER)
            client.send(b"x")
        main = threading.main_thread().native_id
        thread = threading.Thread(target=disturb)
        thread.start()
        try:
            got = libc.recv(server.fileno(), ctypes.create_string_buffer(1), 1, 0)
        finally:
            thread.join()
            signal.signal(signal.SIGUSR2, before)
        lab.show(f"SA_RESTART {'set' if restart else 'not set'}: recv returned {got}")
        return int(got == -1)
    return [Figure("calls that ended with EINTR, without SA_RESTART", interrupted(False), low=1),
            Figure("calls that ended with EINTR, with SA_RESTART", interrupted(True), low=1)]


@claim("close in one thread wakes another one that sleeps in recv.", "folklore",
       "On Linux the sleeping call keeps the connection, and sleeps on.",
       "shutdown, which does wake it")
def close_wakes_readers(lab):
    client, server = lab.tcp_pair()
    server.settimeout(None)
    result, number = [], server.fileno()
    libc = ctypes.CDLL(None, use_errno=True)
    thread = threading.Thread(target=lambda: result.append(
        libc.recv(number, ctypes.create_string_buffer(1), 1, 0)))
    thread.start()
    until(lambda: thread.native_id and _state(thread.native_id) == "S")
    if lab.doctored:
        server.shutdown(socket.SHUT_RDWR)
    else:
        server.close()
    thread.join(NEVER)
    woken = int(not thread.is_alive())
    with contextlib.suppress(OSError):
        client.send(b"x")
    thread.join()
    lab.show(f"the sleeping thread was {'woken' if woken else 'not woken'}")
    return [Figure("sleeping calls of recv that close ended", woken, low=1)]


def _state(thread):
    text = pathlib.Path(f"/proc/self/task/{thread}/stat").read_text(encoding="utf-8")
    return text.rpartition(")")[2].split()[0]


@claim("fork copies all memory of the process.", "folklore",
       "It copies the page tables. A page is copied when one of the two writes to it.",
       "a child that writes to all of it")
def fork_copies_memory(lab):
    size = 32 << 20
    memory = bytearray(b"x") * size
    ready, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if lab.doctored:
                for at in range(0, size, 4096):
                    memory[at] = 1
            os.write(writing, b".")
            time.sleep(10)
        finally:
            os._exit(0)
    try:
        os.read(ready, 1)
        text = pathlib.Path(f"/proc/{child}/smaps_rollup").read_text(encoding="ascii")
        own = sum(int(line.split()[1]) for line in text.splitlines()
                  if line.startswith("Private_Dirty"))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(writing)
    lab.show(f"a process with 32 MiB forks: {own} KiB belong to the child alone")
    return [Figure("memory of its own that a child of a process with 32 MiB has", own / 1024,
                   "MiB", low=32, within=4, slack=2)]


@claim("What is not I/O cannot go on in the background.", "lecture notes",
       "One thread does one thing at a time, whatever it is. Another thread or process computes "
       "while the loop serves.",
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


