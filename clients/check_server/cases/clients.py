"""A client can only hurt itself: the others are served meanwhile, or next if serial."""

import os
import re
import signal
import socket
import statistics
import tempfile
import time
from contextlib import contextmanager

from lib import figures

from ..client import Flood, exchange_all
from ..errors import Failure
from ..protocol import KNOWN_EXCHANGE, message, random_input
from ..registry import case

KIB, MIB = 1 << 10, 1 << 20


# Clients that disconnect abruptly.

@case("a client that resets before it is greeted harms no other")
def reset_before_greeting(t):
    with t.server() as s, s.bystander():
        for _ in t.rounds(t.scale(20, 100, 1000)):
            s.connect().reset()
        s.serves_others()


@case("a client that resets in the middle of a message harms no other")
def reset_in_mid_message(t):
    with t.server() as s, s.bystander():
        for _ in t.rounds(t.scale(5, 20, 200)):
            s.connect().greeting().send(b"^abc").expect(b"bcd").reset()
        s.serves_others()


@case("a client that resets with answers unsent harms no other")
def reset_with_unsent_answers(t):
    with t.server() as s, s.bystander():
        for _ in t.rounds(t.scale(2, 5, 20)):
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(16 * MIB), until_stuck=0.05)
            client.reset()
            s.serves_others()


@case("a client that disconnects while it sends harms no other; no SIGPIPE kills the server")
def disconnect_in_mid_send(t):
    with t.server() as s, s.bystander():
        wanted, arrived, size = t.scale(2, 5, 20), 0, 300 * KIB
        for _ in t.rounds(4 * wanted):      # on a busy machine some rounds say nothing
            if arrived == wanted:
                break
            # All it sent and its end wait in the server's socket when it has closed: the first
            # answers cause a reset, the next ones fail with a broken pipe.
            client = s.connect().greeting().exchange(message(8 * MIB))  # opens the window wide
            with s.frozen():
                client.push(message(size), until_stuck=0.05)
                client.half_close()
                if not figures.AVAILABLE or s.eventually(   # the kernel may pace it
                        lambda: client.unacknowledged() == 0, 0.5):
                    arrived += 1
                else:
                    size = 100 * KIB        # the window did not open so wide
                client.close()
        s.serves_others()
        if not arrived:
            t.skip("what a client sent never waited in the server's socket")


@case("thousands of clients that connect and leave at once harm no other", limit=40)
def connect_and_leave(t):
    with t.server() as s, s.bystander():
        for number in t.rounds(t.scale(500, 4000, 20000), t.scale(3, 10, 20)):
            client = s.connect()
            client.reset() if number % 2 else client.close()
            s.clients.clear()
            if number % 250 == 249:
                s.serves_others()


# Clients that stay and behave badly.

@case("a client that never reads costs one bounded buffer, and delays no other", needs="linux")
def never_reading_client(t):
    with t.server() as s:
        with s.bystander(), costs_little(t, s):
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(t.scale(32, 64, 64) * MIB),
                        until_stuck=0.1 if t.settings.strict else 0.5)
            keeps_few_answers(t, client)
        s.serves_others()


@case("a client that sends small pieces, and reads only then, costs one bounded buffer and "
      "loses nothing")
def never_reading_trickle(t):
    with t.server() as s:
        with costs_little(t, s):
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(8 * MIB), until_stuck=0.1, piece=8 * KIB, pause=0.0001)
            keeps_few_answers(t, client)
        client.finish()


def keeps_few_answers(t, client):
    """One bounded buffer of them. Python's asyncio, for one, has several of up to 256 KiB."""
    if figures.AVAILABLE:
        kept = client.kept_answers()
        t.check(kept <= 2 * MIB,
                f"it keeps {kept // KIB} KiB of answers for a client that does not read")


