"""Claims about cost: ratios that the benchmark measures (clients/bench/check.py).

The sentences of this course that `make bench-check` asserts stand in SENTENCES, each with the
server that takes the place of the one it is about, so that it must come out wrong.
"""

import functools
import statistics
import sys
import time

from . import Figure, Undecided, claim
from .lab import TREE

sys.path.insert(0, str(TREE / "clients/bench"))

import check                # noqa: E402  what `make bench-check` calls
import lab as bench_lab     # noqa: E402

OURS = "this course (make bench-check)"
THREADS = "the server with a thread for each client in its place"


class Bench(check.Bench):
    """Bench-check's servers, of which some are replaced: {name: (name, arguments)}."""

    def __init__(self):
        bench_lab.raise_limit()
        bench_lab.need(bench_lab.LOAD_CLIENT, bench_lab.BASELINE)
        super().__init__()
        self.own = dict(self.subjects)

    def replaced(self, swap):
        self.subjects = dict(self.own)
        for name, (other, arguments) in swap.items():
            old = self.own[other]
            self.subjects[name] = bench_lab.Subject(
                old.name, [*old.command, *arguments], old.model, old.step, old.mode,
                old.capacity)
        self.swapped = set(swap)
        return self

    def run(self, name, arguments=(), *others, **options):
        return super().run(name, self.known(name, arguments), *others, **options)

    def idle_cpu(self, *wanted):
        return super().idle_cpu(*((name, clients, *self.known(name, arguments))
                                  for name, clients, *arguments in wanted))

    def known(self, name, arguments):
        """Without the option of step 4 that its counterpart does not have."""
        if name in self.swapped and "--interval-ms" in arguments:
            at = arguments.index("--interval-ms")
            return (*arguments[:at], *arguments[at + 2:])
        return arguments


@functools.lru_cache(maxsize=None)
def bench():
    return Bench()


def _prepared(lab, needs, swap):
    if bench_lab.sanitized():
        raise Undecided("built with sanitizers, which cost more than what is measured")
    missing = [name for name in needs if name not in bench().there]
    if missing:
        raise Undecided(f"{', '.join(missing)} is not there")
    return bench().replaced(swap if lab.doctored else {})


def _median(measure, prepared, lab, what, holds=None):
    """The median of three. Two suffice if the claim holds for both, or for neither."""
    values = []
    for _ in range(3):
        try:
            values.append(measure(prepared))
        except ZeroDivisionError:       # nothing against nothing
            values.append(1.0)
        if holds and len(values) == 2 and holds(values[0]) == holds(values[1]):
            break
    lab.show(f"{what}: {', '.join(f'{value:.3g}' for value in values)}")
    return statistics.median(values)


# claim: (sentence, unit, why, the counterpart, and for each figure: the function of check.py,
# what the figure is, and the server that takes the place of another one in the counterpart)
SENTENCES = {
    "select_is_linear": (
        "select and poll pay for each idle connection.", "times",
        "The sets, or the array, are filled, copied and searched for every wait.",
        "epoll in their place",
        ("select_is_linear", "select: a message among 900 idle clients, against none",
         {"step5": ("step6", ())}),
        ("poll_is_linear", "poll: a message among 900 idle clients, against none",
         {"step5/poll": ("step6", ())})),
    "polling_is_linear": (
        "A server that polls pays for each idle client in each iteration.", "times",
        "It asks each of them.", "select in its place",
        ("polling_is_linear", "processor time with 900 idle clients, against 10",
         {"step4": ("step5", ())})),
    "epoll_is_flat": (
        "epoll, and libraries that wait in epoll, do not pay for idle connections.", "times",
        "The kernel puts ready descriptors on a list. Nobody looks at the others.",
        "poll in its place",
        ("epoll_is_flat", "step 6: a message among thousands, against none",
         {"step6": ("step5/poll", ())}),
        ("libuv_is_flat", "libuv: a message among thousands, against none",
         {"step7": ("step5/poll", ())}),
        ("ae_is_flat", "ae: a message among thousands, against none",
         {"step8": ("step5/poll", ())})),
    "epoll_is_near_the_baseline": (
        "An epoll server costs little more than the smallest loop, also with an event library.",
        "times",
        "The protocol, the counters and the time limits are cheap beside the system calls, and "
        "a callback is a call of a function.", f"{THREADS} (for libuv, with a process)",
        ("epoll_is_near_the_baseline",
         "step 6: processor time of a message, against the smallest epoll loop",
         {"step6": ("step2", ())}),
        ("ae_is_near_the_baseline", "ae: the same", {"step8": ("step2", ())}),
        ("libuv_is_near_the_baseline", "libuv: the same", {"step7": ("step2/fork", ())})),
    "threads_take_memory": (
        "A thread for each client takes KiB of memory.", "KiB",
        "The pages of its stack that it touched, and the tables for them.",
        "epoll in its place",
        ("threads_take_memory", "resident for each idle client", {"step2": ("step6", ())})),
    "objects_take_little": (
        "A client that is an object takes at most 300 bytes.", "bytes",
        "struct conn, and nothing else.", THREADS,
        ("objects_take_little", "resident for each idle client", {"step6": ("step2", ())})),
    "polling_burns": (
        "Polling without a pause burns a processor while nothing happens.", "",
        "It asks, and asks again.", "select in its place",
        ("polling_burns", "share of a processor while 100 clients are idle",
         {"step4": ("step5", ())})),
    "napping_delays": (
        "Polling with a pause answers later.", "times",
        "A message waits for the end of the pause.",
        "select in its place, which needs no pause",
        ("napping_delays", "median answer, pause of 50 ms against 1 ms",
         {"step4": ("step5", ())})),
    "sleeping_is_free": (
        "A server that sleeps in the kernel uses no processor while its clients are idle.", "",
        "The kernel does not run a thread that sleeps.", "step 4 without a pause among them",
        ("sleeping_is_free",
         "share of a processor while 100 clients are idle, the most of all steps except 4",
         {"step6": ("step4", ("--interval-ms", "0"))})),
    "nobody_waits_for_nagle": (
        "No server of this course waits 40 ms for an acknowledgement.", "ms",
        "They set TCP_NODELAY, and send an answer at once.",
        "step 4, with a pause of 20 ms, among them",
        ("nobody_waits_for_nagle", "median answer, the slowest of all steps except 4",
         {"step6": ("step4", ("--interval-ms", "20"))})),
    "streams_are_fast": (
        "A stream passes the epoll server nearly as fast as the smallest loop.", "times",
        "Adding 1 to each byte is cheap beside the copies of the kernel.",
        "step 4, which pauses between two reads",
        ("streams_are_fast", "bytes a second, against the smallest epoll loop",
         {"step6": ("step4", ())})),
}
CHECKS = {each.name: each for each in check.CLAIMS}


