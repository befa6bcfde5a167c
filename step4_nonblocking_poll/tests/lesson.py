"""The lesson of step 4: asking everybody all the time costs calls, or time, or both."""

import time

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case
from check_server.protocol import message

CLIENTS, LAPS = 10, 100


@case("it makes as many recv calls as clients x laps, nearly all of them for nothing",
      clients=CLIENTS)
def recv_calls_are_clients_times_laps(t):
    def talk(s):
        s.crowd(CLIENTS)
        t.pause(LAPS * 0.005)

    cost = t.cost_of(talk)
    # The clients stay from the first laps to the last.
    calls, laps = cost["recv_calls"], cost["wait_calls"]
    t.check(laps > LAPS / 4, "only %d laps" % laps)
    t.check(0.8 * laps * CLIENTS <= calls <= laps * CLIENTS + 2 * CLIENTS,
            "%d recv calls in %d laps over %d clients" % (calls, laps, CLIENTS))
    t.check(cost["recv_again"] >= 0.8 * calls, "%d of %d recv calls said EAGAIN"
            % (cost["recv_again"], calls))


@case("the dilemma: without naps a silent client burns CPU, with long ones an answer is late",
      needs="linux")
def cpu_or_time(t):
    with t.server("--interval-ms", "0", health=False) as s:
        s.connect().greeting()
        spinning = s.cpu_share(0.5)
    with t.server("--interval-ms", "200") as s:
        s.connect().greeting()
        napping = s.cpu_share(0.5)
    t.check(spinning > 4 * max(napping, 0.02),
            "spinning takes %.0f %% of a processor, napping %.0f %%"
            % (100 * spinning, 100 * napping))


@case("as long as somebody has something for it, it does not nap")
def no_nap_while_busy(t):
    with t.server("--interval-ms", "200") as s:
        client = s.connect().greeting()
        began = time.monotonic()
        client.exchange(message(8 << 20))       # more than a hundred laps
        took = time.monotonic() - began
        t.check(took < 5 * t.slow, "8 MiB took %.1f s" % took)


@case("all who knock during a nap are let in or refused after it, not one after each nap")
def no_nap_between_newcomers(t):
    with t.server("--interval-ms", "200", "--max-clients", "10") as s:
        began = time.monotonic()
        _, refused = s.fill(40)
        took = time.monotonic() - began
        t.check(refused == 30, "%d of 40 were refused, not 30" % refused)
        t.check(took < 2 * t.slow, "40 newcomers took %.1f s" % took)


@case("a long nap does not keep it from stopping")
def stops_in_mid_nap(t):
    with t.server("--interval-ms", "60000", health=False) as s:
        t.pause(0.1)
        s.stop()
