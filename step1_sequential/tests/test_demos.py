#!/usr/bin/env python3
"""Does demos/bare.c keep and break the promises that demos/README.md names?"""

import os
import pathlib
import subprocess
import sys
import unittest

STEP = pathlib.Path(__file__).resolve().parents[1]
SUITE = STEP.parent / "clients" / "check-server.py"
BARE = STEP / "build" / "demos" / "bare"
KEPT = "greeting", "known-exchange", "byte-by-byte", "listens-on-loopback"
BROKEN = ("never-reading-client", "half-close-and-never-read", "busy-port-is-a-failure",
          "stop-with-clients", "port-is-free-again")


def verdict(case):
    """What the suite says about one case: "ok" or "FAIL"."""
    done = subprocess.run([sys.executable, str(SUITE), "--serial", "--only", case, str(BARE)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8",
                          timeout=120)
    words = [line.split()[0] for line in done.stdout.splitlines()
             if line.split()[1:2] == [case]]
    assert len(words) == 1, done.stdout
    return words[0]


class BareTest(unittest.TestCase):
    def test_it_keeps_some_promises(self):
        for case in KEPT:
            with self.subTest(case):
                self.assertEqual(verdict(case), "ok")

    def test_it_breaks_those_that_the_readme_names(self):
        readme = (STEP / "demos" / "README.md").read_text(encoding="utf-8")
        for case in BROKEN:
            with self.subTest(case):
                self.assertIn(f"FAIL  {case} ", readme)
                found = verdict(case)
                if found == "skip" and os.environ.get("CHECK_EMULATED"):
                    self.skipTest("not where an emulator runs the server")
                self.assertEqual(found, "FAIL")


if __name__ == "__main__":
    unittest.main()
