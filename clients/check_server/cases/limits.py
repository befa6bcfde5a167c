"""Out of descriptors, threads or memory; idle clients: what a server does at its limits."""

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
REJECTED = r"(?i)reject|refus|full|max.clients|turned away"     # in whatever words
REJECTION_KEYS = "clients_rejected", "clients_refused"


# Leaks.

@case("after thousands of clients it has the descriptors, threads and memory as before, and no "
      "zombies", level="normal", needs="linux", clients=20, limit=400)
def no_leaks(t):
    def visits(s, count):
        together = 1 if t.serial else 10
        for number in t.rounds(count // together, 40):
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
        """They reset although answers to them are unsent."""
        for _ in range(count):
            client = s.connect(rcvbuf=4096).greeting()
            client.push(message(16 * MIB), until_stuck=0.02)
            # On a busy machine it may not have read anything yet.
            s.eventually(lambda: client.kept_answers() > 0, 1.0)
            client.reset()
            s.clients.clear()

    def counts(s):
        return s.fd_count(), s.threads(), figures.zombies(s.pid)

    def at_rest(s, level):
        """The counts once they are down to the level, or stay above it."""
        s.eventually(lambda: all(has <= had for has, had in zip(counts(s), level)))
        return counts(s)

    def goes_on(growth):
        """Is it a leak? An allocator, a garbage collector or a new worker needs more memory in
        some rounds, and then no more. A leak takes the same in each round, except the first,
        where it may fit into memory that was free already."""
        return len(growth) == 8 or (t.settings.strict and len(growth) > 3
                                    and min(growth[1:]) > max(growth) / 2)

    def allowed(what, grew):
        """How many more a round may leave. Runtimes such as Go's and Java's start a thread when
        they first need it: in a few rounds, and not one for each client."""
        return 0 if t.settings.strict or what == "zombies" or grew > 3 else 8

    with t.server() as s:
        before = counts(s)
        if not t.serial:
            for client in s.crowd(20):
                client.close()
        # The unread ones come last: they leave much free memory, in which a small leak fits.
        for visit, first, count, bound in (
                (visits, 300, t.scale(500, 3000, 20000), 64 * KIB),
                (visits_unread, 10, t.scale(25, 25, 100), 256 * KIB)):
            visit(s, first)
            before = at_rest(s, before)
            growth, grew = [], 0    # memory of each round; rounds in a row that left more
            while not growth or grew or not s.sanitized() and (
                    len(growth) < 2 or growth[-1] > bound):
                if goes_on(growth):
                    raise Failure(f"{growth[-1] // KIB} KiB of memory are left over from "
                                  f"{count} clients, and memory grew in the rounds before")
                memory = s.memory()
                visit(s, count)
                after = at_rest(s, before)
                more = any(has > had for had, has in zip(before, after))
                grew = grew + 1 if more else 0
                for what, had, has in zip(("descriptors", "threads", "zombies"), before, after):
                    t.check(has <= had + allowed(what, grew), f"{had} {what} before {count} "
                            f"clients connected and left, {has} after")
                before = tuple(map(max, before, after))
                growth.append(s.memory() - memory)


# Out of something.

def check_served(clients):
    for client in clients:
        client.send(b"^abc$")
    for client in clients:
        client.expect(b"bcd")


def check_rejections(t, s, count):
    """Of this many clients some are served, the others rejected; then there is room again."""
    inside, rejected = s.fill(count)
    t.check(inside, "not one client was admitted")
    check_served(inside)
    s.check_calm()
    if rejected:
        if t.settings.strict and len(inside) > 1:   # libuv closes the second one itself
            s.wait_log(REJECTED)
        for _ in range(5):
            inside += s.fill(4)[0]     # some may be admitted: there may be room meanwhile
        check_served(inside)
        s.check_calm()
    leaving = inside[::2]
    for client in leaving:
        client.finish()
        inside.remove(client)
    t.check(s.eventually(s.try_client), f"{len(leaving)} of {len(leaving) + len(inside)} "
                                        "clients left, and still no client is admitted")
    check_served(inside)
    return rejected


def check_queue(s):
    """A server that takes one client at a time needs few descriptors: the others wait, and each
    is served in turn."""
    waiting = [s.connect() for _ in range(30)]
    for client in waiting:
        client.greeting().send(b"^abc$").expect(b"bcd").finish()


def out_of_descriptors(t, files):
    with t.server(rlimits={resource.RLIMIT_NOFILE: files}) as s:
        if t.serial:
            check_queue(s)
        else:
            check_rejections(t, s, files + 10)


@case("with 12 descriptors it serves clients, rejects the rest, and stays idle",
      needs=("ours", "linux"), level="normal")
def out_of_descriptors_12(t):
    out_of_descriptors(t, 12)


@case("with 64 descriptors it serves clients, rejects the rest, and stays idle",
      needs="linux", clients=75)
def out_of_descriptors_64(t):
    out_of_descriptors(t, 64)


@case("with 256 descriptors it serves clients, rejects the rest, and stays idle",
      needs="linux", level="normal", clients=270)
def out_of_descriptors_256(t):
    out_of_descriptors(t, 256)


@case("when the limit of descriptors is lowered below what it has open, it serves its clients, "
      "and at a stop sends all answers", needs=("ours", "linux", "concurrent"),
      clients=50)
def lowered_descriptor_limit(t):
    for limit in t.scale([20], [20, 0], [20, 0]):
        with t.server() as s:
            if limit == 0 and s.sanitized():
                continue        # at the end a sanitizer needs some to look for leaks
            inside = s.crowd(40)
            with s.frozen():    # not while it opens another one
                figures.limit(s.pid, resource.RLIMIT_NOFILE, limit)
            for _ in range(3 if limit else 0):  # (libuv cannot wait without any descriptor)
                s.connect()
            check_served(inside)
            s.check_calm()
            with s.frozen():    # so that it finds them all at once
                for client in inside:
                    client.send(b"^xyz$")
            s.stop()
            for client in inside:
                client.expect(b"yz{").expect_end()


@case("when it can start no further thread it rejects new clients and serves the others",
      needs=("linux", "concurrent"), clients=60)
def out_of_threads(t):
    # The limit does not bind root, and counts whatever else the user runs.
    user = t.ordinary_user()
    room = figures.tasks_of_user(user) + 15
    with t.server(user=user, rlimits={resource.RLIMIT_NPROC: room}) as s:
        check_rejections(t, s, 50)


@case("when memory runs out a client may be lost, never the server or the others",
      needs=("linux", "concurrent"), clients=60, level="normal")
def out_of_memory(t):
    t.not_emulated()
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
                    pass    # disconnected meanwhile, which is allowed
            # On a busy machine it may not have read everything yet.
            s.eventually(lambda: not s.alive() or figures.states(s.pid) == {"S"})
            t.check(s.alive(), f"out of memory it ended: {s.describe()}")
            for client in s.clients[1:]:
                client.reset()
            if t.settings.strict:
                s.serves()
            else:       # what is left may be too little for a thread's stack
                figures.limit(s.pid, resource.RLIMIT_AS, before[0])
                s.serves_soon()
            figures.limit(s.pid, resource.RLIMIT_AS, before[0])


@case("while there is no memory for more clients it serves those it has and stays idle; then "
      "it admits new ones again", needs=("linux", "concurrent"), clients=200)
def memory_returns(t):
    t.not_emulated()
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
        t.check(s.eventually(s.try_client), "there is memory again, and no client is admitted")


@case("--max-clients N: one more is rejected, and admitted when one has left",
      needs=("--max-clients", "concurrent"))
def max_clients(t):
    with t.server("--max-clients", "3") as s:
        inside, rejected = s.fill(3)
        t.check(rejected == 0, f"{rejected} of 3 clients were rejected")
        for _ in range(5):
            t.check(s.try_client() is None, "a fourth client was admitted")
        check_served(inside)
        inside.pop().finish()
        t.check(s.eventually(s.try_client), "one left, and still no client is admitted")
        check_served(inside)
    with t.server("--max-clients", "1") as s:
        for _ in range(t.scale(30, 100, 300)):
            s.connect().greeting().finish()     # one that saw the end may connect again


@case("many rejections appear in the log, but do not flood it",
      needs=("--max-clients", "concurrent"))
def rejections_in_the_log(t):
    with t.server("--max-clients", "1") as s:
        s.connect().greeting()
        before = len(s.log_text().splitlines())
        _, rejected = s.fill(300)
        t.check(rejected == 300, f"{rejected} of 300 clients were rejected")
        s.wait_log(REJECTED)
        lines = len(s.log_text().splitlines()) - before
        t.check(lines <= 60, f"300 rejections made {lines} lines of log")


@case("it counts rejected clients: at --max-clients, and out of descriptors",
      needs=("--max-clients", "--stats", "ours", "linux", "concurrent"))
def rejections_are_counted(t):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "stats.json")
        for options, rlimits in ((["--max-clients", "3"], {}),
                                 ([], {resource.RLIMIT_NOFILE: 24})):
            with t.server("--stats", path, *options, rlimits=rlimits, health=False) as s:
                inside, rejected = s.fill(30)
                s.stop()
            with open(path, encoding="utf-8") as file:
                stats = json.load(file)
            keys = [key for key in REJECTION_KEYS if key in stats]
            t.check(keys, "no count of rejected clients")
            for key, wanted in (*((key, rejected) for key in keys),
                                ("clients_served", len(inside)), ("clients_max", len(inside))):
                t.check(stats[key] == wanted, f"{len(inside)} clients admitted, {rejected} "
                                              f"rejected, and {key} is {stats[key]!r}")


