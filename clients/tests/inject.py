#!/usr/bin/env python3
"""Makes a server's system calls fail, from outside, while clients use it.

    inject.py PATH_TO_SERVER [-- SERVER_ARGS]

strace lets a call fail with an error, for example every second recv. Errors that only mean
"again" must cost no client a byte. An error that is fatal to a connection may cost that client
its connection, and nothing else. No client ever gets a wrong byte or waits for ever, and the
server goes on and ends with status 0. While accept fails for good, the server must neither spin
nor count clients as rejected that it never saw. Faults in calls that the server does not make
are left out. Writes TAP; without strace all is skipped or, with REQUIRE_ALL=1, fails.
"""

import contextlib
import functools
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import namedtuple

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from lib import figures, processes, servers         # noqa: E402
from lib.reports import clean, tap_line             # noqa: E402

CLIENTS = 4
PATIENCE = 10 * float(os.environ.get("CHECK_SLOW") or 1)
SENDS = [b"^abc$de^abte$f", b"xyz^123", b"25$^ab0000$abab", b"^" + b"a" * 100000 + b"$"]
RECEIVES = b"*" + b"bcdbcuf" + b"234" + b"36bc1111" + b"b" * 100000

# What the servers call; libuv reads and writes where we receive and send.
ACCEPT, RECV, SEND = "accept,accept4", "recvfrom,read", "sendto,write"
WAIT = ("epoll_wait,epoll_pwait,pselect6,select,poll,ppoll,clock_nanosleep,nanosleep,"
        "io_uring_enter")

# `when` is strace's, and goes for each thread: 1+2 is the first call and every second one after
# it. `lost` is how many clients each error may cost. `unless` names traits of servers for which
# the row makes no sense: an edge-triggered server is told only once that a socket is ready, so
# it must be able to rely on EAGAIN. EINTR is not EAGAIN, also on a socket that does not block.
Fault = namedtuple("Fault", "calls error when lost unless")
FAULTS = [
    Fault(RECV, "EINTR", "1+2", 0, None),
    Fault(RECV, "EINTR", "2+3", 0, None),
    Fault(SEND, "EINTR", "1+2", 0, None),
    Fault(WAIT, "EINTR", "1+2", 0, None),
    Fault(RECV, "EAGAIN", "1+2", 0, "blocking edge-triggered"),
    Fault(SEND, "EAGAIN", "1+2", 0, "blocking edge-triggered"),
    Fault(ACCEPT, "EINTR", "1+2", 0, None),
    Fault(ACCEPT, "ECONNABORTED", "1+2", 0, None),
    Fault(ACCEPT, "EAGAIN", "1+2", 0, "blocking"),
    Fault(ACCEPT, "ENOBUFS", "1+2", 0, None),
    Fault(ACCEPT, "EMFILE", "1", CLIENTS, None),    # libuv closes all that are pending
    Fault("setsockopt", "ENOPROTOOPT", "1+", 0, None),
    Fault(RECV, "ECONNRESET", "1", 1, None),
    Fault(RECV, "ETIMEDOUT", "3", 1, None),
    Fault(RECV, "EAGAIN", "2", 1, "non-blocking"),      # a time limit has passed
    Fault(SEND, "EPIPE", "1", 1, None),
    Fault(SEND, "EPIPE", "2", 1, None),
    Fault(SEND, "ECONNRESET", "4", 1, None),
    Fault("fcntl", "EBADF", "1", 1, None),
    Fault("fcntl", "EBADF", "3", 1, None),
    Fault("epoll_ctl", "ENOSPC", "1", 1, "libuv"),  # there it is an abort(), by design
    Fault("clone,clone3", "EAGAIN", "2", 1, None),
    Fault("mmap", "ENOMEM", "1", 1, "sanitizer"),   # it would miss the memory itself
]


# A client lost to one of these was rejected, which the server reports and counts.
REJECTING = {"fcntl", "epoll_ctl", "clone,clone3"}
# With these accept fails for good: out of descriptors here or in the system, out of memory, or
# forbidden by a security module.
LASTING = "ENOBUFS", "EMFILE", "ENFILE", "ENOMEM", "EPERM"
STOPPING = 0.05     # seconds for a call that is under way to return
WINDOW = 0.5        # seconds to watch a server whose accept fails for good
MOST_CALLS = 300    # accept calls of a thread within; one that spins makes ten thousands
MOST_CPU = 0.5      # of the window


class Wrong(Exception):
    """The server did something that no fault excuses."""


class NoStrace(Exception):
    """It is there, but may not attach."""


