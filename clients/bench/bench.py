#!/usr/bin/env python3
"""Measures what every step and variant costs, side by side: what `make bench` calls.

Each server gets a CPU of its own and the load client another. A run is short, and the servers
take turns for several rounds. So other work of the machine disturbs all of them alike. Figures
are medians. Ratios to the baseline (the smallest epoll loop there can be) are taken within a
round. Writes a table to standard output, and results.json and plots (SVG, where gnuplot is
installed) to a folder.
"""

import argparse
import contextlib
import datetime
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))     # also with PYTHONSAFEPATH

import lab          # noqa: E402
import plots        # noqa: E402
import tables       # noqa: E402
import timers       # noqa: E402
import workers      # noqa: E402
from lib.processes import capture, program      # noqa: E402

ACTIVE = 10             # active connections among the idle ones
IDLE = 100              # connections that are idle while idle CPU is measured
SLOWED = "baseline", "step6", "step6/io_uring"  # servers whose system calls are made slower
DIVISIONS = 0, 100, 200
INTERVAL_RATE = 50      # messages a second for step 4 while its interval is varied
TOO_LONG = 4            # seconds; runs that take longer are made in the first round only
SLOWEST = 1.1           # seconds: step 4 sleeps 200 ms an iteration, so less shows nothing
ALONE = 0.4             # seconds: with one connection both sides sleep and wake in turn
PATIENT = 2             # seconds for a server that answered nothing within the window
TURNS = 1e-4            # seconds for each connection: about fifteen messages of every one


class Plan:
    """What is measured at which points, and how much time it may take."""

    def __init__(self, quick, rounds=None):
        usual = 2 if quick else 3
        self.quick = quick
        self.rounds = rounds or usual
        # Seconds it is planned to take, and may take: a round less, then.
        self.budget = (40 if quick else 260) * self.rounds / usual
        self.limit = float("inf") if rounds else 58 if quick else 350
        self.points = {
            "load": (1, 100, 1000) if quick else (1, 10, 100, 1000, 10000),
            "idle": (0, 900, 5000) if quick else (0, 100, 900, 15000),
            "bulk": (65536,),
            "interval": (1, 20, 200) if quick else (0, 1, 5, 20, 50, 200),
        }
        self.prices = {}                        # divisions, by what a call costs with them
        self.window = 0.3                       # seconds; see fit()

    def find_prices(self):
        """Finds out what system calls cost, and what they can be made to cost."""
        prices = {lab.price_of_a_call(each): each
                  for each in (DIVISIONS[::2] if self.quick else DIVISIONS)}
        if None not in prices:
            self.prices = prices
            self.points["call"] = tuple(prices)

    def jobs(self, subjects):
        """All runs, in the order they are made: within a round every server has its turn at a
        point before the next point comes."""
        return [Job(experiment, point, subject, turn)
                for turn in range(self.rounds)
                for experiment, points in self.points.items()
                for point in points
                for subject in rotated(subjects, turn)
                if applies(experiment, subject, turn)]

    def fit(self, jobs):
        """Chooses the window so that all jobs together take about the budget."""
        runs = [job for job in jobs if job.obstacle() is None]
        self.window = 0
        left = self.budget - sum(job.estimate(self) for job in runs)
        self.window = min(max(left / max(len(runs), 1), 0.15), 1.0)


class Job:
    """One run of one server."""

    def __init__(self, experiment, point, subject, turn):
        self.experiment, self.point, self.subject = experiment, point, subject
        self.turn = turn

    def connections(self):
        return {"load": self.point, "idle": self.point + ACTIVE, "bulk": 1,
                "interval": IDLE, "call": 100}[self.experiment]

    def obstacle(self):
        """Why it cannot be run, or None."""
        return self.subject.cannot_take(self.connections())

    def estimate(self, plan):
        """Seconds it will take, roughly: connecting and closing take their time as well."""
        return 0.2 + self.warmup() + self.window(plan) + 1.5e-4 * self.connections()

    def window(self, plan):
        most = self.point if self.experiment == "load" else 0
        return max(plan.window, TURNS * most, ALONE if most == 1 else 0,
                   SLOWEST if self.subject.step == 4 else 0)

    def warmup(self):
        return 0.3 if self.subject.step == 4 else 0.05 + 2e-5 * self.connections()

    def run(self, plan, least=0):
        window = max(self.window(plan), least)
        options = {"duration": round(window, 3), "warmup": round(self.warmup(), 3)}
        if self.experiment == "interval":
            with lab.Server(self.subject, "--interval-ms", str(self.point)) as server:
                return server.load(connections=IDLE, rate=INTERVAL_RATE, **options)
        if self.experiment == "call":
            with lab.Server(lab.slowed(self.subject, plan.prices[self.point])) as server:
                return server.load(connections=self.connections(), **options)
        with lab.Server(self.subject) as server:
            if self.experiment == "load":
                return server.load(connections=self.point, **options)
            if self.experiment == "idle":
                return server.load(connections=ACTIVE, idle=self.point, **options)
            return server.load(bulk=self.point, **options)