@contextmanager
def costs_little(t, s):
    """Inside, a server of ours takes no more memory than one bounded buffer. Another may have a
    garbage collector, and then its memory also holds what nobody needs any more."""
    t.not_emulated()
    if not (t.settings.strict and figures.AVAILABLE) or s.sanitized():
        yield
        return
    s.connect().greeting().exchange(message(4 * MIB)).finish()   # do not count kept buffers
    before = s.memory()
    yield
    cost = s.memory() - before
    t.check(cost <= 512 * KIB, f"one client cost {cost // KIB} KiB of memory")


@case("a client that shuts down its sending side and never reads delays no other")
def half_close_and_never_read(t):
    with t.server() as s, s.bystander():
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        client.half_close()
        s.serves_others()
        client.reset()


@case("a client that reads one byte a second gets its bytes, and delays no other",
      level="normal")
def one_byte_a_second(t):
    with t.server() as s, s.bystander():
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        for _ in range(t.scale(1, 2, 15)):
            time.sleep(1)
            client.expect(bytes(client.expected[:1]))
            s.serves_others()
        client.settle().finish()


@case("64 MiB (8 unless --full) to a slow reader arrive complete", level="normal",
      limit=60)
def slow_reader(t):
    with t.server() as s:
        client = s.connect(rcvbuf=32768).greeting()
        client.exchange_slowly(message(t.scale(1, 8, 64) * MIB), pause=0.002)
        client.finish()


@case("idle clients, inside and outside a message, cost no CPU time and delay no other",
      clients=60)
def idle_clients(t):
    with t.server() as s:
        if t.serial:
            s.connect().greeting()
        else:
            for number, client in enumerate(s.crowd(50)):
                if number % 2:
                    client.send(b"^a").expect(b"b")
        s.check_calm()
        s.serves_others()


@case("urgent data neither confuses the server nor keeps it busy")
def urgent_data(t):
    with t.server() as s, s.bystander():
        client = s.connect().greeting()
        client.send(b"^ab$").expect(b"bc")
        client.sock.send(b"!", socket.MSG_OOB)      # between messages: ignored, in band or not
        client.send(b"^cd$").expect(b"de")
        s.check_calm()
        s.serves_others()
        client.finish()


@case("an urgent byte in a message is not answered, and an urgent `$` does not end the message",
      needs="ours")
def urgent_data_is_not_answered(t):
    with t.server() as s:
        for _ in range(3):
            client = s.connect().greeting()
            client.send(b"^ab").expect(b"bc")
            client.sock.send(b"!", socket.MSG_OOB)
            client.send(b"c").expect(b"d")
            client.sock.send(b"$", socket.MSG_OOB)
            client.send(b"d$").expect(b"e").finish()


@case("bytes outside messages are dropped, however many they are", limit=60)
def bytes_outside_messages(t):
    with t.server() as s, s.bystander():
        with costs_little(t, s):
            client = s.connect().greeting()
            client.exchange(b"$" * (t.scale(4, 16, 64) * MIB) + b"^a$")
        if figures.AVAILABLE and not t.settings.strict:
            keeps_few_bytes(t, s, client)
        client.finish()


def keeps_few_bytes(t, s, client):
    """Its memory does not grow with the bytes that it ignores. A garbage collector lets it grow
    for a while (node for more than 64 MiB), so there are many rounds."""
    before = s.memory()
    for number in range(1, 17):
        client.exchange(b"$" * 8 * MIB + b"^a$")
        cost = s.memory() - before
        if cost < number * 4 * MIB:
            return
    raise Failure(f"of {number * 8} MiB outside messages it keeps {cost // KIB} KiB in memory")


# Many clients.

def correct_crowd(t, s, count):
    """This many clients do the known exchange, at once (one after another if serial)."""
    for batch in t.batches(range(count), count):
        clients = s.crowd(len(batch))
        for sent, wanted in KNOWN_EXCHANGE:
            for client in clients:
                client.send(sent)
            for client in clients:
                client.expect(wanted)
        for client in clients:
            client.half_close()
        for client in clients:
            client.expect_end().close()
        s.clients.clear()