class Server:
    """One server, and the strace that meddles with it."""

    def __init__(self, command, folder):
        self.log, self.strace = folder / "strace", None
        try:
            self.process = servers.Server([*command, "--quiet", "--port"], PATIENCE)
        except servers.Trouble as trouble:
            raise Wrong(str(trouble)) from None
        self.port = self.process.port

    def traits(self):
        """What `unless` may name; looked up while a client is connected."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        found = {"libuv"} if "/libuv" in (proc / "maps").read_text() else set()
        if int((proc / "statm").read_text().split()[0]) > 1 << 28:     # pages: 1 TiB of shadow
            found.add("sanitizer")
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            connection.recv(1)
            infos, polls = [], []
            for fd in (proc / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):    # closed meanwhile
                    info = (proc / "fdinfo" / fd.name).read_text()
                    target = os.readlink(str(fd))
                    infos += [info] * target.startswith("socket:")
                    polls += [info] * ("eventpoll" in target)
        events = re.findall(r"events:\s*(\w+)", "".join(polls))
        if any(int(mask, 16) & select.EPOLLET for mask in events):
            found.add("edge-triggered")
        flags = [int(re.search(r"flags:\s*(\d+)", info).group(1), 8) for info in infos]
        sleepless = any(flag & os.O_NONBLOCK for flag in flags)
        return found | {"non-blocking" if sleepless else "blocking"}

    def meddle(self, fault):
        calls = ",".join("?" + call for call in fault.calls.split(","))     # if there is such
        self.strace = processes.Process(
            ["strace", "-f", "-o", str(self.log),
             *(f"--attach={pid}" for pid in self.process.members()), "-e", f"trace={calls}",
             "-e", f"inject={calls}:error={fault.error}:when={fault.when}"])
        deadline = time.monotonic() + PATIENCE
        while "attached" not in self.strace.output():
            if self.strace.poll() is not None or time.monotonic() > deadline:
                self.must_live(0.1)     # a server that is ending cannot be traced either
                raise NoStrace(clean(" ".join(self.strace.output().split())))
            time.sleep(processes.POLL)

    def hits(self):
        """How many calls were made to fail."""
        return self.log.read_text(errors="replace").count("(INJECTED)")

    def hits_of_busiest(self):
        """The same, but only those of the thread that has most of them."""
        threads = [line.split()[0] for line in self.log.read_text(errors="replace").splitlines()
                   if "(INJECTED)" in line]
        return max(map(threads.count, set(threads)), default=0)

    def leave_alone(self):
        """Ends strace; returns how many calls were made to fail. The server is stopped
        meanwhile, outside of any call: one that strace leaves in the middle says ENOSYS."""
        self.process.signal_group(signal.SIGSTOP)
        time.sleep(STOPPING)
        self.strace.send_signal(signal.SIGINT)
        self.strace.wait(2)     # it may wait for a process that stopped at the wrong moment;
        self.strace.end()       # when it is killed, such a process just goes on
        self.process.signal_group(signal.SIGCONT)
        return self.hits()

    def must_live(self, patience=0):
        status = self.process.wait(patience)
        if status is not None:
            raise Wrong(f"it died: status {status}")

    def stop(self):
        self.must_live()
        status = self.process.stop(patience=PATIENCE)
        if status is None:
            raise Wrong("SIGTERM does not end it")
        if status:
            raise Wrong(f"it ended with status {status}")

    def must_have_rejected(self, number):
        """Asked when it has ended: its log, which ends with the report, tells."""
        log = self.process.output()
        counted = re.search(r"; (\d+) (?:rejected|refused)", log)
        if (counted and int(counted.group(1)) != number
                or number and not re.search(r"\b(?:rejected|refused): ", log)):
            raise Wrong(f"{number} clients were rejected, but it says {log!r}")

    def kill(self):
        for process in self.strace, self.process:
            if process is not None:
                process.end()
                process.output_file.close()


def converse(port, results):
    """One client, from greeting to close. Its result: "served", "lost" or what is wrong."""
    received, result = b"", "lost"
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            for message in SENDS:
                connection.sendall(message)
                time.sleep(0.005)
            connection.shutdown(socket.SHUT_WR)
            while True:
                more = connection.recv(1 << 16)
                if not more:
                    break
                received += more
        result = "served" if received == RECEIVES else "lost"
    except socket.timeout:
        result = "a client waits for ever"
    except OSError:
        pass
    if not RECEIVES.startswith(received):
        at = len(os.path.commonprefix([received, RECEIVES]))
        result = f"a client got a wrong byte, at {at}: {received[at:at + 20]!r}"
    results.append(result)


def crowd(port, size):
    results = []
    clients = [threading.Thread(target=converse, args=(port, results)) for _ in range(size)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return results


def try_fault(fault, command, folder):
    """Returns whether the server made the calls that were to fail; raises Wrong."""
    server = Server(command, folder)
    try:
        if server.traits() & set((fault.unless or "").split()):
            return False
        server.meddle(fault)
        results = crowd(server.port, CLIENTS)
        hits = server.leave_alone()
        lost = results.count("lost")
        for result in results:
            if result not in ("served", "lost"):
                raise Wrong(result)
        if lost > fault.lost * hits:
            raise Wrong(f"{lost} of {CLIENTS} clients lost, for {hits} errors")
        if crowd(server.port, 1) != ["served"]:
            raise Wrong("afterwards a client is not served")
        server.stop()
        if fault.calls in REJECTING:
            server.must_have_rejected(lost)
        return hits > 0
    finally:
        server.kill()


def try_lasting(error, command, folder, beside=True):
    """While accept fails for good, a connected client is served and the server does not spin.
    Afterwards the client that waited is served, and no client was rejected. A server that takes
    one client at a time does not accept beside one, so it is tried once more without."""
    server = Server(command, folder)
    try:
        with contextlib.ExitStack() as stack:
            if beside:
                first = stack.enter_context(
                    socket.create_connection(("127.0.0.1", server.port), PATIENCE))
                first.recv(1)
            server.meddle(Fault(ACCEPT, error, "1+", 0, None))
            second = threading.Thread(target=converse, args=(server.port, results := []))
            second.start()
            cpu, began = figures.cpu_seconds(server.process.pid), time.monotonic()
            while time.monotonic() < began + WINDOW:
                time.sleep(0.01)
                if beside:
                    exchange(first)
            seconds = time.monotonic() - began
            cpu = figures.cpu_seconds(server.process.pid) - cpu
            server.leave_alone()
            hits = server.hits_of_busiest()
        second.join()
        if hits > MOST_CALLS * seconds / WINDOW:
            raise Wrong(f"it spins: {hits} accept calls of a thread in {seconds:.1f} s")
        if cpu > MOST_CPU * seconds:
            raise Wrong(f"it spins: {cpu:.2f} s of CPU in {seconds:.1f} s")
        if results not in (["served"], ["lost"]):
            raise Wrong(f"the client that waited: {results}")
        server.stop()
        # Lost only if strace left between a failed accept and the server's second attempt.
        server.must_have_rejected(results.count("lost"))
    finally:
        server.kill()
    return hits > 0 or beside and try_lasting(error, command, folder, beside=False)


def exchange(connection):
    connection.sendall(b"^a$")
    try:
        if connection.recv(9) != b"b":
            raise Wrong("a connected client is lost")
    except socket.timeout:
        raise Wrong("a connected client waits for ever") from None


def unavailable(why):
    demanded = os.environ.get("REQUIRE_ALL", "0") != "0"
    print("1..1\n" + tap_line(not demanded, 1, "faults by strace",
                              why if demanded else f"SKIP {why}"))
    return 1 if demanded else 0


def main():
    arguments = sys.argv[1:]
    if not arguments or arguments[1:2] not in ([], ["--"]):
        print("usage: inject.py PATH_TO_SERVER [-- SERVER_ARGS]", file=sys.stderr)
        return 2
    command = [os.path.abspath(arguments[0]), *arguments[2:]]
    if not os.access(command[0], os.X_OK):
        print(f"inject.py: not an executable file: {command[0]}", file=sys.stderr)
        return 2
    if shutil.which("strace") is None:
        return unavailable("strace is not installed")
    folder = pathlib.Path(tempfile.mkdtemp(prefix="inject-"))
    number = failed = 0
    try:
        trials = [(f"{fault.calls} when={fault.when}: {fault.error}",
                   functools.partial(try_fault, fault)) for fault in FAULTS]
        lasting = [(f"{ACCEPT} fails for good: {error}", functools.partial(try_lasting, error))
                   for error in LASTING]
        for name, trial in [*trials, *lasting]:
            try:
                if not trial(command, folder):
                    continue
                verdict = "ok"
            except (Wrong, OSError) as wrong:
                verdict, name = "not ok", f"{name} ({wrong})"
                failed += 1
            number += 1
            print(tap_line(verdict == "ok", number, name), flush=True)
        print(f"1..{number}")
    except NoStrace as error:
        if number == 0:
            return unavailable(str(error))
        print(f"Bail out! {error}", flush=True)   # it could be traced a moment ago
        failed += 1
    finally:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    processes.program(main)
