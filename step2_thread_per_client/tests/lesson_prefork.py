"""The lesson of prefork: workers that accept for themselves, and are replaced when they die."""

import contextlib
import json
import os
import pathlib
import signal
import socket
import tempfile
import threading
import time

from check_server import case
from check_server.protocol import message
from lib import figures

RESTART_SECONDS = 1


def workers(s):
    """The process ids of the workers."""
    return sorted(entry.pid for entry in figures.table().values()
                  if entry.parent == s.pid and entry.state != "Z")


def states(pids):
    table = figures.table()
    return {table[pid].state for pid in pids if pid in table}


def started(s, count):
    """The workers, once all of them sleep in accept."""
    s.eventually(lambda: len(workers(s)) == count and states(workers(s)) == {"S"})
    return workers(s)


@case("its workers exist before the first client, and there are no more with clients",
      needs="linux", clients=4)
def forked_ahead(t):
    with t.server("--workers", "4") as s:
        before = started(s, 4)
        t.check(len(before) == 4, f"{len(before)} processes for 4 workers")
        s.crowd(4)
        t.check(workers(s) == before, "a client has got a process of its own")


@case("with N workers it serves N clients at once, and client N + 1 when one has left")
def the_next_one_waits(t):
    with t.server("--workers", "3") as s:
        first, *others = s.crowd(3)
        waiting = s.connect()
        waiting.send(b"^abc$").expect_silence()
        others[0].send(b"^abc").expect(b"bcd")
        first.close()
        waiting.greeting().expect(b"bcd")


@case("a suspended worker loses no client: the others accept", needs="linux", clients=4)
def a_hung_worker_gets_no_client(t):
    with t.server("--workers", "4") as s:
        hung = started(s, 4)[-1]
        os.kill(hung, signal.SIGSTOP)
        s.eventually(lambda: states([hung]) == {"T"})
        for _ in range(20):
            s.serves()
        os.kill(hung, signal.SIGCONT)


@case("a worker that is killed disconnects its own client and no other, and is replaced",
      needs="linux", clients=3)
def a_killed_worker_is_replaced(t):
    with t.server("--workers", "3") as s:
        before = started(s, 3)
        clients = s.crowd(3)
        t.pause(RESTART_SECONDS)
        os.kill(before[1], signal.SIGKILL)
        s.wait_log(r"worker 1 \(process \d+\) was ended by signal 9")
        t.check(s.eventually(lambda: len(workers(s)) == 3), "it is not replaced")
        left = [client for client in clients if client.receive(timeout=0.05) is None]
        t.check(len(left) == 2, f"{len(left)} of 3 clients are left, not 2")
        for client in left:
            client.send(b"^abc$").expect(b"bcd")
        s.serves()


@case("a worker that dies again and again is replaced once a second, not more often",
      needs="linux", level="normal")
def restarts_are_limited(t):
    with t.server("--workers", "1") as s:
        began = time.monotonic()
        for _ in range(3):
            os.kill(started(s, 1)[0], signal.SIGKILL)
            t.check(s.eventually(lambda: not workers(s)), "the worker does not die")
            s.eventually(lambda: workers(s))
        seconds = time.monotonic() - began
        t.check(seconds > 2.5 * RESTART_SECONDS, f"it was replaced 3 times in {seconds:.1f} s")
        t.check(seconds < (3 * RESTART_SECONDS + 2) * t.slow,
                f"3 replacements took {seconds:.1f} s")
        s.check_calm()
        s.serves()


class Load:
    """Clients that connect again and again, `count` at a time. Each sends a message in two
    parts, checks the answers and disconnects."""

    def __init__(self, address, count):
        self.address, self.over = address, threading.Event()
        self.served, self.cut_off, self.wrong = 0, 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True) for _ in range(count)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.over.is_set():
            came = self.exchange()
            with self.lock:
                self.served += came == b"*bcdefg"
                self.cut_off += came != b"*bcdefg" and b"*bcdefg".startswith(came)
                if not b"*bcdefg".startswith(came):
                    self.wrong.append(came)

    def exchange(self):
        """What came until the end."""
        came = b""
        with socket.create_connection(self.address, 20) as sock:
            try:
                for part in b"^abc", b"def$":
                    sock.sendall(part)
                    came += sock.recv(100)
                sock.shutdown(socket.SHUT_WR)
                while piece := sock.recv(100):
                    came += piece
            except socket.timeout:
                came += b" and then nothing for 20 s"
            except OSError:     # it was cut off
                pass
        return came

    def end(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)


@case("workers killed and suspended at random under load: each killed one cuts off at most its "
      "own client, and all other answers come", needs="linux", level="normal")
