"""The demonstration in demos/ shows what it claims to show."""

import os
import re
import subprocess
import sys
import unittest

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
ROW = (r"^%s +(?P<cpu>\d+) ms +\d+ %% +(?P<calls>\d+) +(?P<again>[\d.]+) %%"
       r" +(?P<answer>[\d.]+) ms$")


def run(*arguments):
    return subprocess.run([sys.executable, os.path.join(STEP, "demos", "intervals.py"),
                           *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          encoding="ascii", timeout=60)


class Intervals(unittest.TestCase):
    @unittest.skipUnless(os.access(os.path.join(STEP, "..", "step5_select", "server"), os.X_OK),
                         "step 5 is not built")
    def test_either_the_cpu_burns_or_the_answers_are_late(self):
        result = run("--seconds", "1.5", "0", "20", "200")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        spin, short, long, select = (
            {key: float(value) for key, value in
             re.search(ROW % re.escape(name), result.stdout, re.M).groupdict().items()}
            for name in ("interval 0 ms", "interval 20 ms", "interval 200 ms",
                         "select (step 5)"))
        self.assertGreater(spin["cpu"], 4 * max(short["cpu"], 10))
        self.assertGreater(spin["again"], 98)
        self.assertGreater(spin["calls"], 20 * short["calls"])
        self.assertGreater(short["calls"], 3 * long["calls"])
        self.assertGreater(short["answer"], 3)
        self.assertGreater(long["answer"], 3 * short["answer"])
        self.assertEqual(select["again"], 0)
        self.assertLess(select["calls"], long["calls"])
        self.assertLess(select["answer"], short["answer"])
        self.assertLess(4 * select["cpu"], spin["cpu"])

    def test_usage(self):
        for arguments in ["--clients", "0"], ["--seconds", "0"], ["--", "-1"], ["often"], \
                ["--seconds", "nan"], ["10001"]:
            result = run(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn(arguments[-1], result.stderr.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
