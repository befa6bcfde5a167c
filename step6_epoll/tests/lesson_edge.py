"""The lesson of edge-triggered: told once, read until EAGAIN, but never all at one go."""

import time

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case
from check_server.client import Flood
from check_server.protocol import message


@case("a client that has more gets its turn in each lap, not all the turns it could use")
def one_turn_a_lap(t):
    cost = t.cost_of(lambda s: s.connect().greeting().exchange(message(8 << 20)))
    turns, laps = cost["recv_calls"], cost["wait_calls"]
    t.check(turns > 100, "only %d recv calls for 8 MiB" % turns)
    # Twice in a lap: for the list, which then lets go of it, and for bytes that came meanwhile.
    t.check(turns <= 2 * laps, "%d recv calls in %d laps" % (turns, laps))


@case("epoll is told of each client once, even of one whose answers do not fit its socket")
def told_once(t):
    def talk(s):
        s.crowd(20)
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 << 20), until_stuck=0.1)
        client.settle()

    cost = t.cost_of(talk)
    t.check(cost["send_again"] + cost["send_short"] > 0, "every answer fitted its socket")
    t.check(cost["interest_changes"] == 23,
            "%d calls of epoll_ctl for 21 clients" % cost["interest_changes"])


@case("clients that never stop sending starve nobody", level="normal")
def floods_starve_nobody(t):
    with t.server("--quiet") as s:
        with Flood(s.address, 4):
            client, slowest = s.connect().greeting(), 0.0
            for _ in range(50):
                began = time.monotonic()
                client.send(b"^a$").expect(b"b")
                slowest = max(slowest, time.monotonic() - began)
    t.check(slowest < 0.5 * t.slow, "an answer among floods took %.2f s" % slowest)
