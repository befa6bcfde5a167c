"""The lesson of fibers: straight-line code for each client, in one thread."""

import signal

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case

GUARD_SIZE = 64 << 10


@case("thousands of clients have a stack each, in one thread", level="normal",
      needs="linux", clients=5000)
def one_thread(t):
    with t.server("--quiet") as s:
        clients, before = s.crowd(10), s.rss()
        clients += s.crowd(4990)
        t.check(s.threads() == 1 or s.sanitized(), f"{s.threads()} threads")
        each = (s.rss() - before) / 4990
        t.check(each < 16 << 10 or s.sanitized(), f"{each:.0f} bytes for an idle client")
        for client in clients[::100]:
            client.send(b"^abc$").expect(b"bcd")


@case("each stack has guard pages below it", needs="linux", clients=20)
def guard_pages(t):
    with t.server() as s:
        before = guards(s.pid)
        s.crowd(20)
        t.check(guards(s.pid) - before == 20,
                f"{guards(s.pid) - before} guards for 20 clients")


def guards(pid):
    """How many guard areas there are: mapped without access, without a file, of that size."""
    count = 0
    with open(f"/proc/{pid}/maps", encoding="ascii") as maps:
        for line in maps:
            addresses, access, rest = line.split(None, 2)
            first, end = (int(word, 16) for word in addresses.split("-"))
            count += access == "---p" and end - first == GUARD_SIZE and rest.split()[2] == "0"
    return count


@case("after SIGTERM it still serves idle clients for some milliseconds")
def idle_clients_at_a_stop(t):
    with t.server(health=False) as s:
        client = s.connect().greeting()
        t.pause(0.1)
        s.signal(signal.SIGTERM)
        t.pause(0.01)
        client.send(b"^abc$").expect(b"bcd").expect_end()
        t.check(s.wait().status == 0, s.describe())
