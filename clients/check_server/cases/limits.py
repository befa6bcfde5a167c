"""Bounded memory, a full house, silent clients: what a server does at its limits."""

import json
import os
import resource
import select
import signal
import tempfile
import time

from lib import figures

from ..errors import Failure
from ..protocol import message
from ..registry import case

KIB, MIB = 1 << 10, 1 << 20


# Nothing is left behind.

@case("after thousands of clients it has the descriptors, threads and memory it had",
      level="normal", needs="linux", clients=20, limit=60)
def no_leaks(t):
    def visits(s, count):
        together = 1 if t.serial else 10
        for number in t.rounds(count // together, 15):
            visitors = [s.connect() for _ in range(together)]
            for client in visitors:
                client.greeting().send(b"^abc")
            for leaving, client in enumerate(visitors, number):
                client.expect(b"bcd")
                (client.half_close, client.close, client.reset)[leaving % 3]()
            for client in visitors[-number % 3::3]:
                client.expect_end()
            s.clients.clear()

    def visits_unread(s, count):
        """They leave with answers owed to them."""
        for _ in range(count):
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(16 * MIB), until_stuck=0.02)
            client.reset()
            s.clients.clear()

    def at_rest(s, level):
        """The descriptors and threads once they are down to the level, or stay above it."""
        s.eventually(lambda: (s.fd_count(), s.threads()) <= level)
        return s.fd_count(), s.threads()

    with t.server() as s:
        start = s.fd_count(), s.threads()
        if not t.serial:
            for client in s.crowd(20):
                client.close()
        visits_unread(s, 10)
        visits(s, 300)
        before = at_rest(s, start)
        for visit, count, bound in ((visits, t.scale(500, 3000, 20000), 128 * KIB),
                                    (visits_unread, t.scale(25, 25, 100), 256 * KIB)):
            memory = s.memory()
            visit(s, count)
            after = at_rest(s, before)
            for what, had, has in zip(("descriptors", "threads"), before, after):
                t.check(has <= had, f"{had} {what} before {count} clients came and went, "
                                    f"{has} after")
            grown = s.memory() - memory
            t.check(grown <= bound or s.sanitized(),
                    f"{count} clients came and went, and {grown // KIB} KiB of memory stayed")


# A full house.

def check_served(clients):
    for client in clients:
        client.send(b"^abc$")
    for client in clients:
        client.expect(b"bcd")


def check_full_house(t, s, count):
    """Knock so often; those inside are served, others refused, then there is room again."""
    inside, refused = s.fill(count)
    t.check(inside, "nobody at all was admitted")
    check_served(inside)
    s.check_calm()
    if refused:
        if t.settings.strict and len(inside) > 1:   # libuv sends the second away without a word
            s.wait_log(r"(?i)refus")
        for _ in range(5):
            inside += s.fill(4)[0]     # where room was made meanwhile: no harm
        check_served(inside)
        s.check_calm()
    leaving = inside[::2]
    for client in leaving:
        client.finish()
        inside.remove(client)
    t.check(s.eventually(s.knock), f"{len(leaving)} of {len(leaving) + len(inside)} clients "
                                   "left, and still nobody is "
            "admitted")
    check_served(inside)
    return refused


def queue_in_a_small_house(t, s):
    """The serial server's full house: the others wait, and each gets its turn."""
    waiting = [s.connect() for _ in range(30)]
    for client in waiting:
        client.greeting().send(b"^abc$").expect(b"bcd").finish()


def full_house(t, files):
    with t.server(rlimits={resource.RLIMIT_NOFILE: files}) as s:
        if t.serial:
            queue_in_a_small_house(t, s)
        else:
            check_full_house(t, s, files + 10)


@case("with 12 descriptors it serves whom it can, refuses the rest, and uses no time",
      needs=("ours", "linux"), level="normal")
def out_of_descriptors_12(t):
    full_house(t, 12)


@case("with 64 descriptors it serves whom it can, refuses the rest, and uses no time",
      needs="linux", clients=75)
def out_of_descriptors_64(t):
    full_house(t, 64)


@case("with 256 descriptors it serves whom it can, refuses the rest, and uses no time",
      needs="linux", level="normal", clients=270)
def out_of_descriptors_256(t):
    full_house(t, 256)


@case("the limit of descriptors lowered below what it has open, it serves those it has, and "
      "delivers what it owes when it is stopped", needs=("ours", "linux", "concurrent"),
      clients=50)