@case("few descriptors: it says at its start how few clients it can serve",
      needs=("ours", "linux"))
def few_descriptors_are_reported(t):
    with t.server(rlimits={resource.RLIMIT_NOFILE: 64}) as s:
        s.wait_log(r"\b\d+ clients")


@case("a client beyond the server's capacity is rejected, the others are served",
      level="normal", needs=("ours", "concurrent"), limit=40)
def beyond_capacity(t):
    capacity = t.settings.capacity
    if capacity is None:
        t.skip("no limit is declared (--capacity)")
    with t.server() as s:
        inside = s.crowd(capacity)
        more, rejected = s.fill(100)
        if rejected:
            s.wait_log(REJECTED)
        check_served(inside + more)
        s.check_calm()
        for client in s.clients:
            client.reset()


# Idle clients.

IDLE = 0.5     # seconds, times t.slow


@case("--idle-timeout: an idle client is closed in time, although no other is active",
      level="normal", needs="--idle-timeout", timed=True)
def idle_timeout(t):
    def idle(s):
        return s.connect().greeting()

    def in_message(s):
        return s.connect().greeting().send(b"^a").expect(b"b")

    def unread(s):
        client = s.connect(rcvbuf=4096).greeting()
        client.rest = flood[client.push(flood, until_stuck=0.1):]
        return client

    flood = message(16 * MIB)
    limit = IDLE * t.slow
    with t.server("--idle-timeout", str(limit)) as s:
        # Twice: what watches for idle clients may have ended with the first ones.
        for kinds in ([unread], [idle]) if t.serial else ([idle, in_message, unread], [idle]):
            began = time.monotonic()
            clients = [kind(s) for kind in kinds]
            for kind, client in zip(kinds, clients):
                most = limit
                since = began
                if kind is unread:
                    since = client.flood_until_reset(client.rest)
                    t.check(since is not None,
                            "a client that neither sends nor reads is not closed")
                    # A blocked send waits as long again for each part that it could still
                    # send. The room may come in one call and be used by the next.
                    most = 3 * limit
                else:
                    client.expect_end()
                now = time.monotonic()
                t.check(now - began >= 0.9 * limit and now - since <= most + 0.4 * t.slow,
                        f"{kind.__name__.replace('_', ' ')}: closed after {now - began:.2f} s, "
                        f"{now - since:.2f} s of them without progress, "
                        f"and --idle-timeout is {limit:g}")


