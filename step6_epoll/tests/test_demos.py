"""The demonstrations in demos/ show what they claim to show."""

import os
import re
import signal
import subprocess
import sys
import unittest
from contextlib import contextmanager

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(STEP, "..", "clients"))

from lib import figures             # noqa: E402
from lib.servers import Server      # noqa: E402

WRONG, RIGHT, LEVEL = "build/demos/edge_wrong", "build/variants/edge", "server"


def built(program):
    return unittest.skipUnless(os.access(os.path.join(STEP, program), os.X_OK),
                               program + " is not built")


@contextmanager
def running(program):
    """A server on a free port, which is yielded."""
    with Server([os.path.join(STEP, program), "--quiet"]) as server:
        yield server.port


def client(*arguments):
    result = subprocess.run(
        [sys.executable, os.path.join(STEP, "demos", "edge_client.py"), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
    return result.returncode, result.stdout, result.stderr


class EdgeWrong(unittest.TestCase):
    @built(WRONG)
    def test_stalls_on_a_message_larger_than_its_buffer(self):
        with running(WRONG) as port:
            self.assertEqual(client("--bytes", 2000, "127.0.0.1", port),
                             (0, "sent 2000 bytes, 1999 came back of 1999\n", ""))
            self.assertEqual(
                client("127.0.0.1", port),
                (1, "sent 10000 bytes, 2047 came back of 9999, then nothing for 0.5 s\n"
                    "sent 1 byte more, 2048 came back; still missing: 5905\n", ""))

    def passes(self, program):
        with running(program) as port:
            self.assertEqual(client("--patience", 5, "127.0.0.1", port),
                             (0, "sent 10000 bytes, 9999 came back of 9999\n", ""))

    @built(RIGHT)
    def test_all_bytes_come_back_if_the_server_reads_until_eagain(self):
        self.passes(RIGHT)

    @built(LEVEL)
    def test_all_bytes_come_back_from_a_level_triggered_server(self):
        self.passes(LEVEL)


class EdgeClient(unittest.TestCase):
    def test_usage_errors(self):
        for arguments in [], ["127.0.0.1", "http"], ["--bytes", 1, "127.0.0.1", 1], \
                ["127.0.0.1", 65536], ["--patience", "nan", "127.0.0.1", 1]:
            self.assertEqual(client(*arguments)[0], 2)
        status, _, said = client("127.0.0.1", 1)
        self.assertEqual(status, 1)
        self.assertEqual(said, "edge_client: cannot connect to 127.0.0.1 port 1: "
                         "Connection refused\n")


PREFORK = os.path.join("..", "step2_thread_per_client", "build", "variants", "prefork")


@built("build/variants/workers")
@built(PREFORK)
class Sharing(unittest.TestCase):
    """The bands are wide: only what the kernel promises, and what the hash of this many clients
    makes certain, is asserted."""

    CLIENTS, WORKERS = 200, 4

    @classmethod
    def setUpClass(cls):
        done = subprocess.run([sys.executable, os.path.join(STEP, "demos", "sharing.py")],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              encoding="utf-8", timeout=120)
        if "cannot suspend a thread: Operation not permitted" in done.stderr:
            raise unittest.SkipTest("this system does not allow ptrace")
        assert done.returncode == 0, done.stderr
        cls.rows = {}
        for line in done.stdout.splitlines()[4:]:
            figures = [int(word) for word in line[32:].split()]
            cls.rows[line[:32].strip()] = figures[:cls.WORKERS], figures[cls.WORKERS]

    def test_every_client_is_served_by_a_worker(self):
        self.assertEqual(len(self.rows), 5)
        for way, (served, _) in self.rows.items():
            self.assertEqual(sum(served), self.CLIENTS, way)

    def test_blocking_accept_is_even_and_loses_nobody(self):
        served, lost = self.rows["processes that block in accept"]
        self.assertEqual(lost, 0)
        for each in served:
            self.assertTrue(25 <= each <= 75, served)

    def test_an_acceptor_is_even_and_loses_the_share_of_the_worker_that_hangs(self):
        self.assertEqual(self.rows["--share accept"], ([50] * 4, 50))

    def test_one_queue_loses_nobody(self):
        for way in "--share listener", "--share exclusive":
            self.assertEqual(self.rows[way][1], 0, way)

    def test_an_exclusive_wait_is_uneven(self):
        self.assertGreaterEqual(max(self.rows["--share exclusive"][0]), 80)

    def test_many_queues_are_nearly_even_and_lose_a_share(self):
        served, lost = self.rows["--share reuseport"]
        for each in [*served, lost]:
            self.assertTrue(20 <= each <= 80, (served, lost))

    def test_a_signal_ends_it_at_once_also_while_a_worker_is_suspended(self):
        for state in "T", "t":      # a process by a signal, a thread by ptrace
            with self.subTest(state=state):
                self.end_while_a_worker_is(state)

    def end_while_a_worker_is(self, state):
        with subprocess.Popen([sys.executable, os.path.join(STEP, "demos", "sharing.py")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as demo:
            try:
                server = None
                while server is None and demo.poll() is None:
                    below = figures.with_descendants({demo.pid}, figures.table())
                    server = next((pid for pid in below if state in figures.states(pid)), None)
                demo.terminate()
                self.assertEqual(demo.wait(5), 128 + signal.SIGTERM)
                self.assertEqual(figures.states(server), set())
            finally:
                demo.kill()

    def test_usage_errors(self):
        for arguments in ["--clients", "1"], ["--workers", "many"], ["8080"]:
            done = subprocess.run(
                [sys.executable, os.path.join(STEP, "demos", "sharing.py"), *arguments],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
            self.assertEqual(done.returncode, 2)
            self.assertIn(arguments[-1], done.stderr)


@built("build/variants/io_uring")
class Calls(unittest.TestCase):
    def run_it(self, *arguments):
        return subprocess.run(
            [sys.executable, os.path.join(STEP, "demos", "calls.py"), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)

    def test_one_call_hands_over_many_requests(self):
        done = self.run_it("--seconds", "0.5")
        if done.stdout.startswith("skip"):
            self.skipTest(done.stdout)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        epoll, many, uring, few = (float(calls) for calls in re.findall(
            r"(?m)clients? +([\d.]+) +\d+ %$", done.stdout))
        self.assertAlmostEqual(epoll, 3, delta=0.1)
        self.assertAlmostEqual(uring, 2, delta=0.1)
        self.assertGreaterEqual(many, 2)
        self.assertLess(few, 1)

    def test_usage_errors(self):
        for arguments in ["--seconds", "0"], ["--seconds", "4000"], ["--seconds", "many"], \
                ["8080"]:
            done = self.run_it(*arguments)
            self.assertEqual(done.returncode, 2)
            self.assertIn(arguments[-1], done.stderr)


if __name__ == "__main__":
    unittest.main()
