#!/usr/bin/env python3
"""The grader at length: all hints, full marks, and the same points in each of many runs.

    long_grade.py                                 # everything
    PART=2/4 long_grade.py BrokenServers          # the second quarter of the broken servers
    BUGS='spins greets-twice' long_grade.py BrokenServers
    long_grade.py GoodServers

A run that ends before stage 7 is repeated until there are 20. A later one takes up to a minute:
there are two, and the stage that fails is run 18 times more.
"""

import os
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from functools import partialmethod

from grading_tools import (REFERENCE, ROOT, STAGES, STREAMS, THREADS, grade, grade_broken,
                           hints_for, hints_of, most, outcome, points, up_to)

import broken   # noqa: E402
from lib import tree    # noqa: E402

REPEATS, OF_LATE_ONES, LATE = 20, 2, 7  # from this stage on a run takes half a minute
PART, PARTS = map(int, os.environ.get("PART", "1/1").split("/"))
CHOSEN = (os.environ.get("BUGS") or " ".join(broken.BUGS)).split()[PART - 1::PARTS]
GRADED = {case["case"] for stage in STAGES for case in stage["cases"]}


def runs_of(bug):
    """All its whole runs, and those of the stage that fails. A bug that no case of the course
    is about is run once, up to the stage with many clients."""
    if not hints_for(bug) and not GRADED & set(broken.BUGS[bug].caught_by):
        return [grade_broken(bug, *(f"--stage={number}" for number in range(1, LATE)))], []
    runs = [grade_broken(bug, timeout=1200)]
    failing = runs[0].data["next"]
    soon = (failing or LATE) < LATE
    whole = REPEATS if soon else OF_LATE_ONES
    runs += [grade_broken(bug, timeout=1200) for _ in range(whole - 1)]
    alone = [grade_broken(bug, f"--stage={failing}", timeout=1200)
             for _ in range(REPEATS - whole)] if failing else []
    print(f"{bug}: {len(runs)} runs, {points(runs[0].data)}", file=sys.stderr, flush=True)
    return runs, alone


def cases_of(data, number):
    return [(case["name"], case["status"], case["points"]) for stage in data["stages"]
            if stage["number"] == number for case in stage["cases"]]


class BrokenServers(unittest.TestCase):
    """A test for each broken server; see the end of this file."""

    @classmethod
    def setUpClass(cls):
        workers = ThreadPoolExecutor(2 * (os.cpu_count() or 1))     # they mostly wait
        cls.addClassCleanup(workers.shutdown, cancel_futures=True)
        cls.runs = {bug: workers.submit(runs_of, bug) for bug in CHOSEN}

    def check(self, bug):
        runs, alone = self.runs[bug].result()
        for run in runs + alone:
            self.assertEqual(hints_of(run.data), hints_for(bug), run.stdout)
        for run in runs:
            self.assertEqual(outcome(run.data), outcome(runs[0].data), run.stdout)
        failing = runs[0].data["next"]
        for run in alone:
            self.assertEqual(cases_of(run.data, failing), cases_of(runs[0].data, failing),
                             run.stdout)


for name in CHOSEN:
    setattr(BrokenServers, f"test_{name.replace('-', '_')}",
            partialmethod(BrokenServers.check, name))


class GoodServers(unittest.TestCase):
    def earns(self, main, hardened, *arguments, repeats=OF_LATE_ONES):
        with ThreadPoolExecutor(os.cpu_count()) as workers:
            runs = [workers.submit(grade, *arguments) for _ in range(repeats)]
        for run in runs:
            done = run.result()
            with self.subTest(arguments):
                self.assertEqual(points(done.data)["main"], main, done.stdout)
                self.assertIn(points(done.data)["hardened"], hardened, done.stdout)
                self.assertEqual(done.returncode, 0)

    def test_the_reference_earns_everything(self):
        self.earns(most("main"), [most("hardened")], REFERENCE, repeats=REPEATS)

    def test_threads_and_asyncio_in_python_earn_the_main_part_and_no_more(self):
        for server in THREADS, STREAMS:
            self.earns(most("main"), range(most("hardened")), server)

    def test_the_steps_that_serve_one_at_a_time_reach_the_end_of_stage_5(self):
        for program in tree.servers(ROOT, (1, 3)):
            for _ in range(OF_LATE_ONES):
                done = grade(str(program.path))
                self.assertEqual(points(done.data), {"main": up_to(5), "hardened": 0},
                                 done.stdout)

    def test_the_steps_that_serve_many_earn_everything(self):
        for program in tree.servers(ROOT, (2, 4, 5, 6, 7, 8)):
            if not program.variant:
                options, more = tree.suite_arguments(program)
                lost = 4 if "--capacity" in options else 0  # select cannot hold ten thousand
                self.earns(most("main") - lost, [most("hardened")], *options,
                           str(program.path), "--", *more)


if __name__ == "__main__":
    unittest.main()
