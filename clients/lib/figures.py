"""What Linux's /proc says about processes and their sockets.

Functions about one process raise OSError when it has ended.
"""

import contextlib
import os
import re
import resource
import socket
import struct
import sys
import time
from collections import namedtuple

AVAILABLE = sys.platform.startswith("linux") and os.path.isdir("/proc/self/fd")
TICKS = os.sysconf("SC_CLK_TCK")
LISTEN = "0A"
# From linux/netlink.h and linux/sock_diag.h
NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY = 4, 20
NLM_F_REQUEST, NLM_F_DUMP, NLMSG_ERROR, NLMSG_DONE = 1, 0x300, 2, 3

Entry = namedtuple("Entry", "pid parent group session state started")
Socket = namedtuple("Socket", "address port unread unacknowledged inode")


# Processes.

def table():
    """{process id: Entry} of all processes; state as in proc(5): Z has ended, not reaped."""
    return _entries(filter(str.isdigit, os.listdir("/proc")))


def family():
    """As table(), but only this process and its descendants, where Linux lists the children of
    a thread. (A machine may have hundreds of other processes.)"""
    pids, todo = [], [os.getpid()]
    try:
        for _ in range(5):          # looks: others may start children without end
            for pid in todo:        # it grows meanwhile
                todo += _children(pid)
            pids += todo
            # The children of a process that ended during this look may be ours now.
            todo = [pid for pid in _children(os.getpid()) if pid not in pids]
            if not todo:
                break
    except OSError:     # one of them ended just now, or this kernel has no such list
        return table()
    return _entries(pids)


def _children(pid):
    return [int(child) for thread in os.listdir(f"/proc/{pid}/task")
            for child in _read(pid, f"task/{thread}/children").split()]


def _entries(pids):
    found = {}
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            file = os.open(f"/proc/{pid}/stat", os.O_RDONLY)    # twice as fast as open()
            try:
                fields = os.read(file, 4096).rpartition(b")")[2].split(None, 20)
            finally:
                os.close(file)
            found[int(pid)] = Entry(int(pid), *map(int, fields[1:4]), fields[0].decode(),
                                    int(fields[19]))
    return found


def with_descendants(pids, processes):
    """These, and whatever descends from them."""
    children = {}
    for entry in processes.values():
        children.setdefault(entry.parent, []).append(entry.pid)
    found, todo = set(), list(pids)
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo += children.get(pid, ())
    return found


def has_in_environment(entry, setting, prefix=False):
    """Whether NAME=VALUE was in its environment when it started. A process that is older than
    ours cannot have inherited anything from ours."""
    if entry.started < _own_start():
        return False
    try:
        with open(f"/proc/{entry.pid}/environ", "rb") as file:
            settings = file.read().split(b"\0")
    except OSError:
        return False
    setting = os.fsencode(setting)
    return any(each.startswith(setting) if prefix else each == setting for each in settings)


def _own_start():
    if not hasattr(_own_start, "ticks"):
        _own_start.ticks = int(_read(os.getpid(), "stat").rpartition(")")[2].split()[19])
    return _own_start.ticks


def command_line(pid):
    """What it was started as; "" if it has ended."""
    with contextlib.suppress(OSError):
        return _read(pid, "cmdline").replace("\0", " ").strip()
    return ""


def members(group):
    """The living processes of a group, which a server that forks may fill."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.getpgid(int(pid)) == group:
                yield int(pid)


def states(group):
    """The states of the threads of a group's processes, by the letters of proc(5): R runs or
    could, S sleeps until something happens, T is stopped. Ended ones (Z) do not count."""
    found = set()
    for pid in members(group):
        with contextlib.suppress(OSError):      # it ended meanwhile
            for thread in os.listdir(f"/proc/{pid}/task"):
                stat = _read(pid, f"task/{thread}/stat")
                found.add(stat.rpartition(")")[2].split()[0])
    return found - {"Z"}


def tasks_of_user(uid):
    """Threads of all processes of a user: what RLIMIT_NPROC is compared with."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat("/proc/" + pid).st_uid == uid:
                count += threads(int(pid))
    return count


# What a process costs.

