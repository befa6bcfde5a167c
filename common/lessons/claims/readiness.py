"""Claims about select, poll and epoll."""

import ctypes
import fcntl
import mmap
import os
import select
import socket
import subprocess
import sys
import threading

from . import Figure, Undecided, claim
from .lab import arrived, best_time, raise_limit, unread

BITS = 1024             # of an fd_set
MANY = 2000


class Timeval(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("microseconds", ctypes.c_long)]


class Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


def _c_library():
    if sys.platform != "linux":
        raise Undecided("the calls are those of Linux")
    return ctypes.CDLL(None, use_errno=True)


def _fd_set(*descriptors):
    bits = sum(1 << number for number in descriptors)
    return ctypes.create_string_buffer(bits.to_bytes(BITS // 8, "little"), BITS // 8)


@claim("If select says readable, recv does not block.", "tutorials",
       "It was true when select looked. Another process may have read the bytes since. "
       "select(2) lists more such cases: so use O_NONBLOCK.",
       "processes that take a lock around both calls", on="whether others read, too")
def readable_means_no_block(lab):
    def blocked(readers):
        client, server = lab.tcp_pair()
        client.sendall(b"x")
        arrived(server, 1)
        failed, told = 0, []
        if lab.doctored:
            order = [(step, each) for each in range(readers) for step in ("select", "recv")]
        else:
            order = [(step, each) for step in ("select", "recv") for each in range(readers)]
        for step, each in order:        # the order in which a scheduler may run them
            if step == "select":
                told += [each] if select.select([server], [], [], 0)[0] else []
            elif each in told:
                try:
                    server.recv(10, socket.MSG_DONTWAIT)
                except BlockingIOError:
                    failed += 1
        lab.show(f"{readers} readers: {len(told)} were told readable, {failed} would block")
        return failed
    return [Figure("calls of recv that would block, with one reader", blocked(1), high=0),
            Figure("calls of recv that would block, with two readers", blocked(2), high=0)]


@claim("select can watch 1,024 sockets.", "folklore",
       "The limit is on the number of a descriptor, not on how many there are. FD_SET beyond "
       "it writes past the set.",
       "poll, which takes descriptors by value")
def select_takes_1024_sockets(lab):
    _, server = lab.tcp_pair()
    raise_limit(BITS + 10)
    high = fcntl.fcntl(server, fcntl.F_DUPFD_CLOEXEC, BITS)
    try:
        if lab.doctored:
            poll = select.poll()
            poll.register(high)
            watched = 1
        else:
            select.select([high], [], [], 0)
            watched = 1
    except ValueError as error:
        lab.show(f"select with descriptor {high} alone: {error}")
        watched = 0
    finally:
        os.close(high)
    return [Figure("sockets that can be watched, if one is open and has the number 1,024",
                   watched, low=1)]


@claim("select always looks at all 1,024 bits.", "lecture notes",
       "It reads as many as its first argument says, rounded up to words.",
       "a program that passes FD_SETSIZE as the first argument, as some do")
def select_scans_all_bits(lab):
    libc, page = _c_library(), mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.select.argtypes = [ctypes.c_int] + [ctypes.c_void_p] * 3 + [ctypes.POINTER(Timeval)]
    if libc.mprotect(start + page, page, 0):
        raise Undecided("a page cannot be protected")
    raise_limit(BITS)
    os.close(fcntl.fcntl(0, fcntl.F_DUPFD, BITS - 1))   # the table has room for this many
    needed = 0
    for size in range(8, BITS // 8 + 1, 8):     # bytes before the page that must not be read
        if libc.select(lab.either(10, BITS), start + page - size, None, None,
                       ctypes.byref(Timeval())) == 0:
            needed = size
            break
    libc.mprotect(start + page, page, mmap.PROT_READ | mmap.PROT_WRITE)
    lab.show(f"select(10, ...) needs {needed} bytes of the set that can be read")
    return [Figure("bytes of the set that select reads, if the highest descriptor is 9", needed,
                   low=BITS // 8)]


@claim("select leaves its time-out alone.", "tutorials that set it once, before the loop",
       "Linux writes the time that was left into it. After a time-out that is 0, and the loop "
       "spins. POSIX allows both.",
       "pselect, whose time-out is const")
def select_keeps_its_timeout(lab):
    libc, milliseconds = _c_library(), 10
    if lab.doctored:
        limit = Timespec(0, milliseconds * 1000000)
        libc.pselect(0, None, None, None, ctypes.byref(limit), None)
        left = limit.nanoseconds // 1000000
    else:
        limit = Timeval(0, milliseconds * 1000)
        libc.select(0, None, None, None, ctypes.byref(limit))
        left = limit.microseconds // 1000
    lab.show(f"time-out of {milliseconds} ms: after it has passed, {left} ms are in the struct")
    return [Figure(f"left in a time-out of {milliseconds} ms after the call", left, "ms",
                   low=milliseconds)]


@claim("FD_ISSET asks the kernel.", "lecture notes",
       "It is a macro that looks at one bit in the memory of the program.",
       "the same loop with poll in place of FD_ISSET")
def fd_isset_asks_the_kernel(lab):
    ended = lab.run(lab.program("fd_isset"), lab.either("fd_isset", "poll"))
    killed = int(ended.status == -9)
    if ended.status not in (0, -9):
        raise Undecided(ended.stderr.strip() or f"exit status {ended.status}")
    lab.show("1,000 times in a process that may not call the kernel: "
             + ("killed at the first call" if killed else "finished"))
    return [Figure("system calls seen in 1,000 times FD_ISSET, stopped at the first", killed,
                   low=1)]


@claim("An fd_set is a queue that holds as many entries as sockets are watched.",
       "lecture notes",
       "It is a bitmap of fixed size: one bit for each possible descriptor number.",
       "the array of poll, which has an entry for each socket")
def fd_set_grows(lab):
    sizes = [int(size) for size in lab.run(
        lab.program("fd_isset"), lab.either("sizes", "poll-sizes")).stdout.split()]
    lab.show(f"for 1 socket {sizes[0]} bytes, for 1,000 sockets {sizes[1]} bytes")
    return [Figure("bytes for 1 socket", sizes[0]),
            Figure("bytes for 1,000 sockets, compared with 1 socket", sizes[1] // sizes[0],
                   "times", low=2)]


def _cost_of_wait(lab, watched, ready):
    """Microseconds of one epoll_wait that does not sleep, or of one poll."""
    idle, _ = lab.pipe()
    full, writing = lab.pipe()
    writing.write(b"x")
    raise_limit(watched + 100)
    copies = [os.dup(full.fileno()) for _ in range(ready)]
    copies += [os.dup(idle.fileno()) for _ in range(watched - ready)]
    waiter = select.poll() if lab.doctored else lab.keep(select.epoll())
    try:
        for number in copies:
            waiter.register(number, select.POLLIN)
        options = (0,) if lab.doctored else (0, watched)
        events = len(waiter.poll(*options))
        seconds = best_time(lambda: [waiter.poll(*options) for _ in range(20)]) / 20
    finally:
        for number in copies:
            os.close(number)
    lab.show(f"{watched} watched, {ready} ready: {events} events, {seconds * 1e6:.2f} µs")
    return seconds * 1e6


@claim("epoll is O(1).", "folklore; lecture notes",
       "A wait costs what is ready, not what is watched. Adding one descriptor costs O(log n).",
       "poll, which pays for each descriptor that it watches",
       on="what grows: what is watched, or what is ready", slow=True)
def epoll_is_constant(lab):
    base = _cost_of_wait(lab, 10, 1)
    return [Figure("a wait among 2,000 watched against 10, one ready",
                   _cost_of_wait(lab, MANY, 1) / base, "times", high=4, slack=3),
            Figure("a wait with 1,000 ready against 1, 2,000 watched",
                   _cost_of_wait(lab, MANY, MANY // 2) / base, "times", high=4, within=4)]


@claim("epoll looks at all descriptors as select does, only inside the kernel.",
       "lecture notes",
       "The code that makes a descriptor ready puts it on a list. A wait looks at that list.",
       "poll, which does look at all of them", slow=True)
def epoll_scans_in_the_kernel(lab):
    few, many = (_cost_of_wait(lab, watched, 1) for watched in (10, MANY))
    return [Figure("a wait among 10 descriptors, one ready", few, "µs", within=10),
            Figure("among 2,000, one ready", many, "µs", within=10),
            Figure("ratio", many / few, low=4, slack=3)]


def _calls(lab, edge, messages, size, piece):
    """System calls to read this many messages, each sent when the one before is read."""
    client, server = lab.tcp_pair()
    server.setblocking(False)
    epoll = lab.keep(select.epoll())
    epoll.register(server, select.EPOLLIN | (select.EPOLLET if edge else 0))
    calls, drain = 0, edge or lab.doctored
    for _ in range(messages):
        client.sendall(b"x" * size)
        arrived(server, size)
        left = size
        while left:
            calls += 1
            if not epoll.poll(0):
                break
            while True:
                calls += 1
                try:
                    left -= len(server.recv(piece))
                except BlockingIOError:
                    break
                if not drain:
                    break
    return calls


@claim("Edge-triggered epoll makes fewer system calls than level-triggered epoll.",
       "folklore; \"edge-triggered is faster\"",
       "It saves a wait for each further piece, but costs one recv more for each event: the "
       "one that returns EAGAIN.",
       "a level-triggered loop that reads until EAGAIN, too",
       on="how many pieces one event brings")
def edge_makes_fewer_calls(lab):
    result = []
    for what, messages, size, piece in (
            ("100 messages of one piece", 100, 100, 1000),
            ("one message of 100 pieces", 1, 50000, 500)):
        edge, level = (_calls(lab, each, messages, size, piece) for each in (True, False))
        lab.show(f"{what}: edge {edge} calls, level {level} calls")
        result.append(Figure(f"calls, edge against level, {what}", edge / level, "times",
                             high=0.9))
    return result


@claim("The list of an epoll instance is in the memory of the program.", "lecture notes",
       "It is in the kernel, behind a descriptor. It even survives exec, which replaces all "
       "the memory of the program.",
       "a program that keeps its own list, for poll")
def epoll_is_in_user_space(lab):
    reading, writing = lab.pipe()
    writing.write(b"x")
    epoll = lab.keep(select.epoll())
    if not lab.doctored:
        epoll.register(reading, select.EPOLLIN)
    for each in (reading.fileno(), epoll.fileno()):
        os.set_inheritable(each, True)
    other = (f"import select; print(len(select.epoll.fromfd({epoll.fileno()}).poll(0)))"
             if not lab.doctored else "import select; print(len(select.poll().poll(0)))")
    done = subprocess.run([sys.executable, "-S", "-E", "-c", other], close_fds=False,
                          stdout=subprocess.PIPE, encoding="ascii", timeout=20)
    events = int(done.stdout)
    lab.show(f"another program, after exec, waits on the same descriptor: {events} events")
    return [Figure("events that a new program gets from the list", events, high=0)]


@claim("epoll is asynchronous: when it returns, the data is in your buffer.", "lecture notes",
       "It reports that a read would not sleep. The read is still to be made, and copies the "
       "bytes. Completion models (io_uring, IOCP) report that it has been made.",
       "another thread that reads first and reports afterwards, as a completion model does")
def epoll_is_asynchronous(lab):
    client, server = lab.tcp_pair()
    buffer, done = bytearray(6), lab.pipe()
    epoll = lab.keep(select.epoll())

    def read_and_report():
        server.recv_into(buffer)
        done[1].write(b"!")
    if lab.doctored:
        thread = threading.Thread(target=read_and_report)
        thread.start()
    epoll.register(done[0] if lab.doctored else server, select.EPOLLIN)
    client.sendall(b"abcdef")
    epoll.poll(2)
    there = len(buffer.rstrip(b"\0"))
    if lab.doctored:
        thread.join()
    lab.show(f"after epoll_wait: {there} bytes in the buffer, {unread(server)} in the kernel")
    return [Figure("bytes in the program's buffer when epoll_wait returned, of 6", there,
                   low=6)]


@claim("A non-blocking read is an asynchronous read.", "interview answers",
       "After EAGAIN nothing goes on. The bytes arrive in the kernel; the program must ask "
       "again.",
       "a thread that goes on reading after the call has returned")
def nonblocking_means_asynchronous(lab):
    client, server = lab.tcp_pair()
    buffer = bytearray(6)
    threads = []

    def start_read():
        try:
            server.recv_into(buffer, 6, socket.MSG_DONTWAIT)
        except BlockingIOError:
            if lab.doctored:
                threads.append(threading.Thread(target=server.recv_into, args=[buffer]))
                threads[0].start()
    start_read()
    client.sendall(b"abcdef")
    if not lab.doctored:
        arrived(server, 6)
    for thread in threads:
        thread.join()
    there = len(buffer.rstrip(b"\0"))
    lab.show(f"recv returned EAGAIN, then 6 bytes came: {there} are in the buffer")
    return [Figure("bytes in the buffer after EAGAIN, when 6 have arrived", there, low=6)]


@claim("arm64 has no epoll.", "lecture notes (macOS on such machines has none)",
       "Linux has it on every architecture. arm64 uses the common table of system calls, which "
       "has epoll_create1, epoll_ctl and epoll_pwait.",
       "kqueue, which no Linux has")
def arm64_has_no_epoll(lab):
    try:
        with open("/usr/include/asm-generic/unistd.h", encoding="utf-8") as table:
            lines = [line.strip() for line in table if lab.either("epoll", "kqueue") in line
                     and line.startswith("#define __NR")]
    except OSError:
        raise Undecided("the kernel's headers are not installed") from None
    for line in lines:
        lab.show(line)
    return [Figure("system calls of that name in the table that arm64 uses", len(lines), high=0,
                   slack=2)]