def lowered_descriptor_limit(t):
    for limit in t.scale([20], [20, 0], [20, 0]):
        with t.server() as s:
            inside = s.crowd(40)
            with s.frozen():    # not while it asks for one more
                figures.limit(s.pid, resource.RLIMIT_NOFILE, limit)
            for _ in range(3 if limit else 0):  # (libuv cannot leave them waiting with none)
                s.connect()
            check_served(inside)
            s.check_calm()
            with s.frozen():    # that it finds them all at once
                for client in inside:
                    client.send(b"^xyz$")
            s.stop()
            for client in inside:
                client.expect(b"yz{").expect_end()


@case("when no further thread can be had it refuses newcomers and serves those it has",
      needs=("linux", "concurrent"), clients=60)
def out_of_threads(t):
    # The limit does not bind root, and counts whatever else the user runs.
    user = t.ordinary_user()
    room = figures.tasks_of_user(user) + 15
    with t.server(user=user, rlimits={resource.RLIMIT_NPROC: room}) as s:
        check_full_house(t, s, 50)


@case("when memory runs out a client may be lost, never the server or the others",
      needs=("linux", "concurrent"), clients=60, level="normal")
def out_of_memory(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer needs all the address space")
        s.serves()
        with s.bystander():
            before = figures.limit(s.pid, resource.RLIMIT_AS,
                                   figures.virtual_bytes(s.pid) + MIB)
            data = message(16 * MIB)
            for _ in range(25):
                try:
                    client = s.connect(rcvbuf=4096)
                    if client.admitted():
                        client.push(data, until_stuck=0.02)
                except Failure:
                    pass    # dropped in the middle: its bad luck
            t.check(s.alive(), f"out of memory it ended: {s.describe()}")
            for client in s.clients[1:]:
                client.reset()
            s.serves()
            figures.limit(s.pid, resource.RLIMIT_AS, before[0])


@case("while there is no memory for more it serves those it has and uses no time; then it "
      "admits newcomers again", needs=("linux", "concurrent"), clients=200)
def memory_returns(t):
    with t.server() as s:
        if s.sanitized():
            t.skip("a sanitizer needs all the address space")
        inside = s.crowd(3)
        check_served(inside)
        before = figures.limit(s.pid, resource.RLIMIT_AS, figures.virtual_bytes(s.pid))
        crowd = [s.connect() for _ in range(t.scale(50, 100, 190))]
        check_served(inside)
        s.check_calm()
        figures.limit(s.pid, resource.RLIMIT_AS, before[0])
        for client in crowd:
            client.reset()
        check_served(inside)
        t.check(s.eventually(s.knock), "there is memory again, and nobody is admitted")


@case("--max-clients N: one more is refused politely, and admitted when one has left",
      needs=("--max-clients", "concurrent"))
def max_clients(t):
    with t.server("--max-clients", "3") as s:
        inside, refused = s.fill(3)
        t.check(refused == 0, f"{refused} of 3 clients were refused")
        for _ in range(5):
            t.check(s.knock() is None, "a fourth client was admitted")
        check_served(inside)
        inside.pop().finish()
        t.check(s.eventually(s.knock), "one left, and still nobody is admitted")
        check_served(inside)
    with t.server("--max-clients", "1") as s:
        for _ in range(t.scale(30, 100, 300)):
            s.connect().greeting().finish()     # who saw the end may come again at once


@case("a flood of refusals is said in the log, but does not flood it",
      needs=("--max-clients", "concurrent"))
def rejections_in_the_log(t):
    with t.server("--max-clients", "1") as s:
        s.connect().greeting()
        before = len(s.log_text().splitlines())
        _, refused = s.fill(300)
        t.check(refused == 300, f"{refused} of 300 clients were refused")
        s.wait_log(r"(?i)refus|full|max.clients|turned away")
        lines = len(s.log_text().splitlines()) - before
        t.check(lines <= 60, f"300 refusals made {lines} lines of log")


@case("it counts whom it refuses: by --max-clients, and for want of descriptors",
      needs=("--max-clients", "--stats", "ours", "linux", "concurrent"))
def rejections_are_counted(t):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        for options, rlimits in ((["--max-clients", "3"], {}),
                                 ([], {resource.RLIMIT_NOFILE: 24})):
            with t.server("--stats", path, *options, rlimits=rlimits, health=False) as s:
                inside, refused = s.fill(30)
                s.stop()
            with open(path, encoding="utf-8") as file:
                stats = json.load(file)
            for key, wanted in (("clients_refused", refused), ("clients_served", len(inside)),
                                ("clients_max", len(inside))):
                t.check(stats[key] == wanted, f"{len(inside)} clients admitted, {refused} "
                                              f"refused, and {key} is {stats[key]!r}")


@case("few descriptors: it says at its start how few clients it can take",
      needs=("ours", "linux"))
def few_descriptors_are_reported(t):
    with t.server(rlimits={resource.RLIMIT_NOFILE: 64}) as s:
        s.wait_log(r"\b\d+ clients")


@case("a client beyond the server's capacity is refused, the others are served on",
      level="normal", needs=("ours", "concurrent"), limit=40)
def beyond_capacity(t):
    capacity = t.settings.capacity
    if capacity is None:
        t.skip("no limit is declared (--capacity)")
    with t.server() as s:
        inside = s.crowd(capacity)
        more, refused = s.fill(100)
        if refused:
            s.wait_log(r"(?i)refus|full|limit")
        check_served(inside + more)
        s.check_calm()
        for client in s.clients:
            client.reset()


# Silent clients.

SILENCE = 0.5     # times t.slow


@case("--idle-timeout: who is silent is closed in time, though nobody else says anything",
      level="normal", needs="--idle-timeout")
def idle_timeout(t):
    def silent(s):
        return s.connect().greeting()

    def in_message(s):
        return s.connect().greeting().send(b"^a").expect(b"b")

    def deaf(s):
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 * MIB), until_stuck=0.1)
        return client

    limit = SILENCE * t.slow
    with t.server("--idle-timeout", str(limit)) as s:
        # Twice, because whoever looks after the first may have stopped when there was nobody.
        for kinds in ([deaf], [silent]) if t.serial else ([silent, in_message, deaf], [silent]):
            began = time.monotonic()
            clients = [kind(s) for kind in kinds]
            for kind, client in zip(kinds, clients):
                if kind is deaf:
                    t.check(client.is_reset(), "who neither sends nor reads is not closed")
                else:
                    client.expect_end()
                seconds = time.monotonic() - began
                # A send that blocked waits so long for each part that still fits somewhere.
                most = 3 * limit if kind is deaf else limit
                t.check(0.9 * limit <= seconds <= most + 0.4 * t.slow,
                        f"{kind.__name__.replace('_', ' ')}: closed after {seconds:.2f} s, "
                        f"and --idle-timeout is {limit:g}")


