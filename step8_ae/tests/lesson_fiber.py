"""The lesson of fibers: straight-line code for each client, and still only one thread."""

import signal

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case

GUARD_SIZE = 64 << 10


@case("thousands of clients have a stack each, and there is one thread", level="normal",
      needs="linux", clients=5000)
def one_thread(t):
    with t.server("--quiet") as s:
        clients, before = s.crowd(10), s.rss()
        clients += s.crowd(4990)
        t.check(s.threads() == 1 or s.sanitized(), "%d threads" % s.threads())
        each = (s.rss() - before) / 4990
        t.check(each < 16 << 10 or s.sanitized(), "%d bytes for a silent client" % each)
        for client in clients[::100]:
            client.send(b"^abc$").expect(b"bcd")


@case("each stack has guard pages below it", needs="linux", clients=20)
def guard_pages(t):
    with t.server() as s:
        before = guards(s.pid)
        s.crowd(20)
        t.check(guards(s.pid) - before == 20,
                "%d guards for 20 clients" % (guards(s.pid) - before))


def guards(pid):
    """How many pieces of memory may not be touched: mapped, without a file, and so long."""
    count = 0
    with open("/proc/%d/maps" % pid, encoding="ascii") as maps:
        for line in maps:
            addresses, access, rest = line.split(None, 2)
            first, end = (int(word, 16) for word in addresses.split("-"))
            count += access == "---p" and end - first == GUARD_SIZE and rest.split()[2] == "0"
    return count


@case("told to stop it listens to those who were silent before for some more milliseconds")
def stop_after_silence(t):
    with t.server(health=False) as s:
        client = s.connect().greeting()
        t.pause(0.1)
        s.signal(signal.SIGTERM)
        t.pause(0.01)
        client.send(b"^abc$").expect(b"bcd").expect_end()
        t.check(s.wait().status == 0, s.describe())
