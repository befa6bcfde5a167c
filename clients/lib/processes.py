"""Start programs together with all that they start, bound what they print, and end them.

A program under test may be a script that starts another, a server that forks, or a daemon that
leaves its session. To find all of them, each program is started

- in a process group and session of its own,
- with a mark in its environment, which its children inherit (found in /proc/PID/environ), and
- on Linux by a parent that adopts orphans, so that also those without the mark stay below us.

Its output goes to a file, not to a pipe: a pipe that a child keeps open has no end. A thread
watches the size of the files, and ends a program that prints too much. Every wait is bounded.

    with Process(["./server", "8080"]) as process:
        ...                             # leaving ends it, with all that it started

    done = capture(["./server", "--help"], timeout=2)

    if __name__ == "__main__":
        program(main)                   # SIGHUP, SIGINT and SIGTERM end what was started
"""

import contextlib
import ctypes
import errno
import itertools
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple

from . import figures
from .reports import any_text_may_be_printed, clean

MIB = 1 << 20
OUTPUT_LIMIT = 32 * MIB     # what one program may print before it is ended
SHOWN = MIB                 # how much of it is read back at most
KILL_SECONDS = 5            # within which a killed process has ended
WATCH = 0.02                # seconds between two looks at the size of the outputs
POLL = 0.003
MOST_MS = 2 ** 31 - 1       # poll(2) takes no more
# What this machine may run out of, or not have: no fault of a program under test.
LACKING = {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM,
           errno.EAFNOSUPPORT, errno.ENOSYS}
SIGNALS = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM"))
PR_SET_CHILD_SUBREAPER = 36

Captured = namedtuple("Captured", "status stdout stderr trouble")

_running = {}       # process id: Process, for all that were started and not yet ended
_watcher = None
_watching = threading.Lock()    # held while _watcher changes
_numbers = itertools.count(1)      # next() is one step, also among threads
_adopter = None     # the process id under which we adopt orphans
_stopping = False   # a signal told us to end: nothing more is started


