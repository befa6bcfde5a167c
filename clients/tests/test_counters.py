#!/usr/bin/env python3
"""What --stats counts is what strace counts, for every step and variant that is built.

What a server cannot count is not compared. libuv makes calls of its own, which it does not
report: it accepts until EAGAIN, and writes later what it could not write at once. For io_uring
the kernel works without a call."""

import concurrent.futures
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

TREE = pathlib.Path(__file__).resolve().parents[2]
PATIENCE = 20
CLIENTS = 4             # of the quiet kind
FLOOD = 8 << 20         # bytes: more than all buffers on the way can hold
FULL = 0.2              # seconds without room: the server has stopped reading

SELECT, POLL, EPOLL = ("select", "pselect6"), ("poll", "ppoll"), ("epoll_wait", "epoll_pwait")
WAITS = {"step5_select/server": SELECT, "step5_select/poll": POLL,
         "step6_epoll/server": EPOLL, "step6_epoll/edge": EPOLL, "step7_libuv/server": EPOLL,
         "step8_ae/server": EPOLL, "step8_ae/fiber": EPOLL,
         "step8_ae/ae_poll": POLL, "step8_ae/ae_select": SELECT}
THREADED = "step2_thread_per_client/server", "step2_thread_per_client/pool"
RECV, SEND = ("recvfrom", "recvmsg", "read"), ("sendto", "sendmsg", "write", "writev")
CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+|\?)(?: ([A-Z]+))?")


def may_trace():
    """Is strace here, and does the system let it trace?"""
    return shutil.which("strace") is not None and subprocess.run(
        ["strace", "-o", os.devnull, "true"], stderr=subprocess.DEVNULL).returncode == 0


def find_servers():
    """Those of the step, and variants, by name. kqueue runs on a double that polls, here."""
    for area in sorted(TREE.glob("step*_*")):
        for path in [area / "server", *sorted(area.glob("build/variants/*"))]:
            if path.is_file() and os.access(str(path), os.X_OK) and path.name != "io_uring":
                yield f"{area.name}/{path.name}", path


