#!/usr/bin/env python3
"""Asserts what the course claims about cost: what `make bench-check` calls.

Every claim is a ratio of two figures taken in the same minute on the same machine, with a band
so wide that only a broken model leaves it: select pays for each idle connection, epoll does
not; threads cost memory; polling costs CPU. Runs of the two sides take turns. A claim that
fails is measured again, up to three times in all, for a busy machine spoils a run now and then,
but a wrong claim stays wrong. Exit status: 0 all hold, 1 some do not or cannot be measured.
"""

import argparse
import statistics
import sys
import time

import lab
import tables

ATTEMPTS = 3
TURNS = 3
CLAIMS = []


def claim(sentence, *needs):
    """Registers a function that returns a figure and the band it must be in."""
    def register(function):
        CLAIMS.append((sentence, needs, function))
        return function
    return register


class Bench:
    """The servers by name, and figures of them."""

    def __init__(self):
        self.subjects = {subject.name: subject
                         for subject in [lab.the_floor(), *lab.find_subjects()]}

    def run(self, name, arguments=(), **options):
        options = {"connections": 10, "duration": 0.2, "warmup": 0.05, **options}
        with lab.Server(self.subjects[name], *arguments) as server:
            report = server.load(**options)
        if report["errors"]["total"]:
            raise lab.Trouble("%s: %s" % (name, report["errors"]["first"]))
        return report

    def cost(self, name, **options):
        return self.run(name, **options)["server"]["cpu_us_per_message"]

    def ratio(self, above, below):
        """Of two measurements, taken in turns: the median."""
        return statistics.median(above() / below() for _ in range(TURNS))

    def against_floor(self, name, **options):
        return self.ratio(lambda: self.cost(name, **options),
                          lambda: self.cost("floor", **options))

    def with_idle(self, name, idle):
        """What a message costs among idle connections, against among none."""
        return self.ratio(lambda: self.cost(name, idle=idle), lambda: self.cost(name, idle=0))

    def memory(self, name, connections):
        """Bytes of resident memory for each silent connection."""
        report = self.run(name, connections=1, idle=connections - 1, duration=0.05, warmup=0)
        grown = report["server"]["resident_connected"] - report["server"]["resident_before"]
        return max(grown, 0) / connections

    def idle_cpu(self, name, *arguments, clients=100):
        """CPU used while so many clients are silent, as a share of one CPU."""
        with lab.Server(self.subjects[name], *arguments) as server, \
                lab.Silent(server, clients):
            time.sleep(0.1)
            before, began = server.cpu_seconds(), time.monotonic()
            time.sleep(0.4)
            return (server.cpu_seconds() - before) / (time.monotonic() - began)


@claim("select pays for each idle connection: 900 of them make a message dearer", "step5")
def select_is_linear(bench):
    return bench.with_idle("step5", 900), 3, None


@claim("poll does as well", "step5/poll")
def poll_is_linear(bench):
    return bench.with_idle("step5/poll", 900), 3, None


@claim("polling asks each of 900 silent connections in each lap", "step4")
def polling_is_linear(bench):
    def cpu(clients):
        return bench.idle_cpu("step4", "--interval-ms", "5", clients=clients)
    return bench.ratio(lambda: cpu(900), lambda: cpu(10)), 3, None


@claim("epoll does not: 2000 idle connections cost nothing", "step6")
def epoll_is_flat(bench):
    return bench.with_idle("step6", 2000), None, 1.3


@claim("nor does libuv", "step7")
def libuv_is_flat(bench):
    return bench.with_idle("step7", 2000), None, 1.3


@claim("nor does ae", "step8")
def ae_is_flat(bench):
    return bench.with_idle("step8", 2000), None, 1.3


@claim("epoll costs little more than the floor", "step6")
def epoll_is_near_the_floor(bench):
    return bench.against_floor("step6", connections=100), None, 1.3


@claim("our own event library costs little more than the floor", "step8")
def ae_is_near_the_floor(bench):
    return bench.against_floor("step8", connections=100), None, 1.3


