#!/usr/bin/env python3
"""Run three echo servers behind HAProxy, and show what that gives: `make fleet`.

1. A server is killed. Exactly its own clients are cut off; new ones go to the others.
2. All three are restarted, one after another, while clients come and go. No answer is lost.
3. One server is slow. Two ways to balance are compared.

Each server, and HAProxy, has a network namespace of its own where that is permitted. It all
takes about half a minute.

Exit status: 0 all is as promised, 1 something is not, 2 wrong command line, 128 + the number of
the signal that ended it. All that was started has ended by then.
"""

import argparse
import contextlib
import json
import pathlib
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = str(HERE), str(HERE.parent)          # also with PYTHONSAFEPATH

from lib import processes, reports      # noqa: E402
from machines import (                  # noqa: E402
    CONFIGURATION, Balancer, Machine, enter_namespace, haproxy, program)
from visits import Guest, Visits        # noqa: E402

OUT_SECONDS = 3.0       # two failed checks, 500 ms apart, and some room for a busy machine
DRAIN_SECONDS = 10.0
LIVE_SECONDS = 0.4      # from one line to the next
BAR = 15                # its length, at most
SLOW_MS = 100           # an answer that takes longer is slow


class Show:
    """What happens, on the screen and in a report."""

    def __init__(self):
        self.began, self.failures, self.figures = time.monotonic(), [], {}

    def title(self, text):
        print(f"\n{text}", flush=True)

    def line(self, text):
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", flush=True)

    def check(self, condition, text):
        self.line(f"{'ok' if condition else 'FAILED'}: {text}")
        if not condition:
            self.failures.append(text)


class Live(threading.Thread):
    """Inside `with Live(show, balancer)` a line now and then says who serves how many."""

    def __init__(self, show, balancer):
        super().__init__(daemon=True)
        self.show, self.balancer, self.over = show, balancer, threading.Event()

    def __enter__(self):
        self.start()

    def __exit__(self, *_):
        self.over.set()
        self.join(LIVE_SECONDS + 5)

    def run(self):
        while not self.over.wait(LIVE_SECONDS):
            with contextlib.suppress(OSError):
                self.show.line("   ".join(
                    f"{name} {state.status:<5} {state.now:3} {'█' * min(state.now, BAR):<{BAR}}"
                    for name, state in self.balancer.states().items()).rstrip())


def kill_one(show, balancer, fleet, count):
    """Guests come; one server is killed."""
    show.title(f"1. {count} clients come and stay. Then a server is killed.")
    with contextlib.ExitStack() as leaving:
        guests = []
        for _ in range(count):
            guests.append(Guest(balancer.address))
            leaving.callback(guests[-1].close)
            time.sleep(1 / count)
        show.check(all(guest.is_greeted() and guest.is_served() for guest in guests),
                   f"{count} clients are greeted and answered")
        served_by = balancer.clients()
        victim = fleet[1]
        show.line(f"kill -9 {victim.name}")
        killed = time.monotonic()
        victim.kill()
        later = [Guest(balancer.address) for _ in range(10)]
        for guest in later:
            leaving.callback(guest.close)
        show.check(all(guest.is_greeted() and guest.is_served() for guest in later),
                   "10 new clients at once are served by the others")
        balancer.wait(lambda states: states[victim.name].status == "DOWN",
                      OUT_SECONDS + 5, f"{victim.name} is down")
        seconds = time.monotonic() - killed
        show.check(seconds <= OUT_SECONDS,
                   f"{victim.name} is out after {seconds:.1f} s, by its health check")
        cut = {guest.port for guest in guests
               if served_by[guest.port] == victim.name and guest.is_cut_off(1)}
        its_own = {port for port, name in served_by.items() if name == victim.name}
        others = [guest for guest in guests if guest.port not in its_own]
        show.check(cut == its_own and all(guest.is_served() for guest in others),
                   f"cut off: {len(cut)} of its own {len(its_own)} clients, and none of the "
                   f"other {len(others)}")
        victim.start(program(6))
        seconds = balancer.wait_until_up()
        show.line(f"{victim.name} is started again, and gets clients {seconds:.1f} s later")
    show.figures["killed"] = {"clients": count, "own": len(its_own), "cut_off": len(cut)}


