#!/usr/bin/env python3
"""Starters in the other languages earn exactly stage 1, and filled exercises what the step
earns. REQUIRE_STARTERS=1: a missing compiler is a failure."""

import unittest
from concurrent.futures import ThreadPoolExecutor

import test_begin
from test_begin import exercise, grade, run


class Starters(test_begin.Folders):
    earns_stage_1 = test_begin.Starters.earns_stage_1


for _language in sorted(set(test_begin.TOOLS) - {"c", "python"}):
    setattr(Starters, f"test_{_language}_earns_stage_1_and_no_more",
            lambda self, language=_language: self.earns_stage_1(language))


class Exercises(test_begin.Folders):
    def check(self, number, task):
        folder = self.folder.with_name(f"step{number}")
        removed = exercise.make(task, folder)
        done = run("make", "-s", "-C", folder, "CFLAGS=-O1 -Werror")
        self.assertEqual((done.returncode, done.stderr), (0, ""), number)
        self.assertEqual(grade(folder), [0], number)
        source = folder / task.get("file", "server.c")
        source.write_text(exercise.fill(source.read_text(), removed))
        step = exercise.ROOT / task["folder"]
        earned = grade(step)
        self.assertEqual(grade(folder), earned, number)
        self.assertGreater(sum(earned), 0, number)

    def test_each_earns_nothing_until_it_is_filled_and_then_what_the_step_does(self):
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(self.check, number, task)
                         for number, task in exercise.read().items()]:
                done.result()


if __name__ == "__main__":
    unittest.main()