def random_deaths(t):
    with tempfile.NamedTemporaryFile() as file, \
            t.server("--workers", "8", "--max-clients", "8", "--quiet", "--stats",
                     file.name) as s:
        started(s, 8)
        load, killed, suspended = Load(s.address, 12), 0, []
        for _ in range(t.scale(20, 40, 200)):
            pid = t.rng.choice(workers(s) or [0])
            with contextlib.suppress(ProcessLookupError):
                if pid and t.rng.random() < 0.5:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                elif pid:
                    os.kill(pid, signal.SIGSTOP)
                    suspended.append(pid)
                if len(suspended) > 3:
                    os.kill(suspended.pop(0), signal.SIGCONT)
            t.pause(0.05)
        for pid in set(suspended) & set(workers(s)):
            os.kill(pid, signal.SIGCONT)
        load.end()
        t.check(not load.wrong, f"wrong answers: {load.wrong[:3]}")
        t.check(load.cut_off <= killed,
                f"{load.cut_off} clients were cut off, and {killed} workers killed")
        t.check(load.served > killed, f"{load.served} clients served, {killed} workers killed")
        pids = started(s, 8)
        t.check(len(pids) == 8, f"{len(pids)} of 8 workers run")
        s.stop()
        t.check(not states(pids), f"left behind: {states(pids)}")
        report = read_report(file.name)
        t.check(report["clients_served"] == sum(report["workers"]) >= load.served, f"{report}")


@case("--max-clients limits all workers together, also after one of them was killed",
      needs="linux", clients=6)
def one_limit_for_all(t):
    with t.server("--workers", "8", "--max-clients", "4") as s:
        started(s, 8)
        admitted, rejected = s.fill(7)
        t.check((len(admitted), rejected) == (4, 3),
                f"{len(admitted)} of 7 were admitted, {rejected} rejected")
        busy = [pid for pid in workers(s) if has_client(pid)]
        t.check(len(busy) == 4, f"{len(busy)} workers have a client")
        os.kill(busy[0], signal.SIGKILL)
        t.check(s.eventually(s.try_client), "no client is admitted in its place")
        t.check(s.try_client() is None, "a fifth client was admitted")


def has_client(pid):
    """It has two sockets, its client's and the listener's."""
    folder = f"/proc/{pid}/fd"
    return sum(os.readlink(f"{folder}/{fd}").startswith("socket:")
               for fd in os.listdir(folder)) == 2


@case("after many clients its workers have the descriptors and the memory as before",
      needs="linux", level="normal")
def nothing_is_left(t):
    def visits(count):
        for _ in range(count):
            s.serves()
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(1 << 20), until_stuck=0.01)
            client.reset()
            s.clients.clear()
        started(s, 4)
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in workers(s)], s.memory()

    with t.server("--workers", "4") as s:
        started(s, 4)
        descriptors, memory = visits(12)    # each worker has used its whole buffer once
        descriptors_after, memory_after = visits(t.scale(20, 20, 200))
        t.check(descriptors_after == descriptors,
                f"descriptors: {descriptors} before, {descriptors_after} after")
        grown = memory_after - memory
        t.check(grown <= 64 << 10 or s.sanitized(), f"{grown >> 10} KiB are left")


@case("its report says how many clients each worker has served, connected ones included",
      needs="linux", clients=4)
def the_report_lists_workers(t):
    with tempfile.NamedTemporaryFile() as file:
        with t.server("--workers", "4", "--stats", file.name) as s:
            started(s, 4)
            clients = s.crowd(3)
            s.signal(signal.SIGUSR1)
            report = s.eventually(lambda: read_report(file.name))
            t.check(sorted(report["workers"]) == [0, 1, 1, 1], f"{report['workers']}")
            t.check(report["clients_served"] == 3, f"{report['clients_served']} served")
            for client in clients:
                client.close()
            s.serves()
            s.stop()
        report = read_report(file.name)
        t.check(sum(report["workers"]) == report["clients_served"] == 4, f"{report}")
        t.check(report["bytes_in"] == 36, f"{report['bytes_in']} bytes in")


def read_report(path):
    text = pathlib.Path(path).read_text(encoding="ascii")
    return json.loads(text) if text.endswith("}\n") else None


@case("a stop ends all its workers, even one that was suspended (SIGSTOP)", needs="linux",
      clients=2)
def all_stop(t):
    with t.server("--workers", "10") as s:
        pids = started(s, 10)
        s.crowd(2)
        os.kill(pids[0], signal.SIGSTOP)
        os.kill(pids[-1], signal.SIGSTOP)
        s.stop()
        t.check(not states(pids), f"left behind: {states(pids)}")


@case("its workers stop when it is killed: none goes on to accept clients", needs="linux",
      clients=2)
def workers_stop_with_their_parent(t):
    with t.server("--workers", "5", health=False) as s:
        pids = started(s, 5)
        s.crowd(2)
        s.signal(signal.SIGKILL)
        t.check(s.eventually(lambda: not states(pids) - {"Z"}, 2 * t.slow),
                f"they still run: {states(pids)}")
        s.wait()


@case("a second SIGINT, however soon it comes, leaves no process behind")
def second_interrupt_at_once(t):
    for number in t.rounds(t.scale(20, 50, 200), 2):
        with t.server("--quiet", "--workers", "4") as s:
            s.crowd(2)
            s.signal(signal.SIGINT)
            until = time.monotonic() + 1e-5 * number
            while time.monotonic() < until:
                pass
            if s.alive():
                s.process.send_signal(signal.SIGINT)
            t.check(s.wait(2 * t.slow).status == 0, s.describe())
