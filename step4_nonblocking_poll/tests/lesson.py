"""The lesson of step 4: asking every client all the time costs calls, or time, or both."""

import time

import check_server.fair_accept   # noqa: F401  a case for this server, too
from check_server import case
from check_server.protocol import message

CLIENTS, ITERATIONS = 10, 100


@case("it makes clients x iterations recv calls, and nearly all of them return EAGAIN",
      clients=CLIENTS)
def recv_calls_are_clients_times_iterations(t):
    def talk(s):
        s.crowd(CLIENTS)
        t.pause(ITERATIONS * 0.005)

    cost = t.cost_of(talk)
    # The clients stay from the first iterations to the last.
    calls, iterations = cost["recv_calls"], cost["wait_calls"]
    t.check(iterations > ITERATIONS / 4, f"only {iterations} iterations")
    t.check(0.8 * iterations * CLIENTS <= calls <= iterations * CLIENTS + 2 * CLIENTS,
            f"{calls} recv calls in {iterations} iterations")
    t.check(cost["recv_again"] >= 0.8 * calls,
            f"{cost['recv_again']} of {calls} recv calls returned EAGAIN")


@case("the dilemma: without naps an idle client costs CPU, with long ones an answer is late",
      needs="linux")
def cpu_or_time(t):
    with t.server("--interval-ms", "0", health=False) as s:
        s.connect().greeting()
        spinning = s.cpu_share(0.5)
    with t.server("--interval-ms", "200") as s:
        s.connect().greeting()
        napping = s.cpu_share(0.5)
    t.check(spinning > 4 * max(napping, 0.02),
            f"spinning takes {100 * spinning:.0f} % of a core, napping {100 * napping:.0f} %")


@case("as long as a client has bytes for it, it does not nap")
def no_nap_while_busy(t):
    with t.server("--interval-ms", "200") as s:
        client = s.connect().greeting()
        began = time.monotonic()
        client.exchange(message(8 << 20))       # more than a hundred iterations
        took = time.monotonic() - began
        t.check(took < 5 * t.slow, f"8 MiB took {took:.1f} s")


@case("it accepts or rejects all clients that connect during a nap, not one after each nap")
def no_nap_between_accepts(t):
    with t.server("--interval-ms", "200", "--max-clients", "10") as s:
        began = time.monotonic()
        _, rejected = s.fill(40)
        took = time.monotonic() - began
        t.check(rejected == 30, f"{rejected} of 40 were rejected, not 30")
        t.check(took < 2 * t.slow, f"40 clients took {took:.1f} s")


@case("a long nap does not keep it from stopping")
def stops_in_mid_nap(t):
    with t.server("--interval-ms", "60000", health=False) as s:
        t.pause(0.1)
        s.stop()
