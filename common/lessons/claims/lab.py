"""What claims measure with: sockets, programs, servers of the course, and a time limit."""

import array
import contextlib
import fcntl
import json
import os
import pathlib
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time

from . import Undecided

HERE = pathlib.Path(__file__).resolve().parent
TREE = HERE.parents[2]
sys.path.insert(0, str(TREE / "clients"))

from lib import figures, processes, servers, tree   # noqa: E402, F401

BUILD = HERE.parent / "build"
SECONDS = 120       # for one claim; some measure three servers
PATIENCE = 2        # seconds for anything that happens at once on a machine that is not busy
NEVER = 0.05        # seconds after which what has not happened will not happen


class Lab:
    """The surroundings of one measurement: `with Lab() as lab`. Leaving closes and ends all.

    doctored   use the counterparts, for which the opposite verdict must come out
    say        called with each line of the working
    """

    def __init__(self, doctored=False, say=lambda line: None):
        self.doctored, self.show = doctored, say
        self.kept = contextlib.ExitStack()

    def __enter__(self):
        if sys.platform != "linux":
            raise Undecided("the ledger is about Linux")

        def too_long(number, frame):
            raise Undecided(f"not done after {SECONDS} seconds")
        self.before = signal.signal(signal.SIGALRM, too_long)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        return self

    def __exit__(self, *_):
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)
        self.kept.close()

    def either(self, real, counterpart):
        return counterpart if self.doctored else real

    def keep(self, thing):
        """Closes it in the end."""
        return self.kept.enter_context(thing)

    # Sockets

    def listener(self, backlog=128, address="127.0.0.1"):
        return self.keep(socket.create_server((address, 0), backlog=backlog))

    def connect(self, server):
        """A client of a listening socket, or of a server."""
        address = server.getsockname() if hasattr(server, "getsockname") else server.address
        return self.keep(socket.create_connection(address, PATIENCE * 5))

    def tcp_pair(self):
        """Both ends of a TCP connection; the first is the client's."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = self.connect(listener)
            client.settimeout(None)
            accepted, _ = listener.accept()
        return client, self.keep(accepted)

    def unix_pair(self, kind=socket.SOCK_STREAM):
        return tuple(map(self.keep, socket.socketpair(socket.AF_UNIX, kind)))

    def pipe(self):
        """The reading and the writing end, as files without a buffer."""
        reading, writing = os.pipe()
        return (self.keep(open(reading, "rb", buffering=0)),
                self.keep(open(writing, "wb", buffering=0)))

    # Programs

    def program(self, name):
        """A small C program that stands beside the claims, built if need be."""
        return compile_c(HERE / f"{name}.c", BUILD / name)

    def run(self, *command, prepare=None):
        self.show("$ " + " ".join(shorten(word) for word in command))
        done = processes.capture([str(word) for word in command], SECONDS, prepare=prepare)
        if done.trouble:
            raise Undecided(f"{shorten(command[0])}: {done.trouble}")
        return done

    def server(self, name, *arguments):
        """A running server of the course: "step6", "step5/poll", "step8/demos/slow_command"."""
        path = find_server(name)
        self.show(f"$ {shorten(path)} {' '.join(map(str, arguments))} 0")
        return self.keep(servers.Server([path, *arguments]))

    def counted_server(self, name, *arguments):
        """The same with --quiet and its own counters: finish() stops it and returns them."""
        folder = self.keep(tempfile.TemporaryDirectory(prefix="claims-"))
        path = pathlib.Path(folder) / "stats"
        server = self.server(name, "--quiet", "--stats", path, *arguments)

        def finish():
            server.stop()
            counters = json.loads(path.read_text(encoding="utf-8"))
            self.show("  " + ", ".join(f"{key} {counters[key]}" for key in (
                "accept_calls", "wait_calls", "recv_calls", "recv_again", "send_calls")))
            return counters
        server.finish = finish
        return server

    def process(self, command, **options):
        return self.keep(processes.Process([str(word) for word in command], **options))

    def in_child(self, function):
        """What a function returns in a process of its own, or the signal that ends it."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                signal.setitimer(signal.ITIMER_REAL, 0)
                result = function()
                os.write(writing, pickle.dumps(result))
                status = 0
            os._exit(status)
        os.close(writing)
        try:
            with open(reading, "rb") as pipe:
                result = pipe.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return signal.Signals(os.WTERMSIG(status))
        if not result:
            raise Undecided("a process failed")
        return pickle.loads(result)


def compile_c(source, program, *flags):
    """Builds one C program, unless it is newer than its source. Undecided without a compiler,
    or where it lacks what the flags ask for."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        raise Undecided(f"{compiler[0]} is not installed")
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = pathlib.Path(folder) / program.name
        done = subprocess.run(
            [*compiler, "-std=c11", "-D_GNU_SOURCE", "-pthread", *(flags or ["-O2"]), "-o",
             str(made), str(source)], stderr=subprocess.PIPE, encoding="utf-8")
        if done.returncode:
            raise Undecided(f"cannot build {source.name}: {done.stderr.strip()[:200]}")
        os.replace(made, program)
    return program


def find_server(name):
    step, _, rest = name.partition("/")
    folders = dict(tree.steps(TREE))
    folder = folders[int(step[len("step"):])]
    path = folder / ("server" if not rest else "build/" + (
        rest if rest.startswith("demos/") else f"variants/{rest}"))
    if not tree.is_program(path):
        raise Undecided(f"{shorten(path)} is not built")
    return path


def shorten(path):
    return str(path).replace(f"{TREE}/", "")


def until(condition, seconds=PATIENCE):
    """Waits until it is so; whether it became so in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.0005)
    return True


def unread(sock):
    """Bytes in a socket's receive buffer."""
    count = array.array("i", [0])
    fcntl.ioctl(sock, termios.FIONREAD, count)
    return count[0]


def arrived(sock, count):
    if not until(lambda: unread(sock) >= count):
        raise Undecided(f"{count} bytes did not arrive in {PATIENCE} seconds")


def read_to_end(sock, size=1 << 16):
    """All bytes until the end, and the error that ended it ("" if none)."""
    received = 0
    try:
        while True:
            piece = sock.recv(size)
            if not piece:
                return received, ""
            received += len(piece)
    except OSError as error:
        return received, error.strerror


def read_exactly(sock, count):
    received = b""
    while len(received) < count:
        piece = sock.recv(count - len(received))
        if not piece:
            break
        received += piece
    return received


def greet(sock):
    """Reads the greeting of a server of the course."""
    if read_exactly(sock, 1) != b"*":
        raise Undecided("the server did not greet")
    return sock


def talk(sock, messages, size=3):
    """Sends messages, each when the answer to the one before is there."""
    for _ in range(messages):
        sock.sendall(b"^" + b"a" * size + b"$")
        read_exactly(sock, size)


def raise_limit(wanted):
    """Of descriptors in this process, and in what it starts."""
    most = processes.allow_descriptors(wanted)
    if most < wanted:
        raise Undecided(f"at most {most} descriptors are allowed")


def best_time(function, rounds=5):
    """Seconds of the fastest of some rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        times.append(time.perf_counter() - began)
    return min(times)
