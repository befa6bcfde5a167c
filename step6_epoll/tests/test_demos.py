"""The demonstration in demos/ shows what it claims to show."""

import os
import subprocess
import sys
import unittest
from contextlib import contextmanager

STEP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
WRONG, RIGHT, LEVEL = "build/demos/edge_wrong", "build/variants/edge", "server"


def built(program):
    return unittest.skipUnless(os.access(os.path.join(STEP, program), os.X_OK),
                               program + " is not built")


@contextmanager
def running(program):
    """A server on a free port, which is yielded."""
    server = subprocess.Popen([os.path.join(STEP, program), "--quiet", "0"],
                              stdout=subprocess.PIPE, encoding="utf-8")
    with server:
        try:
            yield server.stdout.readline().strip().rpartition(":")[2]
        finally:
            server.terminate()
            server.stdout.read()


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
            self.assertEqual(client("--silence", 5, "127.0.0.1", port),
                             (0, "sent 10000 bytes, 9999 came back of 9999\n", ""))

    @built(RIGHT)
    def test_the_same_client_passes_on_one_that_reads_on(self):
        self.passes(RIGHT)

    @built(LEVEL)
    def test_the_same_client_passes_on_a_level_triggered_one(self):
        self.passes(LEVEL)


class EdgeClient(unittest.TestCase):
    def test_complaints(self):
        for arguments in [], ["127.0.0.1", "http"], ["--bytes", 1, "127.0.0.1", 1], \
                ["127.0.0.1", 65536], ["--silence", "nan", "127.0.0.1", 1]:
            self.assertEqual(client(*arguments)[0], 2)
        status, _, said = client("127.0.0.1", 1)
        self.assertEqual(status, 1)
        self.assertEqual(said, "edge_client: cannot connect to 127.0.0.1 port 1: "
                         "Connection refused\n")


if __name__ == "__main__":
    unittest.main()
