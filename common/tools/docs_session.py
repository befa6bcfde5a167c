"""Runs the commands of one block of a document."""

import ctypes
import fcntl
import os
import pathlib
import pty
import re
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TREE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TREE / "clients"))

import docs_markdown as markdown    # noqa: E402
from lib import figures, processes, servers     # noqa: E402

SECONDS = 100           # for a command
LONG_SECONDS = 900      # for one in a block marked as long
START_SECONDS = 10      # until a server listens
END_SECONDS = 10        # until it has stopped
LEAVE_SECONDS = 2       # until what a command has started in the background has ended, too
STARTS = re.compile(r"make\b.* run\b|\S*/server\b|\S*/variants/\w+")    # a server
LISTENS = re.compile(r"^Listening on ", re.MULTILINE)
OPTIONAL = ("nc docker debootstrap strace redis-server redis-cli redis-benchmark gnuplot bear "
            "valgrind perf clang ps ss gdb").split()
# What `make check` itself consists of, and what takes minutes: only whether make knows it.
ELSEWHERE = re.compile(r"make (?:-C \S+ )?(?:check-full|check|test|bench-check|bench|memcheck|"
                       r"fuzz|coverage|matrix|lint|format-check|format|dockerfile-check)\b")
# The whole suite, which `make check` runs on every server: one case, but in a long block all.
SUITE = re.compile(r"(clients/check-server\.py)((?: (?!--only|--quick|--help)\S+)*)$")
TYPE = re.compile(r"#.*\btype:? (\S+)")
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


class Wrong(Exception):
    """A block is not as it is shown; the text is for people."""


class Skipped(Exception):
    """Something cannot be run here."""


def enter_network():
    """Give this process a network of its own, with only the loopback device. Returns whether
    the system permits that."""
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
                return False
            pathlib.Path("/proc/self/setgroups").write_text("deny")
            pathlib.Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            pathlib.Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket() as device:     # SIOCGIFFLAGS, and SIOCSIFFLAGS with IFF_UP
            request = fcntl.ioctl(device, 0x8913, struct.pack("16sh14x", b"lo", 0))
            flags = struct.unpack("16sh14x", request)[1] | 1
            fcntl.ioctl(device, 0x8914, struct.pack("16sh14x", b"lo", flags))
        return True
    except (OSError, AttributeError):
        return False


def copy_tree(folder):
    """A copy of the tree as built: documents may build it in other ways. make builds nothing
    again, because the times of the files stay."""
    def left_out(path, names):
        inside = pathlib.Path(path).relative_to(TREE)
        return [name for name in names if name in (".git", "__pycache__", "corpus")
                or inside.parts == () and name == "build"
                or inside.name in ("build", "load") and name == "tests"]
    shutil.copytree(TREE, folder, symlinks=True, ignore=left_out)


def environment():
    chosen = dict(os.environ, NO_INSTALL="1", LC_ALL="C.UTF-8", TERM="dumb", PAGER="cat",
                  PYTHONDONTWRITEBYTECODE="1")
    for name in "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "GNUMAKEFLAGS", "STEP", "STEPS":
        chosen.pop(name, None)
    return dict(chosen, MAKEFLAGS="--no-print-directory")


