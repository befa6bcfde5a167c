#!/usr/bin/env python3
"""Starters in the other languages earn exactly stage 1, and filled exercises what the
step earns. REQUIRE_STARTERS=1: a missing compiler is a failure."""

import unittest

import test_begin
from grading_tools import STAGES, up_to
from test_begin import exercise, grade

# The last stage that a step passes. Steps 1 and 3 serve one client at a time; select ends at
# 1024 descriptors.
LAST_STAGE = {"1": 5, "3": 5, "5": 9}


class Starters(test_begin.Folders):
    earns_stage_1 = test_begin.Starters.earns_stage_1


for _language in sorted(set(test_begin.TOOLS) - {"c", "python"}):
    setattr(Starters, f"test_{_language}_earns_stage_1_and_no_more",
            lambda self, language=_language: self.earns_stage_1(language))


class Exercises(test_begin.Folders):
    def test_each_earns_nothing_until_it_is_filled_and_then_all(self):
        """One after another: two graders at once would count each other's threads."""
        for number, task in exercise.read().items():
            with self.subTest(number):
                folder = self.folder / number
                removed = exercise.make(task, folder)
                self.assertEqual(grade(folder), [0])
                source = folder / task.get("file", "server.c")
                source.write_text(exercise.fill(source.read_text(), removed))
                last = LAST_STAGE.get(number, len(STAGES))
                self.assertEqual(sum(grade(folder)[:last]), up_to(last))


if __name__ == "__main__":
    unittest.main()
