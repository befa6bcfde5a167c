#!/usr/bin/env python3
"""Asserts what the course claims about cost: what `make bench-check` calls.

Every claim is a ratio of two figures taken in the same minute on the same machine, with a band
so wide that only a broken model leaves it: select pays for each idle connection, epoll does
not; threads cost memory; polling costs CPU. The two sides take turns, and the median of three
figures counts. If the first two agree, the third is not measured. A claim that fails is
measured again, up to three times in all: a busy machine may spoil one run, but a wrong claim
stays wrong. Where the noise is larger than the band, a claim is reported as not decided.
Exit status: 0 all others hold, 1 some do not or cannot be measured.
"""

import argparse
import contextlib
import os
import resource
import statistics
import sys
import time
from collections import deque

sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))     # also with PYTHONSAFEPATH

import lab          # noqa: E402
import tables       # noqa: E402
import timers       # noqa: E402
import workers      # noqa: E402
from lib.processes import program       # noqa: E402

ATTEMPTS = 3
TURNS = 3
CLAIMS = []


class Claim:
    """A sentence, a function that returns a figure, and the band it must be in."""

    def __init__(self, sentence, needs, low, high, measure):
        self.sentence, self.needs = sentence, needs
        self.low, self.high, self.measure = low, high, measure
        self.name = measure.__name__

    def holds(self, figure):
        return ((self.low is None or figure >= self.low)
                and (self.high is None or figure <= self.high))

    def band(self):
        if self.low is not None and self.high is not None:
            return f"from {self.low:g} to {self.high:g}"
        return f"at least {self.low:g}" if self.low is not None else f"at most {self.high:g}"

    def attempt(self, bench):
        """Whether the median of three figures is in the band, and the figures."""
        figures = []
        while True:
            figures.append(self.measure(bench))
            good = sum(map(self.holds, figures))
            if max(good, len(figures) - good) > TURNS // 2:
                return good > TURNS // 2, figures

    def test(self, bench):
        """Measures until the claim holds; returns whether it did, and the medians. None: it did
        not, and more often than it failed this machine could not decide."""
        medians, undecided = [], 0
        for _ in range(ATTEMPTS):
            try:
                good, figures = self.attempt(bench)
            except lab.Trouble as trouble:
                good = False
                undecided += isinstance(trouble, workers.Undecided)
                medians.append(str(trouble))
                continue
            medians.append(tables.three(statistics.median(figures)))
            if good:
                break
        failed = len(medians) - undecided
        return (None if undecided > failed and not good else good,
                f"{', then '.join(medians)}, claimed {self.band()}")


def claim(sentence, *needs, low=None, high=None):
    """Registers the function that measures for a claim."""
    def register(measure):
        CLAIMS.append(Claim(sentence, needs, low, high, measure))
        return measure
    return register


