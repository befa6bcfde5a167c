"""How workers on one port scale, and the load client's threads: message rate and CPU per
message by their number; and the memory of a worker."""

import json
import os
import statistics

import lab
import tables
from lib import servers
from lib.processes import capture

NAME, ALONE = "step6/workers", "step6"      # the workers, and one loop
CPUS_NEEDED = 4         # half of them are for the load
CONNECTIONS = 100
ROUNDS = 5
MANY = 16               # workers, to see what memory one takes


class Undecided(lab.Trouble):
    """This machine does too much else to tell whether a claim holds."""


def run(subject, arguments, server_cpus, load_cpus, duration=0.5, threads=None):
    """The load client's report of a server on some CPUs."""
    command = [*subject.command, *arguments]
    with servers.Server(command, patience=lab.PATIENCE,
                        prepare=on_cpus(server_cpus)) as server:
        client = capture(
            [str(lab.LOAD_CLIENT), "--connections", str(CONNECTIONS),
             "--duration", str(duration), "--warmup", "0.1",
             "--threads", str(threads or len(load_cpus)), "--server-pid", str(server.pid),
             "--json", "-", "127.0.0.1", str(server.port)],
            lab.MINUTE, prepare=on_cpus(load_cpus))
    if client.trouble or not client.stdout:
        raise lab.Trouble(f"{subject.name}: {client.trouble or client.stderr.strip()}")
    report = json.loads(client.stdout)
    if report["errors"]["total"] or not report["messages"]:
        raise lab.Trouble(f"{subject.name}: {report['errors'].get('first') or 'no answer'}")
    return report


def on_cpus(cpus):
    return lambda: os.sched_setaffinity(0, cpus)


def all_cpus():
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def enough_cpus():
    return len(all_cpus()) >= CPUS_NEEDED


def split():
    """The CPUs for the server, and those for the load. Where there are too few, one for each:
    then only CPU time tells something."""
    cpus = all_cpus()
    half = len(cpus) // 2 if enough_cpus() else 1
    return cpus[-half:], cpus[:half]


def counts():
    return range(1, max(len(split()[0]), 2) + 1)


def cost_ratios(workers, single, counts):
    """For each of these numbers of workers: the CPU time of a message, as a multiple of that
    with one loop, and the noise. Each time is the least of some runs, because other programs
    can only raise the cost. The noise is how much one loop, measured before and after the
    workers, differs from itself."""
    server_cpus, load_cpus = split()
    ways = [(single, ()), *((workers, ("--workers", str(count))) for count in counts),
            (single, ())]
    costs = [[run(subject, arguments, server_cpus, load_cpus, 0.25)["server"]
              ["cpu_us_per_message"] for subject, arguments in ways] for _ in range(ROUNDS)]
    before, *with_workers, after = map(min, zip(*costs))
    noise = max(before, after) / min(before, after)
    return {count: (cost / min(before, after), noise)
            for count, cost in zip(counts, with_workers)}


def decided(ratio, noise, limit):
    """The ratio. If it and the noise are above the limit, it decides nothing."""
    if ratio > limit and noise > limit:
        raise Undecided(f"one loop costs {noise:.2f} times as much as itself")
    return ratio


def measure(subjects):
    """Figures for one loop and for each number of workers; for each number of the load client's
    threads; and the memory of a worker. None where the servers were not chosen."""
    by_name = {subject.name: subject for subject in subjects}
    if NAME not in by_name or ALONE not in by_name:
        return None
    server_cpus, load_cpus = split()
    runs = {}

    def take(key, name, *how, **more):
        runs.setdefault(key, []).append(run(by_name[name], *how, **more))

    for _ in range(ROUNDS):
        take(("workers", 0), ALONE, (), server_cpus[:1], load_cpus)
        for count in (*counts(), MANY):
            take(("workers", count), NAME, ("--workers", str(count)), server_cpus[-count:],
                 load_cpus)
        for count in counts():
            take(("threads", count), NAME, ("--workers", str(len(server_cpus))), server_cpus,
                 load_cpus[:count], threads=count)

    def median(key, value):
        return statistics.median(map(value, runs[key]))

    def row(kind, count, side):
        return {kind: count,
                "rate": (median((kind, count), lambda report: report["messages_per_second"])
                         if enough_cpus() else None),
                "cpu_us": min(report[side]["cpu_us_per_message"]     # others can only raise it
                              for report in runs[kind, count])}

    def resident(count):
        return median(("workers", count), lambda report: report["server"]["resident_connected"])

    return {"workers": [{**row("workers", count, "server"), "resident": resident(count)}
                        for count in (0, *counts())],       # 0: one loop, without workers
            "threads": [row("threads", count, "client") for count in counts()],
            "per_worker": (resident(MANY) - resident(1)) / (MANY - 1)}


def rows(figures, kind):
    """The cells of a table: one of workers, or one of the load client's threads."""
    first = figures[kind][0]
    return [[str(row[kind]) if row[kind] else "none (server)",
             f"{row['rate']:,.0f} ({row['rate'] / first['rate']:.2f}x)" if row["rate"]
             else "not measured here",
             f"{tables.three(row['cpu_us'])} µs ({row['cpu_us'] / first['cpu_us']:.2f}x)",
             *([tables.size(row["resident"])] if "resident" in row else [])]
            for row in figures[kind]]


WORKERS = "workers", "messages a second", "CPU per message", "resident"
THREADS = "load client's threads", "messages a second", "the load client's CPU per message"


def per_worker(figures):
    return f"A further worker takes {tables.size(max(figures['per_worker'], 0))} of memory."


def table(figures):
    """The tables for the terminal."""
    if not figures:
        return "Workers were not measured: step6 and its variant workers were not both chosen."
    return (f"Workers on one port, {CONNECTIONS} connections. Messages a second need at least "
            f"{CPUS_NEEDED} CPUs:\nhalf of them are for the load\n\n"
            + tables.align([WORKERS, *rows(figures, "workers")])
            + f"\n\n{per_worker(figures)}\n\n"
            + tables.align([THREADS, *rows(figures, "threads")]))
