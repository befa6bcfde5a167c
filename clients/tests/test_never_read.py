"""never-read.py counts what a server takes from a client that never reads."""

import os
import re
import signal
import subprocess
import sys
import unittest

from little_server import LittleServer

PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "never-read.py")


def run(*arguments):
    return subprocess.run([sys.executable, PROGRAM, *map(str, arguments)], timeout=60,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")


def taken(output):
    return [int(figure.replace(",", ""))
            for figure in re.findall(r" s: the server has taken ([\d,]+) bytes", output)]


class NeverRead(unittest.TestCase):
    def test_a_server_with_back_pressure(self):
        """It sends its answers before it reads on, so it takes what the kernel's buffers hold.
        """
        with LittleServer("concurrent") as server:
            result = run("--bytes", "500M", "--seconds", 8, server.host, server.port)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        figures = taken(result.stdout)
        self.assertEqual(len(figures), 8)
        self.assertTrue(4096 < figures[-1] < 100 << 20, figures)
        self.assertRegex(result.stdout, r"bytes, nothing for \d s\n$")

    def test_it_ends_after_the_given_bytes(self):
        with LittleServer("concurrent") as server:
            result = run("--bytes", "20K", f"{server.host}:{server.port}")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(taken(result.stdout)[-1], 20 << 10)

    def test_the_server_closes(self):
        with LittleServer("reset") as server:
            result = run("--seconds", 30, server.host, server.port)
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^never-read: the connection ended after [\d,]+ bytes")

    def test_no_connection(self):
        for mode in "no-greeting", "wrong-greeting":
            with LittleServer(mode) as server:
                result = run(server.host, server.port)
            self.assertEqual((result.returncode, result.stderr),
                             (1, "never-read: the server did not greet with *\n"))
        result = run(server.host, server.port)
        self.assertEqual((result.returncode, result.stderr),
                         (1, f"never-read: cannot connect to {server.host} port {server.port}: "
                             "Connection refused\n"))

    def test_interrupt(self):
        with LittleServer("concurrent") as server:
            client = subprocess.Popen(
                [sys.executable, PROGRAM, server.host, str(server.port)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
            with client:
                self.assertIn(b"the server has taken", client.stdout.readline())
                client.send_signal(signal.SIGINT)
                self.assertEqual((client.wait(20), client.stderr.read()), (130, b""))

    def test_usage(self):
        for arguments, message in (
                (["--bytes", "0"], "0: expected a number of bytes, such as 100M"),
                (["--bytes", "1Q"], "1Q: expected a number of bytes, such as 100M"),
                (["--seconds", "0"], "0: expected seconds above 0"),
                (["--seconds", "inf"], "inf: expected seconds above 0"),
                (["--seconds", "soon"], "soon: expected seconds above 0")):
            result = run(*arguments, "127.0.0.1", 80)
            self.assertEqual((result.returncode, result.stdout), (2, ""))
            self.assertIn(message, result.stderr)
        self.assertIn("expected HOST PORT", run("localhost").stderr)


if __name__ == "__main__":
    unittest.main()
