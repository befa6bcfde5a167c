"""The demonstrations in demos/ show what they claim to show."""

import os
import re
import resource
import subprocess
import sys
import unittest

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
STEP6 = os.path.join(STEP, "..", "step6_epoll", "server")
FORK = os.path.join(STEP, "build", "variants", "fork")
COUNT = 200


def demo(name, *arguments):
    result = subprocess.run(
        [sys.executable, os.path.join(STEP, "demos", name), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=100)
    return result.returncode, result.stdout, result.stderr


@unittest.skipUnless(os.path.isdir("/proc/self"), "no /proc here")
class IdleThreads(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        status, cls.said, wrong = demo("idle_threads.py", "-n", COUNT)
        if status != 0:
            raise AssertionError(wrong)
        if cls.row("step 2, stacks of 256 KiB")[0] > COUNT + 1:
            raise unittest.SkipTest("the server has threads of its own: a sanitizer's")

    @classmethod
    def row(cls, name):
        """Threads; KiB reserved, resident and in page tables for each connection."""
        return list(map(float, re.search(
            "  " + name + r" +(\d+) +([\d.-]+) KiB +([\d.-]+) KiB +([\d.-]+) KiB\n",
            cls.said).groups()))

    def test_a_stack_reserves_much_and_uses_little(self):
        threads, reserved, resident, _ = self.row("step 2, stacks by default")
        self.assertEqual(threads, COUNT + 1)
        self.assertLess(resident, 0.1 * reserved)
        limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
        if limit != resource.RLIM_INFINITY:
            self.assertGreater(reserved, 0.9 * limit / 1024)

    def test_the_small_stack_reserves_less_and_uses_the_same(self):
        _, reserved, resident, _ = self.row("step 2, stacks by default")
        threads, less, same, _ = self.row("step 2, stacks of 256 KiB")
        self.assertEqual(threads, COUNT + 1)
        self.assertGreater(less, 250)
        self.assertLess(less, 0.3 * reserved)
        self.assertLess(abs(same - resident), 0.5 * resident)

    def test_a_long_message_touches_the_buffer_on_the_stack(self):
        resident, after = (self.row(name)[2] for name in (
            "step 2, stacks of 256 KiB", "the same, after 60 KB from each"))
        self.assertGreater(after, resident + 50)
        self.assertLess(after, resident + 80)

    @unittest.skipUnless(os.access(STEP6, os.X_OK), "step 6 is not built")
    def test_without_threads_a_connection_costs_far_less(self):
        threads, reserved, resident, _ = self.row("step 6, no thread")
        _, thread_reserved, thread_resident, _ = self.row("step 2, stacks of 256 KiB")
        self.assertEqual(threads, 1)
        self.assertLess(reserved, 0.1 * thread_reserved)
        self.assertLess(resident, 0.2 * thread_resident)

    def test_idle_clients_are_limited_and_closed(self):
        told = re.findall(r"^  (\S.*\S) +(\d+) threads", self.said, re.M)
        told = [(re.sub(r"\d+\.\d+ s", "a time", what), int(threads))
                for what, threads in told]
        self.assertEqual(told, [("50 are connected, and stay idle", 51),
                                ("the next is rejected", 51),
                                ("after a time all of them are closed", 1),
                                ("the next is served", 2)])
        self.assertGreaterEqual(float(re.search(r"after ([\d.]+) s", self.said).group(1)), 1.9)


@unittest.skipUnless(os.access(STEP6, os.X_OK) and os.access(FORK, os.X_OK), "needs step 6")
class Visits(unittest.TestCase):
    def test_a_process_costs_more_than_a_thread_and_that_more_than_an_object(self):
        for _ in range(3):      # a busy machine may disturb one measurement
            status, said, wrong = demo("visits.py", "-n", 500)
            self.assertEqual((status, wrong), (0, ""))
            costs = [float(cost) for cost in re.findall(r"([\d.]+) ms\n", said)]
            self.assertEqual(len(costs), 3, said)
            if costs[0] > 1.5 * costs[1] and costs[1] > 1.2 * costs[2]:
                return
        self.fail(said)


class Complaints(unittest.TestCase):
    def test_usage(self):
        for name in "idle_threads.py", "visits.py":
            for arguments in ["-n", "0"], ["-n", "-5"], ["-n", "many"], ["what"]:
                status, _, wrong = demo(name, *arguments)
                self.assertEqual(status, 2)
                self.assertIn(arguments[-1], wrong.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
