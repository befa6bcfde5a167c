"""What Linux's /proc tells of a process and its connections."""

import os
import re
import resource
import sys
import time

AVAILABLE = sys.platform.startswith("linux") and os.path.isdir("/proc/self/fd")
TICKS = os.sysconf("SC_CLK_TCK")
ESTABLISHED = "01"


def cpu_seconds(pid):
    """User and system time of all its threads, those that have ended included. The clock of
    clock_getcpuclockid(3) counts nanoseconds; /proc, where there is none, hundredths."""
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        fields = _read(pid, "stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def delay_seconds(pid):
    """How long its threads were ready to run and had to wait for a processor, in all; 0 where
    the kernel does not count it."""
    total = 0
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            total += int(_read(pid, "task/%s/schedstat" % thread).split()[1])
        except OSError:
            pass    # it ended meanwhile
    return total / 1e9


def states(group):
    """What the threads of a group's processes are at, by the letters of proc(5): R runs or
    could, S sleeps until something happens, T is stopped. The dead (Z) do not count."""
    found = set()
    for pid in members(group):
        try:
            for thread in os.listdir("/proc/%d/task" % pid):
                stat = _read(pid, "task/%s/stat" % thread)
                found.add(stat.rpartition(")")[2].split()[0])
        except OSError:
            pass    # it ended meanwhile
    return found - {"Z"}


def is_pending(pid, signum):
    """A signal for the whole process that was sent and not taken yet."""
    mask = re.search(r"(?m)^ShdPnd:\s*(\w+)", _read(pid, "status")).group(1)
    return bool(int(mask, 16) >> (signum - 1) & 1)


def threads(pid):
    return len(os.listdir("/proc/%d/task" % pid))


def descriptors(pid):
    return len(os.listdir("/proc/%d/fd" % pid))


def resident_bytes(pid):
    """Exact, from the page tables: the cheap counters lag by some pages per processor."""
    return _kib(_read(pid, "smaps_rollup"), "Rss:")


def own_bytes(pid):
    """Memory that exists because of the processes of a group: what they wrote themselves."""
    total = 0
    for member in members(pid):
        try:
            total += _kib(_read(member, "smaps_rollup"), "Private_Dirty:")
        except OSError:
            pass    # it ended meanwhile
    return total


def members(group):
    """The processes of a group, which a server that forks may fill."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(pid)) == group:
                yield int(pid)
        except OSError:
            pass


def virtual_bytes(pid):
    return _kib(_read(pid, "status"), "VmSize:")


def uses_sanitizer(pid):
    """Address and thread sanitizers reserve terabytes; then memory figures mean little."""
    return virtual_bytes(pid) > 1 << 40


def tasks_of_user(uid):
    """Threads of all processes of a user: what RLIMIT_NPROC is compared with."""
    count = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat("/proc/" + pid).st_uid == uid:
                count += threads(int(pid))
        except OSError:
            pass    # it ended meanwhile
    return count


def unread_bytes(server_port, client_port):
    """What waits in the server's socket of one IPv4 connection, not yet received by it."""
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in table:
            fields = line.split()
            if (fields[1].endswith(":%04X" % server_port)
                    and fields[2].endswith(":%04X" % client_port)):
                return int(fields[4].partition(":")[2], 16)
    return 0


def limit(pid, which, soft):
    """Change a limit of a running process; return the pair it had."""
    before = resource.prlimit(pid, which)
    resource.prlimit(pid, which, (soft, before[1]))
    return before


def _read(pid, name):
    with open("/proc/%d/%s" % (pid, name), encoding="ascii", errors="replace") as file:
        return file.read()


def _kib(text, key):
    for line in text.splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise OSError("no %s" % key)