@case("--idle-timeout: who spoke while the server could not run is not silent",
      level="normal", needs="--idle-timeout")
def idle_timeout_frozen(t):
    limit = SILENCE * t.slow
    with t.server("--idle-timeout", str(limit)) as s:
        client = s.connect().greeting()
        with s.frozen():
            client.send(b"^abc$")
            time.sleep(1.2 * limit)
        client.expect(b"bcd").finish()


@case("--idle-timeout: that reports are asked for meanwhile lengthens no silence",
      level="normal", needs=("--idle-timeout", "ours"))
def idle_timeout_amid_signals(t):
    limit = SILENCE * t.slow
    with t.server("--idle-timeout", str(limit), "--quiet") as s:
        client = s.connect().greeting()
        began = time.monotonic()
        while (time.monotonic() < began + 3 * limit
               and not select.select([client.sock], [], [], limit / 10)[0]):
            s.signal(signal.SIGUSR1)
        t.check(time.monotonic() < began + 2.5 * limit, "who is silent is not closed")
        client.expect_end()


@case("--idle-timeout: who says or takes only little, but steadily, may stay; who is silent "
      "meanwhile is closed", needs="--idle-timeout", limit=30)
def idle_timeout_spares_active_clients(t):
    limit = t.scale(0.8, 1, 1) * SILENCE * t.slow
    # Made beforehand: a client that takes its time to think is silent, too.
    growth, flood = message(t.scale(0, 2, 8) * MIB), message(32 * MIB)

    def speak(client):
        """A byte now and then, and no answer to any of them."""
        client.send(b"-")

    def talk(client):
        client.send(b"^a$").expect(b"b")

    def read(client):
        """Enough for its window to open, too little for room in the other end's buffer."""
        client.expect(bytes(client.owed[:4000]))

    def reader(**options):
        client = s.connect(**options).greeting()
        client.exchange(growth)     # sockets grow when all goes well
        client.push(flood, until_stuck=0.05)
        return client

    def keep_on(members):
        end = time.monotonic() + t.scale(1.6, 2.2, 2.2) * limit
        while time.monotonic() < end:
            for act, client in members:
                act(client)
            time.sleep(limit / 8)

    with t.server("--idle-timeout", str(limit)) as s:
        small = (read, lambda: reader(rcvbuf=4096))
        if t.serial:
            for act, arrive in ((speak, lambda: s.connect().greeting()), small):
                client = arrive()
                keep_on([(act, client)])
                client.reset()
            return
        members = [(read, small[1]()),      # first: it takes its time to arrive
                   (speak, s.connect().greeting()), (talk, s.connect().greeting())]
        silent = s.connect().greeting()
        keep_on(members)
        silent.expect_end()
        for _, client in members[1:]:
            client.finish()
