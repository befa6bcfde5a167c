"""The demonstrations in demos/ show what their README says."""

import os
import re
import socket
import subprocess
import sys
import unittest
from contextlib import contextmanager

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path.insert(0, os.path.join(STEP, "..", "clients"))

from lib.servers import Server      # noqa: E402

DEMOS = os.path.join(STEP, "build", "demos")


def run(*command, seconds=100):
    result = subprocess.run([*map(str, command)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, encoding="utf-8", timeout=seconds)
    return result.returncode, result.stdout, result.stderr


def demo(name, *arguments):
    return run(os.path.join(DEMOS, name), *arguments)


def script(name, *arguments):
    return run(sys.executable, os.path.join(STEP, "demos", name), *arguments)


@contextmanager
def prime_server(*options):
    """The server on a free port, which is yielded."""
    with Server([os.path.join(DEMOS, "prime_server"), *options]) as server:
        yield server.port


def ask(port, *pieces):
    """Sends the pieces and closes the sending side. Returns all lines of the answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        for piece in pieces:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        return sock.makefile("rb").read().decode("ascii").splitlines()


class PrimeServer(unittest.TestCase):
    def both_modes(self):
        for mode in "block", "pool":
            with self.subTest(mode), prime_server("--mode", mode) as port:
                yield port

    def test_answers_are_right_and_in_order(self):
        def prime(n):
            return all(n % d for d in range(2, int(n ** 0.5) + 1))

        numbers = [*range(2, 1000), 2 ** 32, 65537 ** 2, 2147483647, 2 ** 64 - 2, 2 ** 64 - 1]
        expected = ["prime" if prime(n) else "composite" for n in range(2, 1000)]
        expected += ["composite", "composite", "prime", "composite", "composite"]
        for port in self.both_modes():
            self.assertEqual(ask(port, b"".join(b"%d\n" % n for n in numbers)), expected)

    def test_bad_lines_get_an_error(self):
        for port in self.both_modes():
            for line in (b"", b"-7", b"+7", b" 7", b"7 ", b"7.0", b"0x7", b"abc", b"7\0", b"0",
                         b"1", b"18446744073709551616", b"9" * 30, b"7" * 64, b"7" * 1000):
                answers = ask(port, line + b"\n7\n")
                self.assertEqual((line, len(answers), answers[-1]), (line, 2, "prime"))
                self.assertRegex(answers[0], "^error: [a-z0-9 ]+$")

    def test_lines_may_be_split_anywhere(self):
        for port in self.both_modes():
            for size in range(1, 70):
                seven = b"7".rjust(size, b"0")
                answer = "prime" if size < 64 else "error: line too long"
                self.assertEqual(ask(port, seven + b"\n8\n"), [answer, "composite"])
            self.assertEqual(ask(port, b"1", b"1\n1", b"2\r\n\n"),
                             ["prime", "composite", "error: empty line"])
            self.assertEqual(ask(port, b"10\n11"), ["composite", "prime"])
            self.assertEqual(ask(port), [])

    def test_usage(self):
        for options in (["--mode", "fast"], ["--threads", "0"], ["--threads"], ["--what"],
                        ["http"], ["1", "2"], ["65536"]):
            status, stdout, stderr = demo("prime_server", *options)
            self.assertEqual((status, stdout), (2, ""), options)
            self.assertIn(f"'{options[-1]}'", stderr)


class PrimeClient(unittest.TestCase):
    LARGE = 9999999999999937        # a third of the default's divisions

    def rows(self, *arguments):
        """For each server and each number of large requests: when the last large request was
        answered, and the worst answer time of the small ones, in milliseconds."""
        status, stdout, stderr = script("prime_client.py", "--large", self.LARGE, *arguments)
        self.assertEqual((status, stderr), (0, ""))
        rows = [(int(crowd), float(last.replace("-", "0")), float(worst)) for crowd, last, worst
                in re.findall(r"^ +(\d) +(\d+|-) ms +\d+ +[\d.]+ ms +(\d+) ms$", stdout, re.M)]
        self.assertEqual([row[0] for row in rows[:5]], [0, 1, 2, 4, 5])
        return [{crowd: rest for crowd, *rest in rows[i:i + 5]}
                for i in range(0, len(rows), 5)]

    def test_one_large_number_stops_block_mode_and_four_stop_pool_mode(self):
        block, pool = self.rows()
        for crowd in 1, 2, 4, 5:
            last, worst = block[crowd]
            self.assertGreater(worst, 0.6 * last, f"block, {crowd}")
        for crowd in 1, 2:
            last, worst = pool[crowd]
            self.assertLess(worst, 0.6 * last, f"pool, {crowd}")
        for crowd in 4, 5:
            last, worst = pool[crowd]
            self.assertGreater(worst, 0.3 * last, f"pool, {crowd}")

    def test_a_smaller_pool_is_busy_sooner(self):
        with prime_server("--mode", "pool", "--threads", "1") as port:
            (small,) = self.rows("127.0.0.1", port)
        last, worst = small[1]
        self.assertGreater(worst, 0.6 * last)

    def test_clear_errors(self):
        self.assertEqual(script("prime_client.py", "127.0.0.1", "http")[0], 2)
        self.assertEqual(script("prime_client.py", 65536)[0], 2)
        for option, value in ("--patience", "nan"), ("--large", "1"):
            status, _, stderr = script("prime_client.py", option, value)
            self.assertEqual(status, 2)
            self.assertIn(f"{option} {value}: expected", stderr)
        with prime_server() as port:
            pass
        status, stdout, stderr = script("prime_client.py", "127.0.0.1", port)
        self.assertEqual(status, 1)
        self.assertRegex(stderr, r"^prime_client: [^\n]+\n$")


class Timers(unittest.TestCase):
    SCALE = 0.2

    def gaps(self, name):
        """The gaps between ticks, in units of the period; and what was printed in each."""
        status, stdout, stderr = demo(name, "--time-scale", self.SCALE)
        self.assertEqual((status, stderr), (0, ""))
        parts = re.split(r"tick \d+, ([\d.]+) s.*\n", stdout)
        gaps = [float(gap) / self.SCALE for gap in parts[1::2]]
        self.assertEqual(len(gaps), 9)
        self.assertEqual(stdout.count("work begins"), 2)
        self.assertEqual(stdout.count("work is done"), 2)
        longest = float(re.search(r"longest gap .*: ([\d.]+) s\n$", stdout).group(1))
        self.assertAlmostEqual(longest / self.SCALE, max(gaps), 1)
        return gaps, parts[2::2]

    def test_a_callback_that_sleeps_stops_the_timer(self):
        gaps, _ = self.gaps("timer_sleep")
        self.assertGreater(min(gaps[3], gaps[6]), 2.9)
        self.assertLess(max(gaps[:3] + gaps[4:6] + gaps[7:]), 2)

    def test_with_the_pool_the_timer_goes_on(self):
        gaps, between = self.gaps("timer_work")
        self.assertLess(max(gaps), 2)
        self.assertIn("work begins", between[3 - 1])
        self.assertIn("work begins", between[6 - 1])
        for tick, done in (4, 0), (7, 1):   # ticks come while the work goes on
            self.assertLessEqual("".join(between[:tick]).count("work is done"), done)

    def test_usage(self):
        for options in ["1"], ["--time-scale"], ["--time-scale", "0"], ["--time-scale", "1x"]:
            for name in "timer_sleep", "timer_work":
                status, stdout, stderr = demo(name, *options)
                self.assertEqual((status, stdout), (2, ""), options)
                if len(options) == 2:
                    self.assertIn(f"--time-scale '{options[1]}': expected", stderr)


class FileRead(unittest.TestCase):
    def rows(self):
        """For both ways to read: time taken, longest stall, answers, worst answer."""
        status, stdout, stderr = demo("file_read", "--mebibytes", 128)
        self.assertEqual((status, stderr), (0, ""))
        return [list(map(float, re.search(
            "  " + name + r" +(\d+) ms +([\d.]+) ms +(\d+) +([\d.]+) ms\n", stdout).groups()))
            for name in (r"read\(\) in the loop", "uv_fs_read")]

    def test_only_with_the_pool_the_loop_goes_on(self):
        for _ in range(3):      # on a busy machine any loop may stall
            (took, stall, answers, worst), (pool_took, pool_stall, _, pool_worst) = self.rows()
            self.assertGreater(stall, 0.9 * took)
            self.assertGreater(worst, 0.7 * took)
            self.assertGreater(answers, 5)
            if max(pool_stall, pool_worst) < 0.5 * pool_took:
                return
        self.fail("the loop stalled with the pool, too")

    def test_usage(self):
        for options in ["1"], ["--mebibytes"], ["--mebibytes", "0"], ["--mebibytes", "many"]:
            self.assertEqual(demo("file_read", *options)[:2], (2, ""), options)
        stderr = demo("file_read", "--mebibytes", "many")[2]
        self.assertIn("--mebibytes 'many': expected", stderr)


if __name__ == "__main__":
    unittest.main()
