"""The workers are a full server in each of their ways to share a port."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

STEP = pathlib.Path(__file__).resolve().parents[1]
ROOT = STEP.parent
sys.path.insert(0, str(ROOT / "clients"))
from lib import figures             # noqa: E402
from lib.processes import capture   # noqa: E402
from lib.servers import Server      # noqa: E402

WORKERS = STEP / "build/variants/workers"
FAULTS = STEP / "build/tests/faults_workers"
SUITE = [sys.executable, ROOT / "clients/check-server.py", "--contract", "full", "--ephemeral"]
INJECT = [sys.executable, ROOT / "clients/tests/inject.py"]
WAYS = "accept", "listener", "exclusive", "reuseport"
OTHERS = WAYS[1:]   # make check runs the suite, faults and inject.py for the default by itself
SECONDS = 280 * float(os.environ.get("CHECK_SLOW") or 1)
FULL = os.environ.get("CHECK_LEVEL") == "--full"


@unittest.skipUnless(os.access(WORKERS, os.X_OK), "build/variants/workers is not built")
class WorkersTest(unittest.TestCase):
    def each_way_passes(self, command, arguments, ways):
        """Runs the command for these ways at the same time."""
        runs = {way: subprocess.Popen(
            [*map(str, command), *arguments, "--share", way], stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
            errors="replace") for way in ways}
        for way, run in runs.items():
            with self.subTest(way), run:
                output = run.communicate(timeout=SECONDS)[0]
                failed = [line for line in output.splitlines()
                          if not line.startswith(("ok", "skip", "["))]
                self.assertEqual(run.returncode, 0, "\n".join(failed))
                self.assertRegex(output, "passed|ok")

    def test_suite(self):
        """Those cases that do not measure time, as the three runs disturb each other."""
        level = [] if FULL else ["--quick"]
        self.each_way_passes([*SUITE, *level, "--not-timed", "--skip", "one-turn-each",
                              "--skip", "out-of-descriptors-12", WORKERS],
                             ["--", "--workers", "4"], OTHERS)

    def test_cases_for_one_worker(self):
        self.each_way_passes([*SUITE, "--only", "one-turn-each", "--only",
                              "out-of-descriptors-12", WORKERS], ["--", "--workers", "1"], WAYS)

    @unittest.skipUnless((ROOT / "common/tests/faults.c").is_file(),
                         "common/tests/faults.c is left out here")
    def test_calls_that_fail(self):
        self.each_way_passes([FAULTS], ["--workers", "4"], OTHERS)

    @unittest.skipUnless(FULL, "not with --quick: make check tries one way of sharing")
    def test_injected_faults(self):
        self.each_way_passes([*INJECT, WORKERS], ["--", "--workers", "4"], OTHERS)

    def test_how_many_sockets_listen(self):
        """With reuseport each worker has one of its own, else they share one."""
        if not figures.AVAILABLE:
            self.skipTest("needs Linux's /proc")
        for way in WAYS:
            with self.subTest(way), \
                    Server([WORKERS, "--workers", "3", "--share", way]) as server:
                self.assertEqual(len(figures.listens_at(server.members())),
                                 3 if way == "reuseport" else 1)

    def test_as_many_workers_as_cpus(self):
        if not hasattr(os, "sched_setaffinity"):
            self.skipTest("this system has no affinity")
        cpus = sorted(os.sched_getaffinity(0))
        for count in {1, len(cpus)}:
            def prepare(allowed=cpus[:count]):
                os.sched_setaffinity(0, allowed)

            with tempfile.NamedTemporaryFile() as stats:
                with Server([WORKERS, "--stats", stats.name], prepare=prepare):
                    pass
                found = len(json.load(stats)["workers"])
            self.assertLessEqual(found, count)      # a quota may allow fewer
            self.assertGreaterEqual(found, 1)

    def test_help_lists_the_ways(self):
        done = capture([str(WORKERS), "--help"], 10)
        self.assertIn("--share " + "|".join(WAYS), done.stdout)


if __name__ == "__main__":
    unittest.main()
