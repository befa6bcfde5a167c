"""simple-client.py against servers that keep the protocol, and against servers that do not."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from little_server import LittleServer

CLIENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "simple-client.py")
sys.path.insert(0, os.path.dirname(CLIENT))
from demo import simple_client as client  # noqa: E402
STAMP = r"INFO:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}:"


def run_client(*arguments, **options):
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([sys.executable, CLIENT, *map(str, arguments)], timeout=20,
                          universal_newlines=True, **options)


def talk_to(mode, *arguments, **options):
    with LittleServer(mode) as server:
        return run_client("--time-scale", 0.02, *arguments, server.host, server.port, **options)


class Correct(unittest.TestCase):
    def assert_good(self, result):
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_the_log(self):
        result = talk_to("concurrent")
        self.assert_good(result)
        *lines, last = result.stdout.splitlines()
        self.assertRegex(last, r"^Elapsed: \d+\.\d{4}$")
        for line in lines:
            self.assertRegex(line, STAMP + "conn0 ")
        lines = [re.sub(STAMP, "", line) for line in lines]
        # The two threads may be overtaken by each other, but not by themselves.
        self.assertEqual([line for line in lines if "received" not in line],
                         ["conn0 connected...", "conn0 sending b'^abc$de^abte$f'",
                          "conn0 sending b'xyz^123'", "conn0 sending b'25$^ab0000$abab'",
                          "conn0 disconnecting"])
        self.assertEqual([line for line in lines if "received" in line],
                         ["conn0 received b'bcdbcuf'", "conn0 received b'234'",
                          "conn0 received b'36bc1111'"])

    def test_many_clients(self):
        result = talk_to("concurrent", "-n", 200)
        self.assert_good(result)
        self.assertEqual(result.stdout.count("connected..."), 200)

    def test_concurrent_server_takes_the_time_of_one_client(self):
        elapsed = float(talk_to("concurrent", "-n", 5, "--time-scale", 0.1).stdout.split()[-1])
        self.assertGreater(elapsed, 0.22)
        self.assertLess(elapsed, 3 * 0.22)

    def test_sequential_server_makes_the_others_wait_for_the_greeting(self):
        with tempfile.TemporaryDirectory() as folder:
            file = os.path.join(folder, "report.json")
            self.assert_good(talk_to("sequential", "-n", 3, "--json", file))
            with open(file) as stream:
                report = json.load(stream)
        self.assertGreater(report["elapsed"], 3 * 0.044)
        turns = sorted(report["connections"], key=lambda each: each["greeting"])
        self.assertLess(max(each["connect"] for each in turns), turns[0]["close"])
        for before, after in zip(turns, turns[1:]):
            self.assertGreater(after["greeting"], before["disconnect"])


class Json(unittest.TestCase):
    def test_on_stdout_it_stands_alone(self):
        result = talk_to("concurrent", "-n", 2, "--json", "-")
        report = json.loads(result.stdout)
        self.assertIn("conn1 disconnecting", result.stderr)
        self.assertIn("Elapsed: ", result.stderr)
        self.assertEqual([each["name"] for each in report["connections"]], ["conn0", "conn1"])
        conn = report["connections"][0]
        self.assertEqual("".join(each["data"] for each in conn["receives"]),
                         "bcdbcuf23436bc1111")
        self.assertEqual([each["bytes"] for each in conn["sends"]], [14, 7, 15])
        times = [conn["connect"], conn["greeting"], *(each["at"] for each in conn["sends"]),
                 conn["disconnect"], conn["close"], report["elapsed"]]
        self.assertEqual(times, sorted(times))

    def test_local_ports(self):
        """They tell the connections apart in what was recorded elsewhere."""
        with LittleServer("sequential") as server:
            result = run_client("--time-scale", 0, "-n", 3, "--json", "-",
                                server.host, server.port)
        ports = {each["local_port"] for each in json.loads(result.stdout)["connections"]}
        self.assertEqual(ports, set(server.peer_ports))
        self.assertEqual(len(ports), 3)

    def test_written_when_connections_failed(self):
        report = json.loads(talk_to("reset", "--json", "-").stdout)
        conn = report["connections"][0]
        self.assertIn("reset", conn["failure"])
        self.assertIsNone(conn["disconnect"])

    def test_cannot_be_written(self):
        result = talk_to("concurrent", "--json", "/nonexistent/report.json")
        self.assertEqual(result.returncode, 1)
        self.assertRegex(result.stderr, r"^ERROR:.*cannot write /nonexistent/report.json: ")


class Failing(unittest.TestCase):
    def assert_fails(self, result, message, connections=1):
        self.assertEqual(result.returncode, 1)
        lines = result.stderr.splitlines()
        self.assertEqual(len(lines), connections, result.stderr)
        for index, line in enumerate(lines):
            self.assertRegex(line, rf"^ERROR:.*:conn{index} failed: .*{message}")
        self.assertIn("Elapsed: ", result.stdout.splitlines()[-1])

    def test_refused(self):
        with socket.socket() as sock:  # bound, so that nobody else listens there
            sock.bind(("127.0.0.1", 0))
            result = run_client("-n", 3, *sock.getsockname())
        self.assert_fails(result, "Connection refused", connections=3)

    def test_a_thread_that_ends_early(self):
        """No error was seen, but no success either: the reader dies of another exception."""
        def die(_connection, _sock):
            sys.exit()
        with LittleServer("concurrent") as server:
            connection, = client.make_connections(1, server.host, server.port, 0, 10)
            connection.read_answers = die.__get__(connection)
            self.assertFalse(connection.failures)
            connection.start()
            connection.join()
        self.assertRegex(connection.failure, "^ended while ")

    def test_unknown_host(self):
        self.assert_fails(run_client("host.invalid", 80), "connecting to host.invalid")
        self.assert_fails(run_client("a" * 70 + ".invalid", 80), "")

    def test_misbehaviour(self):
        for mode, message in (
                ("no-greeting", "closed early: the server sent no greeting"),
                ("wrong-greeting", re.escape("greeted with b'!' instead of b'*'")),
                ("wrong-byte", "wrong answer: expected b'bcdbcuf.*received b'bcdbcuF'"),
                ("extra-byte", r"wrong answer: .*36bc1111\+'"),
                ("early-close", "closed early: expected b'bcdbcuf.*received b''"),
                ("close-after-answers", "closed early: .*received b'bcdbcuf23436bc1111'"),
                ("reset", "reset by peer while exchanging messages")):
            with self.subTest(mode):
                self.assert_fails(talk_to(mode, "-n", 2, "--time-scale", 0.1), message, 2)

    def test_a_failure_ends_the_connection_at_once(self):
        result = talk_to("wrong-byte", "--time-scale", 10)
        self.assert_fails(result, "wrong answer")
        self.assertLess(float(result.stdout.split()[-1]), 5)

    def test_timeouts(self):
        for mode, doing in (("silent", "waiting for the greeting"),
                            ("never-closes", "waiting for the server to close")):
            with self.subTest(mode):
                self.assert_fails(talk_to(mode, "--timeout", 0.3),
                                  f"timed out after 0.3 s while {doing}")

    def test_usage(self):
        for arguments in ((), ("localhost",), ("localhost", "0"), ("localhost", "65536"),
                          ("localhost", "http"), ("-n", "0", "localhost", "1"),
                          ("--time-scale", "nan", "localhost", "1"),
                          ("--time-scale", "-1", "localhost", "1"),
                          ("--timeout", "0", "localhost", "1"), ("--what", "localhost", "1")):
            with self.subTest(arguments):
                result = run_client(*arguments)
                self.assertEqual((result.returncode, result.stdout), (2, ""))
                self.assertIn("usage:", result.stderr)


class Surroundings(unittest.TestCase):
    def test_nobody_reads_the_log(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "w") as broken:
            result = talk_to("concurrent", stdout=broken)
            self.assertEqual((result.returncode, result.stderr), (0, ""))
            result = talk_to("wrong-byte", stdout=broken, stderr=broken)
        self.assertEqual(result.returncode, 1)

    def test_output_closed(self):
        for closed in (">&-", ">&- 2>&-"):
            with self.subTest(closed), LittleServer("concurrent") as server:
                command = f'exec "$@" {closed}'
                result = subprocess.run(
                    ["sh", "-c", command, "sh", sys.executable, CLIENT, "--time-scale", "0",
                     server.host, str(server.port)], timeout=20, stderr=subprocess.PIPE)
                self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_no_warnings(self):
        result = talk_to("concurrent", env={**os.environ, "PYTHONWARNINGS": "error"})
        self.assertEqual((result.returncode, result.stderr), (0, ""))

    def test_interrupt(self):
        with LittleServer("silent") as server:
            client = subprocess.Popen(  # a background job may ignore SIGINT
                [sys.executable, CLIENT, "--json", "-", "-n", "2",
                 server.host, str(server.port)],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
            with client:
                while len(server.clients) < 2:
                    self.assertIsNone(client.poll())
                client.send_signal(signal.SIGINT)
                out, errors = client.communicate(timeout=20)
        self.assertEqual((client.returncode, errors), (130, b""))
        self.assertEqual(len(json.loads(out)["connections"]), 2)


if __name__ == "__main__":
    unittest.main()
