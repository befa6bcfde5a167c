#!/usr/bin/env python3
"""Lets a server's system calls fail, from outside, while clients talk to it.

    inject.py PATH_TO_SERVER [-- SERVER_ARGS]

strace puts an error in the place of a call, say of every second recv. Errors that only mean
"again" must cost no client a byte; one that is fatal to a connection may cost that one client
its connection, and nothing else. No client ever gets a wrong byte, none waits in vain, and the
server serves on and ends with status 0. Faults in calls that the server does not make are left
out. Writes TAP; without strace all is skipped or, with REQUIRE_ALL=1, fails.
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
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple

CLIENTS = 4
PATIENCE = 10 * float(os.environ.get("CHECK_SLOW") or 1)
SAYS = [b"^abc$de^abte$f", b"xyz^123", b"25$^ab0000$abab", b"^" + b"a" * 100000 + b"$"]
HEARS = b"*" + b"bcdbcuf" + b"234" + b"36bc1111" + b"b" * 100000

# What the servers call; libuv reads and writes where we receive and send.
ACCEPT, RECV, SEND = "accept,accept4", "recvfrom,read", "sendto,write"
WAIT = ("epoll_wait,epoll_pwait,pselect6,select,poll,ppoll,clock_nanosleep,nanosleep,"
        "io_uring_enter")

# `when` is strace's, and goes for each thread: 1+2 is the first call and every second one after
# it. `lost` is how many clients each error may cost. `unless` names traits of servers for which
# the row makes no sense: who is told only once that a socket is ready must be able to believe
# EAGAIN. (No kernel says EINTR on a socket that does not block.)
Fault = namedtuple("Fault", "calls error when lost unless")
FAULTS = [
    Fault(RECV, "EINTR", "1+2", 0, "edge-triggered"),
    Fault(SEND, "EINTR", "1+2", 0, "edge-triggered"),
    Fault(WAIT, "EINTR", "1+2", 0, None),
    Fault(RECV, "EAGAIN", "1+2", 0, "blocking edge-triggered"),
    Fault(SEND, "EAGAIN", "1+2", 0, "blocking edge-triggered"),
    Fault(ACCEPT, "EINTR", "1+2", 0, None),
    Fault(ACCEPT, "ECONNABORTED", "1+2", 0, None),
    Fault(ACCEPT, "EAGAIN", "1+2", 0, "blocking"),
    Fault(ACCEPT, "ENOBUFS", "1+2", 0, None),
    Fault(ACCEPT, "EMFILE", "1", CLIENTS, None),    # libuv shows out all who wait
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


# Whoever is lost to these has been refused, which the server says and counts.
REFUSING = {"fcntl", "epoll_ctl", "clone,clone3"}


class Wrong(Exception):
    """What the server did that no fault excuses."""


class NoStrace(Exception):
    """It is there, but may not attach."""


class Server:
    """One server, and the strace that meddles with it."""

    def __init__(self, command, folder):
        self.log = folder / "strace"
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--quiet"], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
        self.strace = self.reader = None
        line = self.process.stdout.readline()
        if not re.match(r"Listening on .*:\d+$", line):
            self.kill()
            raise Wrong(f"it does not start: {line!r}")
        self.port = int(line.rpartition(":")[2])

    def traits(self):
        """What `unless` may name. Asked while a client is connected, so that it is settled."""
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
        self.strace = subprocess.Popen(
            ["strace", "-f", "-o", str(self.log), "-p", str(self.process.pid),
             "-e", "trace=" + calls,
             "-e", f"inject={calls}:error={fault.error}:when={fault.when}"],
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, encoding="utf-8")
        said = ""
        for line in self.strace.stderr:     # until it is attached, or gives up
            said += line
            if "attached" in line:
                self.reader = threading.Thread(target=self.strace.stderr.read)
                self.reader.start()     # or it might fall silent for want of room in the pipe
                return
        self.must_live(0.1)     # what is dying refuses strace, too
        raise NoStrace(said.strip().replace("\n", " "))

    def leave_alone(self):
        """Returns how many calls were made to fail."""
        self.strace.send_signal(signal.SIGINT)
        try:
            self.strace.wait(2)
        except subprocess.TimeoutExpired:   # it waits for a process that stopped at the wrong
            self.strace.kill()              # moment; whom it leaves behind just goes on
            self.strace.wait()
        return self.log.read_text(errors="replace").count("(INJECTED)")

    def must_live(self, patience=0):
        try:
            raise Wrong(f"it died: status {self.process.wait(patience)}")
        except subprocess.TimeoutExpired:
            pass

    def stop(self):
        self.must_live()
        self.process.terminate()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Wrong("SIGTERM does not end it")
        if status:
            raise Wrong(f"it ended with status {status}")

    def must_have_refused(self, number):
        """Asked when it has ended: its log, which ends with the report, tells."""
        log = self.process.stdout.read()
        counted = re.search(r"; (\d+) refused", log)
        if counted and int(counted.group(1)) != number or number and "refused: " not in log:
            raise Wrong(f"{number} clients were refused, but it says {log!r}")

    def kill(self):
        for process in self.strace, self.process:
            if process is not None:
                process.kill()
                process.wait()
        self.process.stdout.close()
        if self.reader is not None:
            self.reader.join()
        if self.strace is not None:
            self.strace.stderr.close()


def talk(port, results):
    """One client, from greeting to goodbye. Its result: "served", "lost" or what is wrong."""
    heard, result = b"", "lost"
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
            for message in SAYS:
                connection.sendall(message)
                time.sleep(0.005)
            connection.shutdown(socket.SHUT_WR)
            while True:
                more = connection.recv(1 << 16)
                if not more:
                    break
                heard += more
        result = "served" if heard == HEARS else "lost"
    except socket.timeout:
        result = "a client waits in vain"
    except OSError:
        pass
    if not HEARS.startswith(heard):
        at = len(os.path.commonprefix([heard, HEARS]))
        result = f"a client got a wrong byte, at {at}: {heard[at:at + 20]!r}"
    results.append(result)


def crowd(port, size):
    results = []
    clients = [threading.Thread(target=talk, args=(port, results)) for _ in range(size)]
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
        if fault.calls in REFUSING:
            server.must_have_refused(lost)
        return hits > 0
    finally:
        server.kill()


def try_closed_door(command, folder):
    """While accept fails, however often it is asked, those are served who are in already, and
    when it is over he who waits outside."""
    server = Server(command, folder)
    try:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as first:
            first.recv(1)
            server.meddle(Fault(ACCEPT, "ENOBUFS", "1+", 0, None))
            second = threading.Thread(target=talk, args=(server.port, results := []))
            second.start()
            for _ in range(20):
                time.sleep(0.01)
                first.sendall(b"^a$")
                try:
                    if first.recv(9) != b"b":
                        raise Wrong("a client that was in already is lost")
                except socket.timeout:
                    raise Wrong("a client that was in already waits in vain") from None
            hits = server.leave_alone()
        second.join()
        if results != ["served"]:
            raise Wrong(f"the newcomer: {results}")
        server.stop()
        return hits > 0
    finally:
        server.kill()


def unavailable(why):
    demanded = os.environ.get("REQUIRE_ALL", "0") != "0"
    print(f"1..1\n{'not ok' if demanded else 'ok'} 1 - faults by strace # "
          f"{why if demanded else 'SKIP ' + why}")
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
        for name, trial in [*trials, ("accept fails again and again", try_closed_door)]:
            try:
                if not trial(command, folder):
                    continue
                verdict = "ok"
            except (Wrong, OSError) as wrong:
                verdict, name = "not ok", f"{name} ({wrong})"
                failed += 1
            number += 1
            print(f"{verdict} {number} - {name}", flush=True)
        print(f"1..{number}")
    except NoStrace as error:
        if number == 0:
            return unavailable(str(error))
        print(f"Bail out! {error}", flush=True)   # it could be had a moment ago
        failed += 1
    finally:
        shutil.rmtree(folder)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
