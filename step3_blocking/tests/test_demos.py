"""The demonstrations in demos/ show what they claim to show."""

import os
import re
import subprocess
import sys
import unittest

DEMOS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "build", "demos")


class ReadAnything(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.result = subprocess.run([os.path.join(DEMOS, "read_anything")],
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    encoding="ascii", timeout=60)

    def test_succeeds(self):
        self.assertEqual((self.result.returncode, self.result.stderr), (0, ""))

    def test_only_the_file_is_never_waited_for(self):
        reads = {name: ([int(n) for n in numbers.split()], float(ms)) for name, numbers, ms in
                 re.findall(r"(\w+) +read returned ([\d ]+?) +after +([\d.]+) ms",
                            self.result.stdout)}
        self.assertEqual(list(reads), ["file", "pipe", "socket"])
        for name, (numbers, _) in reads.items():
            self.assertEqual((name, sum(numbers), numbers[-1]), (name, 18, 0))
        self.assertEqual(reads["file"][0], [18, 0])
        for name in "pipe", "socket":
            self.assertGreater(reads[name][1], 290)
            self.assertGreater(reads[name][1], 10 * reads["file"][1])

    def test_what_is_said_without_sleeping(self):
        said = {name: re.split("  +", rest) for name, rest in
                re.findall(r"^  (\w+) +((?:0|-1): .*)$", self.result.stdout, re.M)}
        linux = sys.platform.startswith("linux")
        refused, accepted = ("EPERM", "accepted") if linux else ("(no epoll)", "(no epoll)")
        self.assertEqual(said, {"file": ["0: the end", "ready", refused],
                                "pipe": ["-1: EAGAIN", "not ready", accepted],
                                "socket": ["-1: EAGAIN", "not ready", accepted]})

    def test_usage(self):
        result = subprocess.run([os.path.join(DEMOS, "read_anything"), "--what"],
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
        self.assertEqual((result.returncode, result.stdout), (2, b""))
        usage = subprocess.check_output([os.path.join(DEMOS, "read_anything"), "--help"])
        self.assertEqual(usage, b"usage: read_anything\n")


if __name__ == "__main__":
    unittest.main()