@case("two hundred clients at once (one after another if serial) are each served")
def two_hundred_clients(t):
    with t.server() as s:
        correct_crowd(t, s, 200)


@case("a thousand clients at once are each served", level="normal", needs="concurrent",
      clients=1000, limit=30)
def thousand_clients(t):
    with t.server() as s:
        correct_crowd(t, s, 1000)


@case("among ten thousand idle clients an active one is answered", level="normal",
      needs="concurrent", clients=10001, limit=60)
def ten_thousand_idle(t):
    with t.server() as s:
        idle = []
        for _ in range(100):    # in steps, so that no backlog overflows
            idle += s.crowd(100)
            if (len(idle) == 4000 and figures.AVAILABLE and s.threads() > 4000
                    and s.sanitized()):
                t.skip("ThreadSanitizer takes no more than about 8000 threads")
        active = s.connect().greeting()
        for _ in range(20):
            active.send(b"^abc$").expect(b"bcd")
        active.finish()
        for client in idle[::500]:
            client.send(b"^abc$").expect(b"bcd")
        for number, client in enumerate(idle):
            client.reset()      # so that no ports stay in TIME_WAIT
            if number % 100 == 99 and not t.settings.strict:
                s.serves()      # thousands of threads of Python cannot all end at once
        s.clients.clear()


@case("among clients that send without pause others are served", needs="concurrent", clients=6)
def served_amid_floods(t):
    with t.server() as s:
        client = s.connect().greeting()
        with Flood(s.address, 3) as flood:
            flood.wait(0.3 * t.slow)
            for _ in range(3):
                client.send(b"^abc$").expect(b"bcd")
            s.serves()
        client.finish()


@case("clients that send without pause delay others by milliseconds, not seconds",
      level="normal", needs="concurrent", timed=True)
def fairness(t):
    def answer_times(client):
        times = []
        for _ in range(10):
            began = time.monotonic()
            client.send(b"^abc$").expect(b"bcd")
            times.append(time.monotonic() - began)
        return times

    with t.server() as s:
        client = s.connect().greeting()
        alone = answer_times(client)
        with Flood(s.address, 3):
            t.pause(0.2)
            among = answer_times(client)
            began = time.monotonic()
            s.serves()
            visit = time.monotonic() - began
        client.finish()
        t.check(statistics.median(among) < 3 * statistics.median(alone) + 0.03 * t.slow,
                f"an answer took {1e3 * statistics.median(among):.0f} ms (median) among "
                "clients that send without pause, "
                f"{1e3 * statistics.median(alone):.1f} ms alone")
        t.check(max(among) < 3 * max(alone) + 0.5 * t.slow,
                f"an answer took up to {max(among):.2f} s among clients that send without "
                "pause")
        t.check(visit < 10 * max(alone) + 1.0 * t.slow,
                f"a new client took {visit:.1f} s among clients that send without pause")


@case("a client that has sent much gets one turn at a time: clients that close meanwhile do "
      "not wait until all of it is read", needs=("ours", "concurrent", "linux"), clients=3)
def one_turn_each(t):
    with t.server() as s:
        alone = count_tasks(s)
        first, flood, last = clients = s.crowd(3)   # the server may begin at either end
        if count_tasks(s) > alone:
            t.skip("each client has a thread of its own, which the kernel schedules")
        flood.exchange(message(8 * MIB))    # opens the window wide
        with s.frozen():
            first.half_close()
            # None of it is answered: a full socket would stop even a server that does not stop
            # by itself. All of it must have arrived, and the end, too.
            size = flood.push(b"$" * (300 * KIB), until_stuck=0.05)
            flood.half_close()
            last.half_close()
            s.eventually(lambda: flood.unacknowledged() == 0)
        for client in clients:
            client.expect_end()
        ports = [f"{client.sock.getsockname()[1]}" for client in clients]
        s.wait_log(fr"\b{ports[1]}\) disconnected$")
        closed = re.findall(r"\b(\d+)\) disconnected$", s.log_text(), re.M)
        t.check(set(ports[::2]) <= set(closed[:closed.index(ports[1])]),
                f"{size // KIB} KiB from one client were read before all others had had their "
                "turn")