class Process:
    """A program and all that it starts: `with Process(command) as process`.

    output   the file for its output and error output; None: a temporary one
    limit    bytes of output (and of error output in a file of its own) after which it is
             ended, and `flooded` is set
    prepare  called in the child before the program starts; descriptors that it opens stay open
    stdin, stdout, stderr, env, cwd: as subprocess takes them
    """

    def __init__(self, command, output=None, limit=OUTPUT_LIMIT, prepare=None, env=None,
                 stdin=subprocess.DEVNULL, stdout=None, stderr=None, cwd=None):
        if _stopping:
            raise OSError(errno.ECANCELED, "nothing is started any more")
        number = next(_numbers)
        adopt_orphans()
        self.command, self.limit, self.flooded = command, limit, False
        self.cpu_used = 0.0         # its own and its children's, where wait() can see them
        self.mark = f"{_mark_name()}={number}"
        self.output_file = output or tempfile.TemporaryFile()
        self.files = [self.output_file] + ([stderr] if hasattr(stderr, "fileno") else [])
        environment = dict(os.environ if env is None else env)
        environment[_mark_name()] = str(number)
        try:
            self.popen = subprocess.Popen(
                command, env=environment, stdin=stdin, stdout=stdout or self.output_file,
                stderr=stderr or self.output_file, cwd=cwd, preexec_fn=prepare,
                close_fds=prepare is None, start_new_session=True)
        except OSError as error:
            if output is None:
                self.output_file.close()
            raise OSError(error.errno, why_not_started(str(command[0]), error)) from error
        self.pid = self.popen.pid
        _running[self.pid] = self
        _watch()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self.output_file.close()

    def poll(self):
        """Its exit status, or None while it runs."""
        return self.popen.poll()

    def wait(self, seconds):
        """Its exit status, or None if it still runs after this time (None: no limit)."""
        if self.poll() is not None:
            return self.poll()
        deadline = None if seconds is None else time.monotonic() + seconds
        ms = None if seconds is None else min(max(0, 1000 * seconds), MOST_MS)
        with contextlib.suppress(AttributeError, OSError):  # Linux wakes us when it has ended
            ended = os.pidfd_open(self.pid)
            try:
                poll = select.poll()
                poll.register(ended, select.POLLIN)
                if poll.poll(ms):
                    self.cpu_used = figures.cpu_seconds_with_waited(self.pid)
            finally:
                os.close(ended)
        try:    # elsewhere it looks now and then; and a tracer may see the end before us
            return self.popen.wait(deadline and max(0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, signum):
        """Signal the program itself, unless it has ended."""
        self.popen.send_signal(signum)

    def signal_group(self, signum):
        """Signal its process group: itself, and what it started there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def members(self):
        """The ids of all its living processes: group, session, mark, and their descendants."""
        if not figures.AVAILABLE:
            return [self.pid] if self.poll() is None else []
        table = _below()
        found = {entry.pid for entry in table.values()
                 if self.pid in (entry.pid, entry.group, entry.session)
                 or figures.has_in_environment(entry, self.mark)}
        return sorted(pid for pid in figures.with_descendants(found, table)
                      if table[pid].state not in "ZX" and pid != os.getpid())

    def left_behind(self, seconds=0.0):
        """The processes that still run after `seconds` although it has ended."""
        deadline = time.monotonic() + seconds
        while True:
            reap()
            left = self.members()
            if not left or time.monotonic() >= deadline:
                return left
            time.sleep(POLL)

    def end(self, grace=0.0):
        """End it with all that it started: by SIGTERM if it is given time, then by force.
        Return its exit status, or None if even that did not help."""
        if grace and self.poll() is None:
            self.signal_group(signal.SIGTERM)
            self.wait(grace)
        _kill_all(self.members, self)
        _running.pop(self.pid, None)
        return self.poll()

    def size(self):
        """Bytes of output so far."""
        total = 0
        for file in self.files:
            with contextlib.suppress(ValueError, OSError):  # closed, maybe at this moment
                total += os.fstat(file.fileno()).st_size
        return total

    def output(self, most=SHOWN):
        """What it printed; of too much the beginning and the end."""
        return read_bounded(self.output_file, most)


def why_not_started(path, error):
    """The reason in words. The kernel says "No such file" also of a script whose interpreter
    does not exist."""
    if error.errno == errno.ENOEXEC:
        return ("it is neither a program for this machine nor a script with `#!` on its first "
                "line")
    if error.errno == errno.ENOENT and os.path.isfile(path):
        with contextlib.suppress(OSError), open(path, "rb") as file:
            line = file.readline(256)
            named = os.fsdecode(line[2:].strip().partition(b" ")[0])
            if line.startswith(b"#!") and line.endswith(b"\r\n"):
                return "its lines end as on Windows, in CR LF; here they must end in LF"
            if line.startswith(b"#!"):
                return f"its first line names a program that does not exist: {named}"
            return "it needs a loader that this machine does not have"
    return error.strerror


def lacking(error):
    """What this machine lacks, in words, if that is the reason of an exception; else ""."""
    text = str(error)
    if (isinstance(error, MemoryError) or getattr(error, "errno", None) in LACKING
            or (isinstance(error, RuntimeError) and "start new thread" in text)
            or (isinstance(error, FileNotFoundError) and "temporary directory" in text)):
        return getattr(error, "strerror", None) or text or "out of memory"
    return ""


def read_bounded(file, most=SHOWN):
    file.flush()
    size, number = os.fstat(file.fileno()).st_size, file.fileno()
    if size <= most:
        return os.pread(number, size, 0).decode("utf-8", "replace")
    head, tail = os.pread(number, most // 2, 0), os.pread(number, most // 2, size - most // 2)
    return (f"{head.decode('utf-8', 'replace')}\n... {size - most} bytes are left out ...\n"
            f"{tail.decode('utf-8', 'replace')}")


def capture(command, timeout, limit=MIB, stdout=None, **options):
    """Run a program that is meant to end by itself. Returns its exit status (None if it was
    ended), its output, its error output, and why it was ended ("" if it was not). All
    that it leaves running is ended."""
    with tempfile.TemporaryFile() as errors, \
            Process(command, limit=limit, stdout=stdout, stderr=errors, **options) as process:
        status, deadline = None, time.monotonic() + timeout
        while status is None and time.monotonic() < deadline and not process.flooded:
            status = process.wait(min(0.1, max(0, deadline - time.monotonic())))
        process.end()
        flooded = process.flooded or process.size() > limit
        trouble = (f"it printed more than {limit // 1024} KiB" if flooded else
                   f"it was still running after {timeout:g} s" if status is None else "")
        return Captured(None if trouble else status, process.output(),
                        read_bounded(errors), trouble)


# All of them.

def end_all(grace=0.0):
    """End all that this program started, in bounded time."""
    for process in list(_running.values()):
        if grace:
            process.signal_group(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for process in list(_running.values()):
        if grace:
            process.wait(max(0, deadline - time.monotonic()))
        process.end()
    _kill_all(strays)


def strays():
    """All processes that descend from us or carry a mark of this run."""
    if not figures.AVAILABLE:
        return []
    table = figures.table()
    marked = {entry.pid for entry in table.values()
              if figures.has_in_environment(entry, _mark_name() + "=", prefix=True)}
    found = figures.with_descendants({os.getpid(), *marked}, table) - {os.getpid()}
    return sorted(pid for pid in found if table[pid].state not in "ZX")


def adopted(ended=False):
    """Children of ours that we adopted, such as daemons: the living ones, or those that have
    ended. A child that we start without Process, such as by os.fork(), stays in our session."""
    if not figures.AVAILABLE:
        return []
    return sorted(entry.pid for entry in _below().values()
                  if entry.parent == os.getpid() and entry.session != os.getsid(0)
                  and entry.pid not in _running and (entry.state in "ZX") == ended)


def end_adopted():
    _kill_all(adopted)


def reap():
    """Take the exit status of adopted children that have ended, so that they vanish."""
    for pid in adopted(ended=True):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def adopt_orphans():
    """From now on a process below us whose parent ends becomes our child (Linux)."""
    global _adopter
    if sys.platform.startswith("linux") and _adopter != os.getpid():
        with contextlib.suppress(OSError, AttributeError):
            if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0:
                _adopter = os.getpid()


def _below():
    """Our descendants, if we adopt orphans; else all processes."""
    return figures.family() if _adopter == os.getpid() else figures.table()


def _mark_name():
    """Each program that uses this has a mark of its own: tools start one another."""
    return f"ECHO_COURSE_RUN_{os.getpid()}"


def _kill_all(living, process=None):
    """Kill until none is left: a process that is killed may have forked just before."""
    deadline = time.monotonic() + KILL_SECONDS
    while True:
        if process:
            process.signal_group(signal.SIGKILL)
            process.poll()
        left = living()
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not left and (process is None or process.poll() is not None):
            return
        if time.monotonic() > deadline:
            return
        time.sleep(POLL)
        reap()


def _watch():
    global _watcher
    with _watching:
        if _watcher is None:
            _watcher = threading.Thread(target=_bound_outputs, daemon=True)
            _watcher.start()


def _bound_outputs():
    global _watcher
    while True:
        with _watching:     # else a process that is started now could have no watcher
            if not _running:
                _watcher = None
                return
        for process in list(_running.values()):
            if not process.flooded and process.size() > process.limit:
                process.flooded = True
                _kill_all(process.members, process)
        time.sleep(WATCH)


# Programs of ours.

class Trouble(Exception):
    """A program did not do what it must; the text is for people."""


class Stopped(SystemExit):
    """A signal told this program to end; its exit status is 128 + the signal's number."""


def end_on_signals(grace=0.0):
    """From now on SIGHUP, SIGINT and SIGTERM end what was started, then this program. A signal
    that is ignored, as by nohup, stays ignored."""
    def stop(number, _):
        global _stopping
        _stopping = True
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)     # the end must not be interrupted
        signal.setitimer(signal.ITIMER_REAL, 0)
        end_all(grace)
        raise Stopped(128 + number)

    adopt_orphans()
    for each in SIGNALS:
        if signal.getsignal(each) != signal.SIG_IGN:
            signal.signal(each, stop)


