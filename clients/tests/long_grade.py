#!/usr/bin/env python3
"""The grader at length: all hints, full marks, and the same points in each of many runs."""

import unittest
from concurrent.futures import ThreadPoolExecutor

from grading_tools import (REFERENCE, ROOT, STAGES, STREAMS, THREADS, grade, grade_broken,
                           hints_for, hints_of, most, outcome, points, up_to)

import broken   # noqa: E402
from lib import tree    # noqa: E402

REPEATS, OF_LATE_ONES, LATE = 20, 2, 7  # from this stage on a run takes half a minute
GRADED = {case["case"] for stage in STAGES for case in stage["cases"]}


class BrokenServers(unittest.TestCase):
    def runs(self, bug):
        """What it earned in each of many runs, the hints of all, and the first report. A bug
        that the course has no case for is run once, up to the stage with many clients."""
        if not GRADED & set(broken.BUGS[bug].caught_by):
            first = grade_broken(bug, *(f"--stage={number}" for number in range(1, LATE)))
            again = []
        else:
            first = grade_broken(bug)
            soon = (first.data["next"] or LATE) < LATE
            again = [grade_broken(bug) for _ in range((REPEATS if soon else OF_LATE_ONES) - 1)]
        return ([outcome(done.data) for done in (first, *again)],
                set().union(*(hints_of(done.data) for done in (first, *again))), first.stdout)

    def test_get_their_hint_and_no_other_and_the_same_points_each_time(self):
        with ThreadPoolExecutor(2) as pool:
            results = dict(zip(broken.BUGS, pool.map(self.runs, broken.BUGS)))
        for bug, (outcomes, hints, report) in results.items():
            with self.subTest(bug):
                self.assertEqual(hints, hints_for(bug), report)
                for other in outcomes[1:]:
                    self.assertEqual(other, outcomes[0], report)


class GoodServers(unittest.TestCase):
    def earns(self, main, hardened, *arguments):
        for _ in range(OF_LATE_ONES):
            done = grade(*arguments)
            with self.subTest(arguments):
                self.assertEqual(points(done.data)["main"], main, done.stdout)
                self.assertIn(points(done.data)["hardened"], hardened, done.stdout)
                self.assertEqual(done.returncode, 0)

    def test_the_reference_earns_everything(self):
        self.earns(most("main"), [most("hardened")], REFERENCE)

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