@claim("libuv costs somewhat more", "step7")
def libuv_is_near_the_floor(bench):
    return bench.against_floor("step7", connections=100), None, 1.5


@claim("a thread per connection takes memory: KiB of it", "step2")
def threads_take_memory(bench):
    return bench.memory("step2", 500) / 1024, 4, 20


@claim("a connection that is an object takes bytes", "step6")
def objects_take_little(bench):
    return bench.memory("step6", 3000), None, 300


@claim("polling without a nap burns a CPU while nobody says a word", "step4")
def polling_burns(bench):
    return bench.idle_cpu("step4", "--interval-ms", "0"), 0.2, None


@claim("with a nap it burns less, and answers later: that is the dilemma", "step4")
def napping_delays(bench):
    quick = bench.run("step4", ("--interval-ms", "1"), connections=1, duration=1)
    slow = bench.run("step4", ("--interval-ms", "50"), connections=1, duration=1)
    return slow["latency_us"]["p50"] / quick["latency_us"]["p50"], 5, None


@claim("a server that sleeps in the kernel uses nothing while nobody says a word", "step6",
       "step1", "step2", "step3", "step5", "step7", "step8")
def sleeping_is_free(bench):
    return max(bench.idle_cpu(name) for name in
               ("step1", "step2", "step3", "step5", "step6", "step7", "step8")), None, 0.01


@claim("answers do not wait for Nagle and delayed acknowledgements: 40 ms", "step1", "step2",
       "step3", "step5", "step6", "step7", "step8")
def nobody_waits_for_nagle(bench):
    slowest = max(bench.run(name, connections=1)["latency_us"]["p50"] for name in
                  ("step1", "step2", "step3", "step5", "step6", "step7", "step8"))
    return slowest / 1000, None, 10


@claim("a stream passes the epoll server nearly as fast as the floor", "step6")
def streams_are_fast(bench):
    return bench.ratio(
        lambda: bench.run("step6", connections=1, bulk="64K")["mb_per_second"],
        lambda: bench.run("floor", connections=1, bulk="64K")["mb_per_second"]), 0.6, None


def band(low, high):
    if low is not None and high is not None:
        return "from %g to %g" % (low, high)
    return "at least %g" % low if low is not None else "at most %g" % high


def test(bench, function):
    """Measures until the claim holds; returns whether it did, and the figures."""
    figures = []
    for _ in range(ATTEMPTS):
        try:
            figure, low, high = function(bench)
        except lab.Trouble as trouble:
            return False, str(trouble)
        figures.append(tables.three(figure))
        if (low is None or figure >= low) and (high is None or figure <= high):
            return True, "%s, claimed %s" % (", then ".join(figures), band(low, high))
    return False, "%s, claimed %s" % (", then ".join(figures), band(low, high))


def parse(arguments):
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__.partition("\n\n")[0],
                                     epilog=__doc__.partition("\n\n")[2])
    parser.add_argument("only", metavar="NAME", nargs="*",
                        help="only the claims with this in the name of their function")
    return parser.parse_args(arguments)


def main():
    only = parse(sys.argv[1:]).only
    claims = [each for each in CLAIMS
              if not only or any(part in each[2].__name__ for part in only)]
    failed = 0
    print("1..%d" % len(claims), flush=True)
    try:
        lab.raise_limit()
        lab.need(lab.LOAD_CLIENT, lab.FLOOR)
        bench = Bench()
        for number, (sentence, needs, function) in enumerate(claims, 1):
            missing = [name for name in needs if name not in bench.subjects]
            if missing:
                print("ok %d - %s # SKIP %s is not built" % (
                    number, function.__name__, ", ".join(missing)), flush=True)
                continue
            good, figures = test(bench, function)
            failed += not good
            print("%s %d - %s\n# %s: %s" % ("ok" if good else "not ok", number,
                                            function.__name__, sentence, figures), flush=True)
    except lab.Trouble as trouble:
        print("Bail out! %s" % trouble)
        return 1
    except KeyboardInterrupt:
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