def allow_descriptors(wanted):
    """Raise the limit of descriptors, for this program and what it starts, to `wanted`, or as
    far as is allowed. Return the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return sys.maxsize
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        with contextlib.suppress(OSError, ValueError):  # macOS: the kernel has its own limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            return most
    return soft


def use_default_signals():
    """The program that started us may ignore SIGCHLD. Then the kernel keeps no exit status, and
    a server that crashed would seem to have ended well. It may also block signals, such as
    SIGALRM."""
    with contextlib.suppress(ValueError):       # not the main thread
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _drop_output():
    """What Python still holds for standard output cannot be written: it must not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def program(main, name="", grace=0.0):
    """Run main() and exit with the status it returns. All that it started ends before. If the
    program gives its name, trouble is reported in one line that begins with the name."""
    any_text_may_be_printed()
    use_default_signals()
    end_on_signals(grace)
    try:
        try:
            status = main()
        finally:
            end_all(grace)
            print(end="", flush=True)
    except BrokenPipeError:     # its reader has ended, as with `| head`
        _drop_output()
        status = 1
    except Exception as problem:
        if isinstance(problem, shutil.Error):   # a list; the first says enough
            _, path, why = problem.args[0][0]
            problem = OSError(f"cannot copy to {path}: {why}")
        expected = name and isinstance(problem, (OSError, ValueError, Trouble))
        if not expected and not lacking(problem):
            raise
        if getattr(problem, "errno", None) == errno.ENOSPC:
            _drop_output()
        name = name or os.path.basename(sys.argv[0])
        named = getattr(problem, "filename", None)
        reason = getattr(problem, "strerror", None) or lacking(problem)
        sys.exit(clean(f"{name}: {reason if reason and not named else problem}"))
    except Stopped as stopped:  # at once: no thread that still waits for a server delays it
        with contextlib.suppress(OSError):
            sys.stderr.flush()
        os._exit(stopped.code)
    sys.exit(status)