def count_tasks(s):
    """Its threads and its processes, in all."""
    return s.threads() + len(list(figures.members(s.pid)))


# Everything at once.

@case("events of a closed client never reach another that has its descriptor now",
      needs=("ours", "concurrent"), clients=60)
def reused_descriptors(t):
    with t.server() as s:
        for _ in t.rounds(t.scale(3, 10, 50)):
            old = s.crowd(30)
            with s.frozen():    # when it wakes up, all this has happened at once
                new = [s.connect() for _ in range(15)]
                for number, client in enumerate(t.rng.sample(old, 30)):
                    if number < 10:
                        client.reset()
                    elif number < 20:
                        client.send(b"^lost").close()
                    else:
                        client.send(b"^kept$")
                new += [s.connect() for _ in range(15)]
                for client in new:
                    client.send(b"^new$")
            for client in new:
                client.greeting()
            for client in new + old:
                if client.sock.fileno() >= 0:
                    client.finish()
            s.clients.clear()


@case("stopped and continued again and again during traffic, it loses no byte")
def stopped_and_continued(t):
    with t.server() as s:
        clients = s.crowd(1 if t.serial else 5)
        with s.storm(signal.SIGSTOP, signal.SIGCONT):
            end = time.monotonic() + t.scale(0.3, 1, 6)
            while time.monotonic() < end:
                exchange_all([(client, message(t.rng.randrange(1, 100000), t.rng))
                              for client in clients])
        for client in clients:
            client.finish()


@case("interrupted by SIGUSR1 again and again, even in mid-send, it loses no byte",
      needs="--stats")
def interrupted(t):
    def check_report(client):
        """The report counts no more than was sent (it may count less: it comes early)."""
        with open(path, encoding="ascii") as file:
            found = dict(re.findall(r'"(\w+)": (\d+),', file.read()))
        t.check(int(found.get("bytes_in", 0)) <= client.sent.total + 100
                and int(found.get("clients_served", 1)) > 0,
                f"{client.sent.total} bytes were sent, and it reports {found!r}")

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        with t.server("--stats", path) as s, s.bystander():
            client = s.connect(rcvbuf=32768).greeting()
            with s.storm(signal.SIGUSR1):
                client.exchange_slowly(message(t.scale(1, 4, 16) * MIB), pause=0.002)
                for _ in range(20):
                    client.send(b"^abc$").settle()
                    check_report(client)
                s.serves_others()
            client.finish()


@case("whatever random clients do, each gets its own answers and no others",
      level="normal", clients=30, limit=60)
def chaos(t):
    with t.server() as s, s.bystander():
        clients = []
        for _ in t.rounds(t.scale(750, 1500, 100000), t.scale(1, 2, 20)):
            if len(clients) < (1 if t.serial else 20):
                clients.append(s.connect().greeting())
            client = t.rng.choice(clients)
            deed = t.rng.choice(["message"] * 6 + [
                "stream", "reset", "leave", "finish", "stuff", "connect"])
            if deed == "message":
                client.send(random_input(t.rng, t.rng.randrange(50))).settle()
            elif deed == "stream":
                client.exchange(random_input(t.rng, t.rng.randrange(20000)))
            elif deed == "connect":
                s.connect().reset() if t.rng.random() < 0.5 else s.connect().close()
            else:
                if deed == "stuff":
                    client.push(message(MIB), until_stuck=0.02)
                if deed == "finish":
                    client.finish()
                elif deed == "leave":
                    client.close()
                else:
                    client.reset()
                clients.remove(client)