def restart_all(show, balancer, fleet, rate):
    """A rolling restart under an open-loop load."""
    show.title(f"2. {rate} clients a second come, send 5 messages each, and leave. Meanwhile "
               "all servers are restarted.")
    visits = Visits(balancer.address, rate, messages=5, gap=0.05)
    visits.start()
    time.sleep(1)
    for machine in fleet:
        balancer.set_state(machine.name, "drain")
        seconds = balancer.wait(lambda states: states[machine.name].now == 0, DRAIN_SECONDS,
                                f"the clients of {machine.name} have left")
        status = machine.stop()
        machine.start(program(6))
        balancer.set_state(machine.name, "ready")
        balancer.wait(lambda states: states[machine.name].status == "UP", 5,
                      f"{machine.name} is up")
        show.line(f"{machine.name}: no new clients; its last one left after {seconds:.1f} s; "
                  f"stopped with status {status}; started; ready")
        time.sleep(1)
    visits.end()
    show.check(not visits.lost and not visits.trouble,
               f"{visits.visitors} clients sent {visits.sent} messages; {visits.answered} "
               f"answers came, {visits.lost} were lost")
    for trouble in visits.trouble[:5]:
        show.line(reports.clean(trouble))
    show.figures["restarted"] = {"clients": visits.visitors, "messages": visits.sent,
                                 "answered": visits.answered, "lost": visits.lost}


def percentile(values, share):
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def slow_server(show, fleet, rate, seconds, interval_ms):
    """One server sleeps between two looks at its clients: two ways to balance."""
    slow = fleet[-1]
    show.title(f"3. {slow.name} is slow: step 4, which sleeps {interval_ms} ms between two "
               f"looks. {rate} clients a second send one message each, for {seconds:g} s.")
    slow.start(program(4), "--interval-ms", str(interval_ms))
    print(f"            {'':<11} {'median':>9} {'99th':>9} {f'> {SLOW_MS} ms':>9}   clients of "
          + ", ".join(machine.name for machine in fleet))
    table = show.figures["slow"] = {}
    for balance in "roundrobin", "leastconn":
        with Balancer(addresses(fleet), balance) as balancer:
            balancer.wait_until_up()
            visits = Visits(balancer.address, rate)
            visits.start()
            time.sleep(seconds)
            visits.end()
            times = [latency * 1000 for latency in visits.latencies] or [0]
            median, high = percentile(times, 0.5), percentile(times, 0.99)
            slow_share = sum(ms > SLOW_MS for ms in times) / len(times)
            totals = [state.total for state in balancer.states().values()]
            print(f"            {balance:<11} {median:6.0f} ms {high:6.0f} ms {slow_share:9.1%}"
                  f"   {', '.join(map(str, totals))}", flush=True)
            if visits.trouble:
                show.check(False, reports.clean(visits.trouble[0]))
            table[balance] = {"median_ms": median, "p99_ms": high, "slow_share": slow_share,
                              "clients": totals}
    few, many = (table[balance]["clients"][-1] for balance in ("leastconn", "roundrobin"))
    show.check(few < many, f"leastconn gave {slow.name} {few} clients, roundrobin {many}")


def addresses(fleet):
    return {machine.name: (machine.address, machine.port) for machine in fleet}


def whole_number(least, most):
    def parse(text):
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(
                f"{text}: expected a whole number from {least} to {most}")
        return int(text)
    return parse


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="fleet.py", description=__doc__.partition("\n\n")[0],
        epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clients", type=whole_number(3, 1000), default=30, metavar="N",
        help="clients that stay, in part 1 (30)")
    add("--rate", type=whole_number(1, 1000), default=200, metavar="N",
        help="clients a second, in parts 2 and 3 (200)")
    add("--seconds", type=whole_number(1, 60), default=5, metavar="S",
        help="for each way to balance, in part 3 (5)")
    add("--interval-ms", type=whole_number(10, 500), default=300, metavar="MS",
        help="how long the slow server sleeps (300)")
    add("--no-namespaces", action="store_true",
        help="use addresses of this machine: 127.0.0.2 and so on")
    add("--json", type=argparse.FileType("w"), metavar="FILE",
        help="write the figures to this file as well")
    return parser.parse_args(arguments)


def main():
    settings = parse(sys.argv[1:])
    if not haproxy():
        return reports.unavailable("fleet", "haproxy is not installed")
    namespaces = not settings.no_namespaces and enter_namespace()
    show = Show()
    print("Three servers of step 6 behind HAProxy, " + (
        "each in a network namespace of its own." if namespaces else
        "at addresses of this machine: there are no network namespaces here."))
    with contextlib.ExitStack() as stack:
        if namespaces:
            processes.capture(["ip", "link", "set", "lo", "up"], 10)
        fleet = [stack.enter_context(Machine(number, namespaces)) for number in (1, 2, 3)]
        for machine in fleet:
            machine.start(program(6))
        with Balancer(addresses(fleet), configuration=CONFIGURATION) as balancer:
            balancer.wait_until_up()
            with Live(show, balancer):
                kill_one(show, balancer, fleet, settings.clients)
                restart_all(show, balancer, fleet, settings.rate)
        slow_server(show, fleet, settings.rate, settings.seconds, settings.interval_ms)
    if settings.json:
        json.dump(show.figures, settings.json, indent=1)
        settings.json.write("\n")
    print(f"\n{len(show.failures)} failed" if show.failures else "\nAll is as promised.")
    return 1 if show.failures else 0


if __name__ == "__main__":
    processes.program(main, name="fleet.py")