class Traced:
    """A server under strace from its first call on: `with Traced(...) as server`."""

    def __init__(self, name, path, folder):
        self.log, self.stats = folder / "strace", folder / "stats.json"
        interval = ["--interval-ms", "5"] if name.startswith("step4") else []
        self.process = subprocess.Popen(    # -D: it is the server that is our child
            ["strace", "-D", "-f", "-y", "-s", "0", "-o", str(self.log), "-e", "signal=none",
             "-e", "trace=" + ",".join("?" + call for call in (
                 "accept", "accept4", *RECV, *SEND, *SELECT, *POLL, *EPOLL, "epoll_ctl",
                 "clone", "clone3")),
             str(path), "--quiet", "--stats", str(self.stats), *interval, "0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, encoding="utf-8",
            env=dict(os.environ, ASAN_OPTIONS=os.environ.get("ASAN_OPTIONS", "")
                     + ":detect_leaks=0"))      # it cannot, under strace
        self.address = "127.0.0.1", int(self.process.stdout.readline().rpartition(":")[2])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        """Returns what the server counted and what strace saw."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)
        last = re.compile(fr"^{self.process.pid} +\+\+\+ exited", re.MULTILINE)
        deadline = time.monotonic() + PATIENCE
        while not last.search(self.log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        return json.loads(self.stats.read_text()), list(self.calls())

    def calls(self):
        """(name, arguments, result, error) of each call that came back. One that another
        thread's interrupts stands in two lines."""
        begun = {}
        for line in self.log.read_text().splitlines():
            pid, _, text = line.partition(" ")
            text = text.strip()
            if text.endswith("<unfinished ...>"):
                begun[pid] = text[:-len("<unfinished ...>")]
                continue
            if text.startswith("<... "):
                text = begun.pop(pid) + text.partition("resumed>")[2]
            found = CALL.match(text)
            if found:
                name, arguments, result, error = found.groups()
                yield name, arguments, -1 if result == "?" else int(result), error

    def connect(self):
        return socket.create_connection(self.address, PATIENCE)


def converse(server):
    """A client that says something, and reads to the end."""
    with server.connect() as sock:
        for message in b"^abc$", b"nothing", b"^d", b"e$^":
            sock.sendall(message)
        return sock_rest(sock)


def sock_rest(sock):
    sock.shutdown(socket.SHUT_WR)
    received = b""
    while True:
        more = sock.recv(1 << 16)
        if not more:
            return received
        received += more


def reset(server):
    with server.connect() as sock:
        sock.sendall(b"^abc")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def flood(server):
    """A client that sends until the server takes no more, and only then begins to read."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        sock.setblocking(False)
        left, received = FLOOD, 0
        while left and select.select([], [sock], [], FULL)[1]:
            left -= sock.send(b"^" * min(left, 1 << 16))
        while received < FLOOD:        # the greeting, and a byte for each but the first
            ready = select.select([sock], [sock] if left else [], [], PATIENCE)
            if ready[1]:
                left -= sock.send(b"^" * min(left, 1 << 16))
            if ready[0]:
                received += len(sock.recv(1 << 16))
        sock.setblocking(True)
        sock_rest(sock)


def seen(name, calls):
    """What the counters should be, by strace; of those that can be compared."""
    def results(names, socket_only=True):
        return [call for call in calls if call[0] in names
                and (not socket_only or re.match(r"\d+<(?:socket|TCP)", call[1]))]

    def again(found):
        return sum(error == "EAGAIN" for _, _, _, error in found)

    recv, send = results(RECV), results(SEND)
    counted = {
        "recv_calls": len(recv), "recv_again": again(recv),
        "bytes_in": sum(max(result, 0) for _, _, result, _ in recv),
        "send_calls": len(send), "send_again": again(send),
        "bytes_out": sum(max(result, 0) for _, _, result, _ in send),
    }
    if "libuv" in name:
        counted["send_short"] = 0       # no client of it was slow
    else:
        asked = [int(re.search(r", (\d+), \w+, NULL, 0 *$", arguments).group(1))
                 for _, arguments, _, _ in send]
        counted["send_short"] = sum(
            0 <= result < size for (_, _, result, _), size in zip(send, asked))
        counted["accept_calls"] = len(results(("accept", "accept4")))
    if name in WAITS:
        waits = [call for call in results(WAITS[name], socket_only=False)
                 if not call[1].endswith("], 1, 0")]        # may a log line be written?
        if "libuv" in name:     # counts iterations, not all waits
            waits = [call for call in waits if call[2] >= 0 and not call[1].endswith(", 0")]
        counted["wait_calls"] = len(waits)
        if "libuv" not in name:
            counted["wait_events"] = sum(max(result, 0) for _, _, result, _ in waits)
            counted["descriptors_scanned"] = {
                SELECT: lambda: sum(int(call[1].partition(",")[0]) for call in waits),
                POLL: lambda: sum(int(re.search(r"\], (\d+), ", call[1]).group(1))
                                  for call in waits),
                EPOLL: lambda: counted["wait_events"],
            }[WAITS[name]]()
            if WAITS[name] is EPOLL:
                counted["interest_changes"] = len(results(("epoll_ctl",), socket_only=False))
    # A thread sanitizer has a thread of its own; the workers start before they are traced.
    if not has_thread_sanitizer(name) and name != "step6_epoll/workers":
        counted["threads_created"] = len(
            results(("clone", "clone3"), socket_only=False)) if name in THREADED else 0
    return counted


def has_thread_sanitizer(name):
    flags = TREE / name.partition("/")[0] / "build/flags"
    return "-fsanitize=thread" in flags.read_text()


@unittest.skipUnless(may_trace(), "strace is not installed, or may not trace")
class Counters(unittest.TestCase):
    def compare(self, name, path):
        with tempfile.TemporaryDirectory() as folder, \
                Traced(name, path, pathlib.Path(folder)) as server, \
                concurrent.futures.ThreadPoolExecutor() as pool:
            reset(server)
            for received in pool.map(converse, [server] * CLIENTS):
                self.assertEqual(received, b"*bcdef")
            if "libuv" not in name:
                flood(server)
            stats, calls = server.stop()
        expected = seen(name, calls)
        self.assertEqual({key: stats[key] for key in expected}, expected)
        self.assertGreater(expected["recv_calls"], CLIENTS)


def add_test(name, path):
    setattr(Counters, "test_" + re.sub(r"\W", "_", name),
            lambda self: self.compare(name, path))


for each in find_servers():
    add_test(*each)

if __name__ == "__main__":
    unittest.main()
