#!/usr/bin/env python3
"""The suite accepts a correct server and catches each broken one by the case meant for it."""

import os
import random
import re
import subprocess
import sys
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.dirname(HERE)
SERVERS = os.path.join(HERE, "servers")
SUITE = os.path.join(CLIENTS, "check-server.py")
REFERENCE = os.path.join(SERVERS, "reference.py")
BROKEN = os.path.join(SERVERS, "broken.py")
sys.path[:0] = [CLIENTS, SERVERS]

import broken   # noqa: E402
from check_server import Model, naive_answer, newcomers    # noqa: E402
from check_server.command import REGISTRY   # noqa: E402
from check_server.protocol import random_input  # noqa: E402

LEVEL = {case.name: case.level for case in REGISTRY.cases}


def check_server(*arguments):
    return subprocess.run([sys.executable, SUITE, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8", check=False)


def check_broken(name):
    """Run the cases meant for a broken server, impatiently."""
    server = broken.BUGS[name]
    quick = all(LEVEL[case] == "quick" for case in server.caught_by)
    return check_server("--slow-factor=0.25", "--contract=full", *["--quick"] * quick,
                        *server.suite_options, *("--only=" + case for case in server.caught_by),
                        BROKEN, "--", "--bug", name)


class TheSuite(unittest.TestCase):
    def test_accepts_correct_servers_and_catches_each_broken_one(self):
        with ThreadPoolExecutor(2) as two_at_a_time:
            correct = [
                two_at_a_time.submit(check_server, "--ephemeral", "--contract=full", "--also",
                                     newcomers.__file__, REFERENCE),
                two_at_a_time.submit(check_server, "--quick", "--serial", "--skip=one-byte-*",
                                     BROKEN, "--", "--bug", "serves-one-at-a-time")]
            runs = {name: two_at_a_time.submit(check_broken, name) for name in broken.BUGS}
        for run in correct:
            done = run.result()
            with self.subTest(done.args):
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                self.assertRegex(done.stdout, r"\n\d\d+ passed, 0 failed, \d+ skipped\n$")
        for name, server in broken.BUGS.items():
            with self.subTest(bug=name):
                done = runs[name].result()
                self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
                for case in server.caught_by:
                    self.assertRegex(done.stdout, "(?m)^FAIL +%s " % re.escape(case))
                self.assertRegex(done.stdout, r"\n0 passed, %d failed, 0 skipped\n$"
                                 % len(server.caught_by))
                self.assertNotIn("the case itself broke", done.stdout)

    def test_has_for_every_case_a_server_that_fails_it(self):
        caught = {case for server in broken.BUGS.values() for case in server.caught_by}
        self.assertEqual(caught, set(LEVEL))

    def test_ends_quietly_when_nobody_reads_on(self):
        for options in ["--list"], ["--quick", REFERENCE]:
            with self.subTest(options):
                reader, writer = os.pipe()
                os.close(reader)
                with open(writer, "wb") as output:
                    done = subprocess.run([sys.executable, SUITE, *options], stdout=output,
                                          stderr=subprocess.PIPE, check=False)
                self.assertEqual((done.returncode, done.stderr), (1, b""))

    def test_usage_errors(self):
        for arguments in ([], ["/no/such/server"], [HERE], ["--slow-factor=0", REFERENCE],
                          ["--only=no-such-case", REFERENCE], ["--capacity=x", REFERENCE],
                          ["--also=/no/such/file", REFERENCE], ["--no-such", REFERENCE],
                          ["--junit=/no/such/folder/x", REFERENCE], [__file__]):
            with self.subTest(arguments):
                done = check_server(*arguments)
                self.assertEqual(done.returncode, 2, done.stdout)
                self.assertNotIn("Traceback", done.stderr)


class TheReports(unittest.TestCase):
    BOTH = ("--only=known-exchange", "--only=all-byte-values", "--contract=full", BROKEN, "--",
            "--bug", "off-by-one-at-the-wrap")

    def test_lines(self):
        done = check_server(*self.BOTH)
        self.assertRegex(done.stdout, r"(?m)^ok +known-exchange +the known .* \(\d\.\d\d s\)$")
        self.assertIn(r"from byte 250 on expected b'\xfc\xfd\xfe\xff\x00', "
                      r"got b'\xfc\xfd\xfe\xff\xff'", done.stdout)
        self.assertIn("client sent 257 bytes: ", done.stdout)
        self.assertIn("  | Listening on 127.0.0.1:", done.stdout)
        self.assertRegex(done.stdout, r"again with  --only all-byte-values --seed \d+")
        self.assertTrue(done.stdout.endswith("\n1 passed, 1 failed, 0 skipped\n"))

    def test_tap(self):
        lines = check_server("--tap", *self.BOTH).stdout.splitlines()
        self.assertEqual(lines[:2], ["TAP version 13", "1..2"])
        self.assertRegex(lines[2], "^ok 1 - known-exchange: ")
        self.assertRegex(lines[3], "^not ok 2 - all-byte-values: ")
        self.assertEqual(lines[-1], "# 1 passed, 1 failed, 0 skipped")

    def test_junit(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "report.xml")
            check_server("--junit", path, *self.BOTH)
            suite = ElementTree.parse(path).getroot()
        self.assertEqual((suite.get("tests"), suite.get("failures")), ("2", "1"))
        self.assertEqual([len(case) for case in suite.iter("testcase")], [0, 1])


class FurtherCases(unittest.TestCase):
    def test_are_run_after_ours_and_judged_the_same(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "lesson.py")
            with open(path, "w", encoding="utf-8") as file:
                file.write(LESSON)
            done = check_server("--also", path, "--only=*lesson*", "--contract=basic",
                                REFERENCE)
        self.assertRegex(done.stdout, "(?m)^ok +good-lesson ")
        self.assertRegex(done.stdout, "(?m)^FAIL +bad-lesson ")
        self.assertRegex(done.stdout, "(?m)^skip +skipped-lesson .*no option --max-clients")
        self.assertIn("expected b'xyz', got b'bcd'", done.stdout)


class AMachineThatStandsStill(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cases = os.path.join(folder.name, "stalls.py")
        with open(self.cases, "w", encoding="utf-8") as file:
            file.write(STALLS)

    def run_case(self, name):
        return check_server("--also", self.cases, "--only", name, "--contract=basic",
                            REFERENCE).stdout

    def test_is_good_for_a_second_try(self):
        self.assertRegex(self.run_case("one-stall"), r"ok .*\n +the second try, .* 0\.\d\d s\n")
        self.assertRegex(self.run_case("stalls"), r"FAIL .*\n +the second try, .*\n +time 2\n")

    def test_is_no_excuse_for_doing_too_much(self):
        self.assertRegex(self.run_case("too-much"), r"FAIL .* s\)\n +time 1\n")

    def test_is_not_one_that_computes(self):
        said = self.run_case("no-stall")
        for _ in range(5):      # it may indeed stand still, but not each time
            if "the second try" in said:
                said = self.run_case("no-stall")
        self.assertRegex(said, r"FAIL .* s\)\n +time 1\n")


STALLS = """
import subprocess
from check_server import case
from check_server.errors import Failure

times = {}

def fail(t, upto, stop):
    times[upto] = times.get(upto, 0) + 1
    if stop:
        subprocess.run(["sh", "-c", "kill -STOP $PPID; sleep 0.4; kill -CONT $PPID"])
    t.check(times[upto] > upto, "time %d" % times[upto])

@case("it fails while the machine stands still")
def one_stall(t):
    fail(t, 1, True)

@case("it fails again")
def stalls(t):
    fail(t, 2, True)

@case("it does too much, while the machine stands still")
def too_much(t):
    try:
        fail(t, 4, True)
    except Failure as failure:
        raise Failure(str(failure), final=True)

@case("it fails, and the machine was there all the time")
def no_stall(t):
    sum(range(30000000))
    fail(t, 3, False)
"""

LESSON = """
from check_server import case

@case("it holds")
def good_lesson(t):
    with t.server() as s:
        s.connect().greeting().send(b"^abc$").expect(b"bcd")
        s.wait_log("connected")
        assert s.threads() == 1
        assert s.stop().status == 0

@case("it does not hold")
def bad_lesson(t):
    with t.server() as s:
        s.connect().greeting().send(b"^abc$").expect(b"xyz")

@case("it cannot be told", needs="--max-clients")
def skipped_lesson(t):
    raise AssertionError
"""


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