def cpu_seconds(pid):
    """User and system time of all its threads, also of those that have ended. The clock of
    clock_getcpuclockid(3) counts nanoseconds. /proc counts hundredths."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = _read(pid, "stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def children(pid):
    """The processes that its first thread forked and has not waited for."""
    with contextlib.suppress(OSError):
        return list(map(int, _read(pid, f"task/{pid}/children").split()))
    return []


def zombies(pid):
    """How many of its children have ended without being waited for."""
    count = 0
    for child in children(pid):
        with contextlib.suppress(OSError):      # it was waited for just now
            count += _read(child, "stat").rpartition(")")[2].split()[0] == "Z"
    return count


def cpu_seconds_with_children(pid):
    """cpu_seconds() of it and of the processes that it forked and that still live."""
    total = 0.0
    for each in [pid, *children(pid)]:
        with contextlib.suppress(OSError):
            total += cpu_seconds(each)
    return total


def cpu_seconds_with_waited(pid):
    """Of a process, also one that has ended, and of all descendants that were waited for."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def delay_seconds(pid):
    """How long its threads were ready to run and had to wait for a processor, in all; 0 where
    the kernel does not count it."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with contextlib.suppress(OSError):
            total += int(_read(pid, f"task/{thread}/schedstat").split()[1])
    return total / 1e9


def threads(pid):
    return len(os.listdir(f"/proc/{pid}/task"))


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident_bytes(pid):
    """Exact, from the page tables: the cheap counters lag by some pages per processor."""
    return _bytes(_read(pid, "smaps_rollup"), "Rss")


def virtual_bytes(pid):
    return _bytes(_read(pid, "status"), "VmSize")


def page_table_bytes(pid):
    return _bytes(_read(pid, "status"), "VmPTE")


def own_bytes(pid):
    """Memory that exists because of the processes of a group: what they wrote themselves."""
    total = 0
    for member in members(pid):
        with contextlib.suppress(OSError):
            total += _bytes(_read(member, "smaps_rollup"), "Private_Dirty")
    return total


def uses_sanitizer(pid):
    """Address and thread sanitizers reserve terabytes; then memory figures mean little."""
    return virtual_bytes(pid) > 1 << 40


def is_pending(pid, signum):
    """A signal for the whole process that was sent and not yet taken."""
    mask = re.search(r"(?m)^ShdPnd:\s*(\w+)", _read(pid, "status")).group(1)
    return bool(int(mask, 16) >> (signum - 1) & 1)


def limit(pid, which, soft):
    """Change a limit of a running process; return the pair it had."""
    own = os.getresuid()
    # In most containers root may change only the limits of its own user's processes.
    os.setresuid(os.stat(f"/proc/{pid}").st_uid if own[1] == 0 else own[0], -1, -1)
    try:
        before = resource.prlimit(pid, which)
        resource.prlimit(pid, which, (soft, before[1]))
        return before
    finally:
        os.setresuid(*own)


# Its sockets. Linux answers by sock_diag(7) where it can: for /proc/net/tcp it looks through a
# table of many thousand places each time.

def unread_bytes(*clients):
    """Bytes that the other ends of these connected sockets, on this machine, did not yet
    receive."""
    return sum(unread for unread, _ in queues(*clients))


def queues(*clients):
    """[(unread, unacknowledged)] bytes in the sockets at these other ends."""
    found = []
    for client in clients:
        with contextlib.suppress(OSError):      # it is not connected any more
            found += _queues(client.family, client.getpeername(), client.getsockname())
    return found


def _queues(family, server, client):
    with contextlib.suppress(OSError):      # there is no such socket, or no sock_diag here
        return [(each.unread, each.unacknowledged) for each in _diag(family, server, client)]
    ours, theirs = f":{server[1]:04X}", f":{client[1]:04X}"
    names = ("tcp6",) if family == socket.AF_INET6 else ("tcp", "tcp6")
    return [tuple(int(size, 16) for size in reversed(fields[4].split(":")))
            for name in names for fields in _sockets(name, ours)
            if fields[1].endswith(ours) and fields[2].endswith(theirs)]


def listens_at(pids):
    """[(address, port)] at which any of these processes listens."""
    inodes = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for number in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):
                    target = os.readlink(f"/proc/{pid}/fd/{number}")
                    if target.startswith("socket:["):
                        inodes.add(int(target[len("socket:["):-1]))
    if not inodes:
        return []
    try:
        return [(found.address, found.port) for family in (socket.AF_INET, socket.AF_INET6)
                for found in _diag(family) if found.inode in inodes]
    except OSError:
        return [_address(fields[1]) for name in ("tcp", "tcp6")
                for fields in _sockets(name, f" {LISTEN} ") if fields[3] == LISTEN
                and int(fields[9]) in inodes]


def _diag(family, source=None, destination=None):
    """Asks Linux for the TCP socket of this connection, or for all that listen. Raises OSError
    if there is none, or if this kernel cannot tell."""
    size = 16 if family == socket.AF_INET6 else 4
    ends = source or ("", 0), destination or ("", 0)
    request = struct.pack(
        "=BBxxI4s16s16sI8s", family, socket.IPPROTO_TCP,
        0xffffffff if source else 1 << int(LISTEN, 16),
        struct.pack("!HH", ends[0][1], ends[1][1]),
        *(socket.inet_pton(family, end[0]) if end[0] else b"" for end in ends), 0, b"\xff" * 8)
    found = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as kernel:
        kernel.send(struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY,
                                NLM_F_REQUEST | (0 if source else NLM_F_DUMP), 0, 0) + request)
        while True:
            data = kernel.recv(1 << 16)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", data, 16)[0]
                    raise OSError(code, os.strerror(code))
                if kind == NLMSG_DONE:
                    return found
                port, _, address = struct.unpack_from("!HH16s", data, 20)
                found.append(Socket(_plain(family, address[:size]), port,
                                    *struct.unpack_from("=II4xI", data, 72)))
                data = data[length + 3 & ~3:]
            if source:
                return found


def _sockets(name, part):
    """The fields of the lines with this part in them: of tens of thousands few are wanted."""
    with contextlib.suppress(OSError), open(f"/proc/net/{name}", encoding="ascii") as lines:
        for line in lines:
            if part in line:
                yield line.split()


def _address(text):
    """proc(5) gives the address as 32-bit words in the machine's byte order."""
    digits, _, port = text.partition(":")
    words = [int(digits[at:at + 8], 16).to_bytes(4, sys.byteorder)
             for at in range(0, len(digits), 8)]
    family = socket.AF_INET if len(words) == 1 else socket.AF_INET6
    return _plain(family, b"".join(words)), int(port, 16)


def _plain(family, address):
    """The address in words. An IPv6 socket can have an IPv4 address, as those of Java have."""
    return socket.inet_ntop(family, address).replace("::ffff:", "")


def _read(pid, name):
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()


def _bytes(text, key):
    found = re.search(rf"(?m)^{key}:\s+(\d+) kB", text)
    if not found:
        raise OSError(f"no {key}")
    return int(found[1]) * 1024
