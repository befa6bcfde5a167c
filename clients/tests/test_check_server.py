#!/usr/bin/env python3
"""The suite accepts a correct server and catches each broken one by the case meant for it."""

import os
import random
import re
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.dirname(HERE)
SERVERS = os.path.join(HERE, "servers")
SUITE = os.path.join(CLIENTS, "check-server.py")
REFERENCE = os.path.join(SERVERS, "reference.py")
BROKEN = os.path.join(SERVERS, "broken.py")
sys.path[:0] = [CLIENTS, SERVERS]

import broken   # noqa: E402
from check_server import Model, naive_answer    # noqa: E402
from check_server.protocol import random_input  # noqa: E402


def check_server(*arguments):
    return subprocess.run([sys.executable, SUITE, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", check=False)


class TheSuite(unittest.TestCase):
    def test_accepts_the_reference(self):
        done = check_server("--ephemeral", "--contract", "full", REFERENCE)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertRegex(done.stdout, r"\n[1-9]\d* passed, 0 failed, \d+ skipped\n$")

    def test_catches_each_broken_server_by_the_case_meant_for_it(self):
        def run(item):
            name, server = item
            return name, server.caught_by, check_server(
                "--ephemeral", "--slow-factor", "0.4", "--only", server.caught_by, BROKEN, "--", "--bug", name)

        with ThreadPoolExecutor(2) as two_at_a_time:
            for name, case, done in two_at_a_time.map(run, broken.BUGS.items()):
                with self.subTest(bug=name):
                    self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                    self.assertRegex(done.stdout, "(?m)^FAIL +%s " % re.escape(case))
                    self.assertRegex(done.stdout, r"\n0 passed, 1 failed, 0 skipped\n$")
                    self.assertNotIn("the case itself broke", done.stdout)


class TheModel(unittest.TestCase):
    def test_agrees_with_the_naive_rule_at_every_split(self):
        rng = random.Random(1)
        for _ in range(50):
            data = random_input(rng, rng.randrange(60))
            for at in range(len(data) + 1):
                model = Model()
                self.assertEqual(model.feed(data[:at]) + model.feed(data[at:]),
                                 naive_answer(data), data)


if __name__ == "__main__":
    unittest.main()