def idle_cpu(subjects):
    """The CPU that each server uses while its clients are idle. All are measured at the same
    time, because then none disturbs another by its own measurement."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(lab.Server(subject)) for subject in subjects]
        for server in servers:
            stack.enter_context(lab.Idle(server, IDLE))
        time.sleep(0.5)
        before, began = [server.cpu_seconds() for server in servers], time.monotonic()
        time.sleep(1)
        seconds = time.monotonic() - began
        return {("idle_cpu", IDLE, server.subject.name):
                [{"cpu_share": (server.cpu_seconds() - earlier) / seconds}]
                for server, earlier in zip(servers, before)}


def rotated(subjects, turn):
    first = turn * 3 % len(subjects)
    return subjects[first:] + subjects[:first]


def applies(experiment, subject, turn):
    """Some experiments make no sense for some servers, or give the same result each time."""
    if experiment == "interval":
        return subject.name == "step4" and turn == 0
    if experiment == "call":
        return subject.name in SLOWED
    if experiment == "idle":
        return subject.capacity != 1
    if experiment == "bulk":
        return subject.mode != "redis"
    return True


def outcome(job, plan):
    """The figures of a run that went well, or the reason why there are none."""
    reason = job.obstacle()
    if reason:
        return {"reason": reason}
    try:
        report = job.run(plan)
        if report["messages"] == 0 and not report["options"]["bulk"]:
            report = job.run(plan, PATIENT)
    except lab.Trouble as trouble:
        return {"reason": "failed", "detail": str(trouble)}
    return flat(report)


def flat(report):
    """What we keep of a report of the load client, or the reason why it cannot be used."""
    made, waiting = report["connections"]["made"], report["connections"]["waiting"]
    if waiting:
        return {"reason": f"serves {made + report['connections']['idle']}"}
    if report["errors"]["total"]:
        return {"reason": "error", "detail": report["errors"]["first"]}
    if report["messages"] == 0 and not report["options"]["bulk"]:
        return {"reason": "no answers", "detail": "no answer within the window"}
    server, client, latency = report["server"], report["client"], report["latency_us"] or {}
    return {
        "rate": report["messages_per_second"],
        "mb_per_second": report["mb_per_second"],
        "cpu_us": server.get("cpu_us_per_message"),
        "cpu_share": server["cpu_share"],
        "threads": server["threads"],
        "resident_before": server["resident_before"],
        "resident_connected": server["resident_connected"],
        "p50_us": latency.get("p50"),
        "p99_us": latency.get("p99"),
        "client_share": client["cpu_share"],
        "client_delay": client["delay_share"],
    }


class Progress:
    """A line that overwrites itself, on a terminal only."""

    def __init__(self, jobs, plan):
        self.costs = [0.01 if job.obstacle() else job.estimate(plan) for job in jobs]
        self.began = time.monotonic()

    def overdue(self, number, plan, turn):
        """Whether another round would take longer than it may."""
        spent = time.monotonic() - self.began
        pace = spent / sum(self.costs[:number])
        coming = sum(self.costs[number:]) / (plan.rounds - turn)
        return spent + pace * coming > plan.limit

    def show(self, number, job):
        if not sys.stderr.isatty():
            return
        spent, done = time.monotonic() - self.began, sum(self.costs[:number])
        pace = spent / done if number > 5 else 1
        left = round(sum(self.costs[number:]) * pace)
        print(f"\r{number + 1} of {len(self.costs)}  {job.experiment!s:<9} {job.point:6}  "
              f"{job.subject.name!s:<20} {left // 60:2}:{left % 60:02} "
              "left\033[K", end="", file=sys.stderr, flush=True)

    @staticmethod
    def clear():
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def measure(jobs, plan):
    """Runs all jobs; outcomes by experiment, point and server, in a list by round."""
    found, settled = {}, set()
    progress = Progress(jobs, plan)
    for number, job in enumerate(jobs):
        begins_round = job.turn > jobs[number - 1].turn
        if begins_round and progress.overdue(number, plan, job.turn):
            plan.rounds = job.turn
            break
        progress.show(number, job)
        key = job.experiment, job.point, job.subject.name
        runs = found.setdefault(key, [])
        if key in settled:
            continue
        began = time.monotonic()
        runs.append(outcome(job, plan))
        if "reason" in runs[-1] or time.monotonic() - began > TOO_LONG:
            settled.add(key)
    progress.clear()
    return found


def summarise(found):
    """Medians over the rounds, the spread, and ratios to the baseline of the same round."""
    cells = []
    for (experiment, point, name), runs in found.items():
        cell = {"experiment": experiment, "point": point, "server": name}
        failures = [run for run in runs if "reason" in run]
        if failures:
            cell.update(failures[0])
        else:
            for key in runs[0]:
                values = [run[key] for run in runs if run[key] is not None]
                cell[key] = statistics.median(values) if values else None
            for key in "cpu_us", "rate", "mb_per_second":
                values = [run[key] for run in runs if run.get(key)]
                if len(values) > 1:
                    cell[key + "_spread"] = (max(values) - min(values)) / 2 / cell[key]
                baselines = found.get((experiment, point, "baseline"), [])
                cell[key + "_x"] = ratio(runs, baselines, key)
        cells.append(cell)
    return cells


def ratio(runs, baselines, key):
    ratios = [run[key] / baseline[key] for run, baseline in zip(runs, baselines)
              if run.get(key) and baseline.get(key)]
    return statistics.median(ratios) if ratios else None


def parse(arguments):
    parser = argparse.ArgumentParser(prog="bench.py", description=__doc__.partition("\n\n")[0],
                                     epilog=__doc__.partition("\n\n")[2])
    add = parser.add_argument
    add("--quick", action="store_true", help="under a minute instead of five, and rougher")
    add("--steps", default="", metavar="N,...", help="only these steps, and the baseline")
    add("--rounds", type=int, metavar="N",
        help="measure N times, however long it takes (default: 3, or as five minutes permit)")
    add("--peers", action="store_true", help="measure redis-server's PING as well")
    add("--output", type=pathlib.Path, default=lab.TREE / "build/bench", metavar="DIR",
        help="where results.json and the plots go (default: build/bench)")
    settings = parser.parse_args(arguments)
    if settings.rounds is not None and not 1 <= settings.rounds <= 100:
        parser.error(f"--rounds takes a number from 1 to 100, not {settings.rounds}")
    try:
        settings.steps = {int(step) for step in settings.steps.split(",") if step}
    except ValueError:
        parser.error(f"--steps takes numbers, such as 1,6, not {settings.steps!r}")
    if not settings.steps <= set(range(1, 9)):
        parser.error("--steps takes numbers from 1 to 8, not "
                     f"{','.join(map(str, sorted(settings.steps)))}")
    return settings


def choose(settings):
    subjects = [lab.baseline(), *lab.find_subjects(settings.steps)]
    if settings.peers:
        peer = lab.redis()
        if peer:
            subjects.append(peer)
        else:
            print("bench.py: no peers: redis-server is not installed", file=sys.stderr)
    return subjects


def engine():
    """The protocol engine by itself: figures by the length of the messages."""
    run = capture([str(lab.ENGINE), "--json"], lab.MINUTE)
    if run.status != 0:
        raise lab.Trouble(f"{lab.ENGINE} failed: {run.trouble or run.stderr.strip()}")
    return json.loads(run.stdout)


def main():
    settings = parse(sys.argv[1:])
    try:
        lab.raise_limit()
        lab.need(lab.LOAD_CLIENT, lab.BASELINE, lab.ENGINE)
        subjects = choose(settings)
        settings.output.mkdir(parents=True, exist_ok=True)
        plan = Plan(settings.quick, settings.rounds)
        if {subject.name for subject in subjects}.issuperset(SLOWED):
            plan.find_prices()
        jobs = plan.jobs(subjects)
        plan.fit(jobs)
        began = time.monotonic()
        found = idle_cpu(subjects)
        found.update(measure(jobs, plan))
        engine_figures = engine()
        worker_figures = workers.measure(subjects)
    except (lab.Trouble, OSError) as trouble:
        print(f"bench.py: {trouble}", file=sys.stderr)
        return 1
    results = {
        "date": datetime.date.today().isoformat(),
        "machine": lab.machine(),
        "quick": settings.quick, "rounds": plan.rounds, "window": round(plan.window, 3),
        "seconds": round(time.monotonic() - began, 1),
        "servers": [{"name": subject.name, "model": subject.model, "step": subject.step}
                    for subject in subjects],
        "timers": timers.measure(),
        "workers": worker_figures,
        "engine": engine_figures,
        "interval_rate": INTERVAL_RATE,
        "cells": summarise(found),
    }
    (settings.output / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(tables.terminal(results))
    print(timers.table(results["timers"]))
    print("\n" + workers.table(results["workers"]))
    print("\n" + plots.draw(results, settings.output))
    return 0


if __name__ == "__main__":
    program(main)