def cpu_seconds():
    """Used by this process and its children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


class Session:
    """The commands of one block, and the servers that they started."""

    def __init__(self, folder, ports, long):
        self.folder, self.ports, self.whole = folder, ports, long
        self.seconds = LONG_SECONDS if long else SECONDS
        self.started = []           # (process, command, whether it is in the background)
        self.last = None            # process id for $!

    def replaced(self, text):
        """A command with other ports, where the network is not our own."""
        def port(found):
            return str(self.ports.setdefault(found[0], servers.free_port()))
        return text if self.ports is None else re.sub(r"(?<![\w.])80\d\d(?!\w)", port, text)

    def run(self, command, typed=()):
        """Run one command. Returns its exit status, None for a server, and its output."""
        text = self.replaced(command.strip())
        if self.last:
            text = text.replace("$!", str(self.last))
        background = re.search(r"(?<!&)&\s*(#.*)?$", text)
        text = text[:background.start()] if background else text
        if SUITE.match(text) and not self.whole:
            text = SUITE.sub(r"\1 --only known-exchange \2", text)
        if ELSEWHERE.match(text):
            words = re.sub(r"\s#.*", "", text).split()
            return (0 if markdown.known_to_make(words, self.folder) else 2), ""
        missing = [name for name in OPTIONAL if not shutil.which(name)
                   and re.search(rf"(?:^|[|;(] *)(?:\w+=\S* )*{name} ", text + " ")]
        if missing:
            raise Skipped(f"{missing[0]} is not installed")
        if typed:
            return self.on_terminal(text, list(typed))
        stdin = subprocess.DEVNULL
        keys = TYPE.search(text)
        if keys:
            stdin = tempfile.TemporaryFile()
            stdin.write(keys[1].encode() + b"\n")
            stdin.seek(0)
        if STARTS.match(text) and not background:   # where the last one ran, in one terminal
            self.stop([each for each in self.started if not each[2]])
        process = processes.Process(["bash", "-c", text], stdin=stdin, cwd=str(self.folder),
                                    env=environment())
        listening = self.wait(process, bool(background), text)
        if not listening:
            output, status = process.output(), process.poll()
            left = [] if status is None else process.left_behind(LEAVE_SECONDS)
            left = [figures.command_line(pid) for pid in left]
            process.end()
            if left:
                raise Wrong(f"{command}\nleft running: {', '.join(left)}")
            if status is None:
                raise Wrong(f"{command}\nran for {self.seconds} s and longer:\n{output}")
            return status, output
        if background:
            self.last = process.pid
        self.started.append((process, command, bool(background)))
        return None, process.output()

    def wait(self, process, background, text):
        """Until it has ended, or listens as a server does: then True."""
        deadline = time.monotonic() + self.seconds
        while time.monotonic() < deadline:
            if process.wait(0.02) is not None:
                return False
            if not text.startswith("(") and LISTENS.search(process.output(1 << 12)):
                return True
            if background and time.monotonic() > deadline - self.seconds + START_SECONDS:
                return True
        return False

    def on_terminal(self, text, typed):
        """Run it on a terminal, and type each text when what stands before it has come."""
        master, slave = pty.openpty()
        with processes.Process(["bash", "-c", text], stdin=slave, stdout=slave, stderr=slave,
                               cwd=str(self.folder), env=environment()) as process:
            os.close(slave)
            output, since, deadline = "", time.monotonic(), time.monotonic() + self.seconds
            while time.monotonic() < deadline:
                if select.select([master], [], [], 0.05)[0]:
                    try:
                        data = os.read(master, 4096)
                    except OSError:     # the other side is closed: it has ended
                        break
                    output, since = output + data.decode(errors="replace"), time.monotonic()
                line = output.replace("\r", "").rpartition("\n")[2]
                if typed and line.strip() == typed[0][0].strip():
                    os.write(master, typed.pop(0)[1].encode() + b"\n")
                elif not typed and time.monotonic() - since > 0.5:
                    os.write(master, b"\x04")
                    since = deadline
            status = process.wait(END_SECONDS)
        os.close(master)
        return status, output.replace("\r", "").replace("^D\b\b", "")

    def stop(self, chosen):
        for each in chosen:
            process, command, _ = each
            process.signal_group(signal.SIGTERM)
            status = process.wait(END_SECONDS)
            if status is not None and process.left_behind(LEAVE_SECONDS):
                status = None
            output = process.output()
            process.end()
            self.started.remove(each)
            if status not in (0, -signal.SIGTERM) and (
                    status is None or not command.lstrip().startswith(("make", "strace"))):
                raise Wrong(f"{command}\nended with status {status} when it was stopped; it "
                            f"printed\n{output}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.stop(list(self.started))
        finally:
            processes.end_all()