@case("--idle-timeout: a client that sent while the server could not run is not idle",
      level="normal", needs="--idle-timeout", timed=True)
def idle_timeout_frozen(t):
    limit = IDLE * t.slow
    with t.server("--idle-timeout", str(limit)) as s:
        client = s.connect().greeting()
        with s.frozen():
            client.send(b"^abc$")
            time.sleep(1.2 * limit)
        client.expect(b"bcd").finish()


@case("--idle-timeout: requests for reports (SIGUSR1) do not count as activity",
      level="normal", needs=("--idle-timeout", "ours"), timed=True)
def idle_timeout_amid_signals(t):
    limit = IDLE * t.slow
    with t.server("--idle-timeout", str(limit), "--quiet") as s:
        client = s.connect().greeting()
        began = time.monotonic()
        while (time.monotonic() < began + 3 * limit
               and not select.select([client.sock], [], [], limit / 10)[0]):
            s.signal(signal.SIGUSR1)
        t.check(time.monotonic() < began + 2.5 * limit, "an idle client is not closed")
        client.expect_end()


@case("--idle-timeout: a client that sends or reads little, but steadily, may stay; an idle "
      "one is closed", needs="--idle-timeout", limit=30, timed=True)
def idle_timeout_spares_active_clients(t):
    limit = t.scale(0.8, 1, 1) * IDLE * t.slow
    # Made beforehand, because a client that computes is idle, too.
    growth, flood = message(t.scale(0, 2, 8) * MIB), message(32 * MIB)

    def send(client):
        """A byte now and then, without an answer."""
        client.send(b"-")

    def converse(client):
        client.send(b"^a$").expect(b"b")

    def read(client):
        """Enough to open its window, too little to make room in the server's buffer."""
        client.expect(bytes(client.expected[:4000]))

    def reader(**options):
        client = s.connect(**options).greeting()
        client.exchange(growth)     # buffers grow when all goes well
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
            for act, arrive in ((send, lambda: s.connect().greeting()), small):
                client = arrive()
                keep_on([(act, client)])
                client.reset()
            return
        members = [(read, small[1]()),      # first, because it needs time to get ready
                   (send, s.connect().greeting()), (converse, s.connect().greeting())]
        idle = s.connect().greeting()
        keep_on(members)
        idle.expect_end()
        for _, client in members[1:]:
            client.finish()
