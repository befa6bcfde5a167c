"""The lesson of edge-triggered epoll: read until EAGAIN, but not all at once."""

import time

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case
from check_server.client import Flood
from check_server.protocol import message


@case("a client with more bytes gets one turn in each iteration, not all it could use")
def one_turn_per_iteration(t):
    cost = t.cost_of(lambda s: s.connect().greeting().exchange(message(8 << 20)))
    turns, iterations = cost["recv_calls"], cost["wait_calls"]
    t.check(turns > 100, f"only {turns} recv calls for 8 MiB")
    # Two at most: one from the ready list, and one for bytes that came after it was dropped.
    t.check(turns <= 2 * iterations, f"{turns} recv calls in {iterations} iterations")


@case("it adds each client to epoll once, even one whose answers do not fit its socket")
def added_once(t):
    def talk(s):
        s.crowd(20)
        client = s.connect(rcvbuf=4096).greeting()
        client.push(message(16 << 20), until_stuck=0.1)
        client.settle()

    cost = t.cost_of(talk)
    t.check(cost["send_again"] + cost["send_short"] > 0, "every answer fitted its socket")
    t.check(cost["interest_changes"] == 23,
            f"{cost['interest_changes']} calls of epoll_ctl for 21 clients")


@case("clients that send without pause starve no other", level="normal")
def floods_starve_no_other(t):
    with t.server("--quiet") as s:
        with Flood(s.address, 4):
            client, slowest = s.connect().greeting(), 0.0
            for _ in range(50):
                began = time.monotonic()
                client.send(b"^a$").expect(b"b")
                slowest = max(slowest, time.monotonic() - began)
    t.check(slowest < 0.5 * t.slow, f"an answer among floods took {slowest:.2f} s")
