#!/usr/bin/env python3
"""The suite accepts a correct server and catches each broken one by the case meant for it."""

import collections
import contextlib
import os
import re
import sys
import tempfile
import traceback
import unittest
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
CLIENTS = os.path.dirname(HERE)
SERVERS = os.path.join(HERE, "servers")
SUITE = os.path.join(CLIENTS, "check-server.py")
REFERENCE = os.path.join(SERVERS, "reference.py")
BROKEN = os.path.join(SERVERS, "broken.py")
sys.path[:0] = [CLIENTS, SERVERS]

from bugs import BUGS, FAIR_ACCEPT     # noqa: E402
from check_server import command    # noqa: E402
from lib import processes   # noqa: E402

AT_ONCE = 4     # they mostly wait
OURS = list(command.REGISTRY.cases)

from check_server import fair_accept    # noqa: E402,F401

LEVEL = {case.name: case.level for case in command.REGISTRY.cases}
command.REGISTRY.cases[:] = OURS    # --also loads that file again

Done = collections.namedtuple("Done", "status output")


def run_suites(runs, at_once=AT_ONCE):
    """Run the suite with each of these arguments, some at the same time; return the dictionary
    of results by name."""
    waiting, running, results = list(runs), {}, {}
    with contextlib.ExitStack() as stack:
        while waiting or running:
            if waiting and len(running) < at_once:
                name = waiting.pop(0)
                output = stack.enter_context(tempfile.TemporaryFile())
                running[fork_suite(runs[name], output)] = name, output
                continue
            pid, status = os.wait()
            if pid in running:
                name, output = running.pop(pid)
                exited = os.WIFEXITED(status)
                results[name] = Done(
                    os.WEXITSTATUS(status) if exited else -os.WTERMSIG(status),
                    processes.read_bounded(output))
    return results


def fork_suite(arguments, output):
    """The suite as check-server.py runs it. It is imported already, which saves much time."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for number in 1, 2:
                os.dup2(output.fileno(), number)
            sys.stdout = open(1, "w", encoding="utf-8", closefd=False)
            sys.stderr = open(2, "w", encoding="utf-8", closefd=False)
            sys.argv = [SUITE, *arguments]
            warnings.simplefilter("ignore", ResourceWarning)     # unittest shows them
            processes.program(command.main)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else status
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return pid


def arguments_for(name):
    """The cases meant for a broken server, impatiently."""
    server = BUGS[name]
    quick = all(LEVEL[case] == "quick" for case in server.caught_by)
    return ["--slow-factor=0.25", "--contract=full", *["--quick"] * quick,
            *server.suite_options, *("--only=" + case for case in server.caught_by),
            BROKEN, "--", "--bug", name]


class TheSuite(unittest.TestCase):
    CORRECT = {
        "the reference": ["--ephemeral", "--contract=full", "--also", FAIR_ACCEPT,
                          REFERENCE],
        "one that is meant to serve one client at a time": [
            "--quick", "--serial", "--skip=one-byte-*", BROKEN, "--", "--bug",
            "serves-one-at-a-time"]}

    def test_accepts_correct_servers_and_catches_each_broken_one(self):
        runs = run_suites({**self.CORRECT, **{name: arguments_for(name) for name in BUGS}})
        # Some bugs show only in a server that gets a processor soon.
        missed = [name for name in BUGS
                  if f" {len(BUGS[name].caught_by)} failed, " not in runs[name].output]
        runs.update(run_suites({name: arguments_for(name) for name in missed}, at_once=1))
        for name in self.CORRECT:
            with self.subTest(name):
                self.assertEqual(runs[name].status, 0, runs[name].output)
                self.assertRegex(runs[name].output, r"\n\d\d+ passed, 0 failed, \d+ skipped\n$")
        for name, server in BUGS.items():
            with self.subTest(bug=name):
                status, output = runs[name]
                if (os.environ.get("REQUIRE_ALL", "0") == "0"
                        and re.search(r"\n0 passed, 0 failed, \d+ skipped\n$", output)):
                    self.skipTest(output)       # this machine lacks what the case needs
                self.assertEqual(status, 1, output)
                for case in server.caught_by:
                    self.assertRegex(output, f"(?m)^FAIL +{re.escape(case)} ")
                self.assertRegex(output, fr"\n0 passed, {len(server.caught_by)} failed, "
                                         r"0 skipped\n$")
                self.assertNotIn("the case itself broke", output)

    def test_has_for_every_case_a_server_that_fails_it(self):
        caught = {case for server in BUGS.values() for case in server.caught_by}
        self.assertEqual(caught, set(LEVEL))


if __name__ == "__main__":
    unittest.main()