class Bench:
    """The servers by name, and figures of them."""

    def __init__(self):
        self.subjects = {subject.name: subject
                         for subject in [lab.baseline(), *lab.find_subjects()]}
        self.there = [*self.subjects, *(["slow_syscalls"] if lab.price_of_a_call(0) else []),
                      *(["timers"] if timers.PROGRAM.exists() else [])]
        self.many = min(8000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
        # By number of workers: what was measured for another claim and is not used yet. Only
        # the latest, because an attempt may fail on a busy machine.
        self.worker_costs = {1: deque(maxlen=2), 2: deque(maxlen=2)}

    def run(self, name, arguments=(), divisions=None, **options):
        options = {"connections": 10, "duration": 0.15, "warmup": 0.03, **options}
        subject = self.subjects[name]
        if divisions:
            subject = lab.slowed(subject, divisions)
        with lab.Server(subject, *arguments) as server:
            report = server.load(**options)
        if report["errors"]["total"]:
            raise lab.Trouble(f"{name}: {report['errors']['first']}")
        if not report["messages_per_second"]:
            raise lab.Trouble(f"{name}: no time to answer a message")
        return report

    def cost(self, name, *arguments, **options):
        return self.run(name, arguments, **options)["server"]["cpu_us_per_message"]

    def against_baseline(self, name, **options):
        return self.cost(name, **options) / self.cost("baseline", **options)

    def with_idle(self, name, idle, *arguments):
        """What a message costs among idle connections, against among none."""
        return self.cost(name, *arguments, idle=idle) / self.cost(name, *arguments, idle=0)

    def with_workers(self, count, limit):
        """What a message costs with this many workers, against with one loop. The claims about
        different numbers of workers share their runs."""
        if not self.worker_costs[count]:
            ratios = workers.cost_ratios(self.subjects["step6/workers"],
                                         self.subjects["step6"], list(self.worker_costs))
            for each, ratio in ratios.items():
                self.worker_costs[each].append(ratio)
        return workers.decided(*self.worker_costs[count].popleft(), limit)

    def memory(self, name, connections):
        """Bytes of resident memory for each idle connection."""
        report = self.run(name, connections=1, idle=connections - 1, duration=0.05, warmup=0)
        grown = report["server"]["resident_connected"] - report["server"]["resident_before"]
        return max(grown, 0) / connections

    def idle_cpu(self, *servers):
        """CPU used while clients are idle, as shares of one CPU: of several servers at the
        same time, each given as its name, the number of clients, and arguments."""
        with contextlib.ExitStack() as stack:
            running = [stack.enter_context(lab.Server(self.subjects[name], *arguments))
                       for name, _, *arguments in servers]
            for server, (_, clients, *_) in zip(running, servers):
                stack.enter_context(lab.Idle(server, clients))
            time.sleep(0.1)
            before, began = [server.cpu_seconds() for server in running], time.monotonic()
            time.sleep(0.4)
            seconds = time.monotonic() - began
            return [(server.cpu_seconds() - earlier) / seconds
                    for server, earlier in zip(running, before)]


WATCHED = "--idle-timeout", "60"
SLEEPERS = "step1", "step2", "step3", "step5", "step6", "step7", "step8"


@claim("select pays for each idle connection: 900 make a message cost more", "step5", low=2)
def select_is_linear(bench):
    return bench.with_idle("step5", 900)


@claim("poll does as well", "step5/poll", low=2)
def poll_is_linear(bench):
    return bench.with_idle("step5/poll", 900)


@claim("polling asks each of 900 idle connections in each iteration", "step4", low=3)
def polling_is_linear(bench):
    interval = "--interval-ms", "5"
    many, few = bench.idle_cpu(("step4", 900, *interval), ("step4", 10, *interval))
    return many / few


@claim("epoll does not: thousands cost nothing, though each has a time limit", "step6",
       high=1.3)
def epoll_is_flat(bench):
    return bench.with_idle("step6", bench.many, *WATCHED)


@claim("libuv does not pay for idle connections", "step7", high=1.3)
def libuv_is_flat(bench):
    return bench.with_idle("step7", bench.many, *WATCHED)


@claim("ae does not pay for idle connections", "step8", high=1.3)
def ae_is_flat(bench):
    return bench.with_idle("step8", bench.many, *WATCHED)


@claim("epoll costs little more than the baseline", "step6", high=1.3)
def epoll_is_near_the_baseline(bench):
    return bench.against_baseline("step6", connections=100)


@claim("our own event library costs little more than the baseline", "step8", high=1.3)
def ae_is_near_the_baseline(bench):
    return bench.against_baseline("step8", connections=100)


@claim("libuv costs somewhat more", "step7", high=1.5)
def libuv_is_near_the_baseline(bench):
    return bench.against_baseline("step7", connections=100)


@claim("a message costs with one worker what it costs with one loop", "step6", "step6/workers",
       high=1.05)
def one_worker_is_one_loop(bench):
    return bench.with_workers(1, limit=1.05)


@claim("with two workers it costs hardly more", "step6", "step6/workers", high=1.15)
def two_workers_cost_little_more(bench):
    return bench.with_workers(2, limit=1.15)


@claim("a timer among 100,000 costs in ae at most three times what it costs in libuv",
       "timers", high=3)
def ae_timers_are_like_libuvs(bench):
    figures = timers.by_library(timers.measure(), timers.MANY)
    return max(figures["ae"][key] / figures["libuv"][key] for key in timers.KEYS)


@claim("among a hundred times as many timers, one costs little more: the processor's caches "
       "are too small", "timers", high=20)
def ae_timers_scale(bench):
    measured = timers.measure()
    few = timers.by_library(measured, timers.FEW)["ae"]
    many = timers.by_library(measured, timers.MANY)["ae"]
    return max(many[key] / few[key] for key in timers.KEYS)


@claim("io_uring makes few calls: where a call costs some hundred ns it beats the baseline",
       "step6/io_uring", "slow_syscalls", high=0.9)
def few_calls_save(bench):
    return bench.against_baseline("step6/io_uring", connections=100, divisions=200)


@claim("a thread per connection takes memory: KiB of it", "step2", low=4, high=20)
def threads_take_memory(bench):
    return bench.memory("step2", 500) / 1024


@claim("a connection that is an object takes bytes", "step6", high=300)
def objects_take_little(bench):
    return bench.memory("step6", 3000)


@claim("polling without sleeping burns a CPU while all clients are idle", "step4", low=0.2)
def polling_burns(bench):
    return bench.idle_cpu(("step4", 100, "--interval-ms", "0"))[0]


@claim("polling at intervals burns less, but answers later", "step4", low=5)
def napping_delays(bench):
    def delay(interval):
        report = bench.run("step4", ("--interval-ms", interval), connections=1, duration=0.3)
        return report["latency_us"]["p50"]
    return delay("50") / delay("1")


@claim("a server that sleeps in the kernel uses nothing while all clients are idle", *SLEEPERS,
       high=0.01)
def sleeping_is_free(bench):
    return max(bench.idle_cpu(*((name, 100) for name in SLEEPERS)))


@claim("answers do not wait for Nagle and delayed acknowledgements: 40 ms", *SLEEPERS, high=10)
def nobody_waits_for_nagle(bench):
    return max(bench.run(name, connections=1, duration=0.1)["latency_us"]["p50"]
               for name in SLEEPERS) / 1000


@claim("a stream passes the epoll server nearly as fast as the baseline", "step6", low=0.6)
def streams_are_fast(bench):
    def speed(name):
        return bench.run(name, connections=1, bulk="64K", warmup=0.1)["mb_per_second"]
    return speed("step6") / speed("baseline")


def obstacle(each, bench):
    """Why a claim cannot be tested here, or None."""
    if float(os.environ.get("CHECK_SLOW") or 1) > 1:
        return "CHECK_SLOW: this is not the time to measure"
    if lab.sanitized():
        return "built with sanitizers, which cost more than what is measured"
    missing = [name for name in each.needs if name not in bench.there]
    return ", ".join(missing) + " is not there" if missing else None


def parse(arguments):
    parser = argparse.ArgumentParser(prog="check.py", description=__doc__.partition("\n\n")[0],
                                     epilog=__doc__.partition("\n\n")[2])
    parser.add_argument("only", metavar="NAME", nargs="*",
                        help="only the claims with this in the name of their function")
    return parser.parse_args(arguments)


def main():
    only = parse(sys.argv[1:]).only
    claims = [each for each in CLAIMS
              if not only or any(part in each.name for part in only)]
    failed = 0
    print(f"1..{len(claims)}", flush=True)
    try:
        lab.raise_limit()
        lab.need(lab.LOAD_CLIENT, lab.BASELINE)
        bench = Bench()
        for number, each in enumerate(claims, 1):
            reason = obstacle(each, bench)
            if reason:
                print(f"ok {number} - {each.name} # SKIP {reason}", flush=True)
                continue
            good, figures = each.test(bench)
            if good is None:
                print(f"ok {number} - {each.name} # SKIP not decided on this machine: "
                      f"{figures}", flush=True)
                continue
            failed += not good
            print(f"{'ok' if good else 'not ok'} {number} - {each.name}\n# {each.sentence}: "
                  f"{figures}", flush=True)
    except lab.Trouble as trouble:
        print(f"Bail out! {trouble}")
        return 1
    return 1 if failed else 0


if __name__ == "__main__":
    program(main)