def _register(name, sentence, unit, why, counterpart, *parts):
    def measure(lab):
        figures = []
        for function, what, swap in parts:
            asserted = CHECKS[function]
            prepared = _prepared(lab, asserted.needs, swap)
            value = _median(asserted.measure, prepared, lab, what, asserted.holds)
            figures.append(Figure(what, value, unit, low=asserted.low, high=asserted.high,
                                  within=5, slack=0.5))
        return figures
    measure.__name__ = name
    claim(sentence, OURS, why, counterpart, slow=True)(measure)


for each, parts in SENTENCES.items():
    _register(each, *parts)


@claim("epoll is faster than select.", "folklore",
       "With few connections the cost of a message is that of its recv and send. select "
       "costs more with each idle connection.",
       "900 idle connections in both cases", on="how many connections are idle", slow=True)
def epoll_is_faster_than_select(lab):
    prepared = _prepared(lab, ("step5", "step6"), {})

    def ratio(idle):
        return lambda it: it.cost("step6", idle=idle) / it.cost("step5", idle=idle)
    return [Figure("processor time of a message, epoll against select, 10 clients",
                   _median(ratio(lab.either(0, 900)), prepared, lab, "10 clients"), "times",
                   high=0.6, within=3),
            Figure("the same with 900 idle ones beside them",
                   _median(ratio(900), prepared, lab, "900 idle"), "times", high=0.6, within=4)]


@claim("io_uring is faster.", "folklore",
       "It makes few system calls. That pays where a call is expensive: with filters, or with "
       "mitigations in the processor. Where a call is cheap, the bookkeeping costs as much.",
       "step 6 in its place, with a call for each action", on="what a system call costs",
       slow=True)
def io_uring_is_faster(lab):
    prepared = _prepared(lab, ("step6/io_uring", "slow_syscalls"),
                         {"step6/io_uring": ("step6", ())})

    def ratio(**options):
        return lambda it: it.against_baseline("step6/io_uring", connections=100, **options)
    return [Figure("processor time of a message, against the smallest epoll loop",
                   _median(ratio(), prepared, lab, "usual calls"), "times", high=0.85,
                   within=2),
            Figure("the same where a long filter (seccomp) slows each call down",
                   _median(ratio(divisions=400), prepared, lab, "slow calls"), "times",
                   high=0.85, within=2)]


def _nearest_in_list(count):
    """Nanoseconds to find the nearest of this many timers in a list without an order."""
    timers = list(range(count))
    began = time.perf_counter()
    min(timers)
    return (time.perf_counter() - began) * 1e9


@claim("A timer among 100,000 costs a hundred times what it costs among 1,000.",
       "event libraries with a list of timers, such as Redis's ae",
       "In a list it does. The timers of our ae are in a heap, as those of libuv: O(log n).",
       "a list that is searched for the nearest timer", slow=True)
def many_timers_are_dear(lab):
    if lab.doctored:
        ratio = (min(_nearest_in_list(check.timers.MANY) for _ in range(5))
                 / min(_nearest_in_list(check.timers.FEW) for _ in range(5)))
    else:
        _prepared(lab, ("timers",), {})
        measured = check.timers.measure()
        few, many = (check.timers.by_library(measured, count)["ae"]
                     for count in (check.timers.FEW, check.timers.MANY))
        ratio = max(many[key] / few[key] for key in check.timers.KEYS)
    lab.show(f"100,000 timers against 1,000: {ratio:.1f} times")
    return [Figure("a timer among 100,000, against 1,000", ratio, "times", low=40, within=8)]
